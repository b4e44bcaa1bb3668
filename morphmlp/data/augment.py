"""Spatial cuts of a clip and the network's input scale.

Frames stay uint8 until they are on the training device. One draw holds for all frames of a clip.
Resizing is bilinear with antialiasing on uint8 (docs/decisions/0007).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional

from morphmlp.data.decoding import Frames

PIXEL_MEAN = 0.45
PIXEL_STD = 0.225
"""Published normalisation of pixels in [0, 1], the same for all channels."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle of a frame, pixels."""

    top: int
    left: int
    height: int
    width: int


def random_resized_box(
    rng: np.random.Generator, *, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """RandomResizedCrop's box: area uniform, aspect log-uniform, ten tries, then the greatest centre box in range."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return Box(
                top=int(rng.integers(0, height - box_height + 1)),
                left=int(rng.integers(0, width - box_width + 1)),
                height=box_height,
                width=box_width,
            )
    ratio = min(max(width / height, aspect[0]), aspect[1])
    box_height = min(height, round(width / ratio))
    box_width = min(width, round(height * ratio))
    return Box(top=(height - box_height) // 2, left=(width - box_width) // 2, height=box_height, width=box_width)


def crop_and_resize(frames: Frames, box: Box, *, size: int, flip: bool = False) -> Frames:
    """Cut a box from every frame and scale it to a square, `[t h w c] -> [t size size c]`."""
    clip = functional.resized_crop(
        _channels_first(frames), box.top, box.left, box.height, box.width, [size, size], antialias=True
    )
    return _channels_last(functional.horizontal_flip(clip) if flip else clip)


def evaluation_crops(frames: Frames, *, short_edge: int, crop_size: int, num_crops: int) -> list[Frames]:
    """Scale the short side and cut squares: the centre one, or left, centre and right along the long side.

    Published: one crop comes from a short side of 256, three come from one of the crop's own size. The
    centre offset is `ceil((side - crop) / 2)`; the long side is scaled with rounding down.
    """
    height, width = frames.shape[1:3]
    edge = short_edge if num_crops == 1 else crop_size
    scaled = (edge, width * edge // height) if height <= width else (height * edge // width, edge)
    clip = _channels_last(functional.resize(_channels_first(frames), list(scaled), antialias=True))
    room = scaled[0] - crop_size, scaled[1] - crop_size
    centre = tuple(math.ceil(side / 2) for side in room)
    if num_crops == 1:
        corners = [centre]
    elif height <= width:
        corners = [(centre[0], left) for left in (0, centre[1], room[1])]
    else:
        corners = [(top, centre[1]) for top in (0, centre[0], room[0])]
    return [clip[:, top : top + crop_size, left : left + crop_size] for top, left in corners]


def normalise(clips: UInt8[Tensor, "b t h w c"]) -> Float[Tensor, "b c t h w"]:
    """Pixels to the network's scale, on whatever device they are."""
    scaled = clips.permute(0, 4, 1, 2, 3).contiguous().float()
    return scaled.div_(255 * PIXEL_STD).sub_(PIXEL_MEAN / PIXEL_STD)


def _channels_first(frames: Frames) -> Tensor:
    # A view: torchvision's uint8 kernels are fastest on channels-last memory.
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _channels_last(clip: Tensor) -> Frames:
    frames: Frames = clip.permute(0, 2, 3, 1).contiguous().numpy()
    return frames
