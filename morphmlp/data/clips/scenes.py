"""From an image and its label map to what segmentation trains on and what it's tested on.

`TrainScenes` gives crops by mmsegmentation's training pipeline: scale, crop with a limit on the largest class, flip,
change colours, pad. `WholeScenes` gives images as they're stored. Images are scaled bilinearly without antialiasing,
maps to the nearest pixel, both as OpenCV does with mmsegmentation: images within one level, maps exactly. (Elsewhere
resizing has antialiasing: docs/decisions/0007.)
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import ASSUMED_WHOLE_BYTES, ClipExtractor, ExtractedClips
from morphmlp.data.clips.photometric import adjust
from morphmlp.data.clips.scene_draws import SceneDraw, draw_scene
from morphmlp.data.decoding.protocol import Box, DecodedFrames, FrameReader
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.errors import DecodeError

LabelMap = npt.NDArray[np.uint8]
"""`[h w]`: the class of each pixel, or `IGNORED`."""


@dataclass(frozen=True, kw_only=True)
class TrainScenes(ClipExtractor):
    """Augmented training crops of images, with their maps."""

    segmentation: SegmentationConfig
    num_classes: int

    with_maps: ClassVar[bool] = True

    @property
    def video_bytes(self) -> int:
        """A crop and its map."""
        return 4 * self.clip.crop_size**2

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour next to crops that are too small: the mean, in whole levels (published: 0 once normalised)."""
        return tuple(round(255 * mean) for mean in self.clip.pixel_mean)

    def extract(self, reader: FrameReader, key: ClipKey, labels: FrameReader | None = None) -> ExtractedClips:
        """A crop `[1 1 s s 3]` and its map `[1 s s]`.

        Raises:
            DecodeError: Image or map can't be used, or they don't fit.
        """
        image, label_map = _read(reader, labels, self.num_classes)
        draw = self.draw(label_map, key)
        crop, cut = crop_scene(image.frames[0], label_map, draw, size=self.clip.crop_size, fill=self.fill)
        return ExtractedClips(clips=crop[None, None], maps=cut[None], concealed=image.concealed, refused=image.refused)

    def draw(self, label_map: LabelMap, key: ClipKey) -> SceneDraw:
        """What chance decides about the crop of an image with this map."""
        return draw_scene(
            self.segmentation,
            key,
            height=label_map.shape[0],
            width=label_map.shape[1],
            short_edge=self.clip.short_edge,
            crop_size=self.clip.crop_size,
            class_shares=lambda height, width, box: class_shares(cut_map(label_map, height, width, box)),
        )


@dataclass(frozen=True, kw_only=True)
class WholeScenes(ClipExtractor):
    """Images for validation and test as they're stored, with their maps; the scorer scales them."""

    segmentation: SegmentationConfig
    num_classes: int

    draws: ClassVar[bool] = False
    own_sizes: ClassVar[bool] = True
    with_maps: ClassVar[bool] = True

    @property
    def video_bytes(self) -> int:
        """What is assumed of an image that hasn't been decoded."""
        return ASSUMED_WHOLE_BYTES

    def extract(self, reader: FrameReader, key: ClipKey, labels: FrameReader | None = None) -> ExtractedClips:
        """The image `[1 1 h w 3]` and its map `[1 h w]`; nothing about them is drawn.

        Raises:
            DecodeError: Image or map can't be used, or they don't fit.
        """
        del key
        image, label_map = _read(reader, labels, self.num_classes)
        return ExtractedClips(
            clips=image.frames[None], maps=label_map[None], concealed=image.concealed, refused=image.refused
        )


def crop_scene(
    image: npt.NDArray[np.uint8], label_map: LabelMap, draw: SceneDraw, *, size: int, fill: tuple[int, ...]
) -> tuple[npt.NDArray[np.uint8], LabelMap]:
    """Carry out one crop's draws on an image `[h w 3]` and its map `[h w]`, which stay as they are.

    A box smaller than `size` lies at the top left; next to it the image has the colour `fill`, the map `IGNORED`.
    """
    box = draw.box
    scaled = scaled_image(_tensor(image), (draw.height, draw.width))
    cut = scaled[box.top : box.top + box.height, box.left : box.left + box.width]
    labels = torch.from_numpy(cut_map(label_map, draw.height, draw.width, box))
    if draw.flip:  # by torch, which is 20 times as fast at it as numpy
        cut, labels = cut.flip(1), labels.flip(1)
    crop, cut_labels = adjust(cut.numpy(), draw.adjustments), labels.numpy()
    if (box.height, box.width) == (size, size):
        return np.ascontiguousarray(crop), cut_labels
    padded = np.full((size, size, 3), fill, dtype=np.uint8)
    padded[: box.height, : box.width] = crop
    padded_labels = np.full((size, size), IGNORED, dtype=np.uint8)
    padded_labels[: box.height, : box.width] = cut_labels
    return padded, padded_labels


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


def _read(reader: FrameReader, labels: FrameReader | None, num_classes: int) -> tuple[DecodedFrames, LabelMap]:
    """The image, and its map after a look at it.

    Raises:
        DecodeError: One can't be decoded, their sizes differ, or the map has a value that is no class.
    """
    image = reader.read([0])
    if labels is None:
        raise DecodeError("the image has no label map; segmentation needs one for each")
    label_map = np.ascontiguousarray(labels.read([0]).frames[0, :, :, 0])
    (height, width), (map_height, map_width) = image.frames.shape[1:3], label_map.shape
    if (height, width) != (map_height, map_width):
        raise DecodeError(f"the image has {width}x{height} px and its label map {map_width}x{map_height}")
    wrong = (label_map >= num_classes) & (label_map != IGNORED)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise DecodeError(
            f"the label map has class {label_map[row, column]} at row {row}, column {column}; there are {num_classes} "
            f"classes, 0 to {num_classes - 1}, and {IGNORED} for ignored pixels"
        )
    return image, label_map


def _tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image if image.flags.writeable else image.copy())
