"""From an image and its label map to what segmentation trains on and what it's tested on.

Crops by mmsegmentation's training pipeline: scale, crop with a limit on the largest class, flip, change colours, pad.
Images are scaled bilinearly without antialiasing,
maps to the nearest pixel, both as OpenCV does with mmsegmentation: images within one level, maps exactly. (Elsewhere
resizing has antialiasing: docs/decisions/0007.)
"""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from morphmlp.data.clips.draws import Box
from morphmlp.data.clips.photometric import adjust
from morphmlp.data.clips.scene_draws import SceneDraw
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED

LabelMap = npt.NDArray[np.uint8]
"""`[h w]`: the class of each pixel, or `IGNORED`."""


def crop_scene(
    image: npt.NDArray[np.uint8], label_map: LabelMap, draw: SceneDraw, *, size: int, fill: tuple[int, ...]
) -> tuple[npt.NDArray[np.uint8], LabelMap]:
    """Carry out one crop's draws on an image `[h w 3]` and its map `[h w]`, which stay as they are.

    A box smaller than `size` lies at the top left; next to it the image has the colour `fill`, the map `IGNORED`.
    """
    box = draw.box
    scaled = scaled_image(_tensor(image), (draw.height, draw.width)).numpy()
    cut = scaled[box.top : box.top + box.height, box.left : box.left + box.width]
    labels = cut_map(label_map, draw.height, draw.width, box)
    if draw.flip:
        cut, labels = cut[:, ::-1], labels[:, ::-1]
    crop = np.full((size, size, 3), fill, dtype=np.uint8)
    crop[: box.height, : box.width] = adjust(cut, draw.adjustments)
    padded = np.full((size, size), IGNORED, dtype=np.uint8)
    padded[: box.height, : box.width] = labels
    return crop, padded


def scaled_image(image: UInt8[Tensor, "h w 3"], size: tuple[int, int]) -> UInt8[Tensor, "h2 w2 3"]:
    """Scale to `size`, rows and columns, bilinearly and without antialiasing."""
    if image.shape[:2] == size:
        return image
    # A batch made by reshaping: colours stay neighbours to torch, which then takes its fastest kernel for uint8.
    first = image.reshape(1, *image.shape).permute(0, 3, 1, 2)
    if image.is_cuda:  # has no kernel for uint8
        scaled = functional.interpolate(first.float(), size=size, mode="bilinear").round_().to(torch.uint8)
    else:
        scaled = functional.interpolate(first, size=size, mode="bilinear")
    return scaled[0].permute(1, 2, 0)


def cut_map(label_map: LabelMap, height: int, width: int, box: Box) -> LabelMap:
    """A box of the map scaled to a height and width: of each pixel the nearest one, as OpenCV finds it.

    Only the box is made. torch's `nearest` reckons in single precision and takes another pixel here and there.
    """
    rows = _nearest(label_map.shape[0], height)[box.top : box.top + box.height]
    columns = _nearest(label_map.shape[1], width)[box.left : box.left + box.width]
    return label_map.take(rows, axis=0).take(columns, axis=1)


def class_shares(label_map: LabelMap) -> tuple[float, ...]:
    """Which share of the valid pixels each class has that is there; none where all are ignored."""
    counts = torch.bincount(torch.from_numpy(label_map).reshape(-1), minlength=IGNORED + 1)[:IGNORED]
    present = counts[counts > 0]
    return tuple((present / present.sum()).tolist())


def _nearest(side: int, scaled: int) -> npt.NDArray[np.intp]:
    """Which of `side` pixels each of `scaled` ones shows."""
    return np.minimum((np.arange(scaled) * (1 / (scaled / side))).astype(np.intp), side - 1)


def _tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image if image.flags.writeable else image.copy())
