"""Resizing, cropping and augmenting a clip, and the network's input scale.

Frames stay uint8 until they are on the training device. One draw holds for all frames of a clip. The same code runs in
decode tasks and on the training device. Resizing is bilinear or bicubic with antialiasing on uint8
(docs/decisions/0007): torch's own kernel, which is the one that torchvision calls, without torchvision's seconds of
start-up in each decode process.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from morphmlp.config.clip import PIXEL_MEAN, PIXEL_STD
from morphmlp.data.clips.draws import ClipDraw, Interpolation, Key
from morphmlp.data.clips.rand_augment import rand_augment
from morphmlp.data.decoding.protocol import Box, Frames
from morphmlp.data.stream.plan import random_generator


def augment_clip(frames: UInt8[Tensor, "t h w c"], draw: ClipDraw, *, size: int) -> UInt8[Tensor, "t s s c"]:
    """Carry out one clip's draws in the published order; the frames that come in stay as they are.

    RandAugment on whole frames, RandomResizedCrop, flip, random erasing of pixels; for images RandAugment follows the
    flip.
    """
    first, last = (draw.operations, ()) if draw.operations_on == "frames" else ((), draw.operations)
    whole = rand_augment(frames, first, fill=draw.fill)
    clip = crop_and_resize(whole, draw.box, size=size, interpolation=draw.interpolation)
    if draw.flip:
        clip = clip.flip(2)
    clip = rand_augment(clip, last, fill=draw.fill)
    if draw.erase is not None and draw.erase.on == "pixels":
        box = draw.erase.box
        noise = erase_noise(draw.erase.key, (len(clip), box.height, box.width, clip.shape[3]))
        clip = clip.clone()
        clip[:, box.top : box.top + box.height, box.left : box.left + box.width] = torch.from_numpy(noise).to(
            clip.device
        )
    return clip.contiguous()


def erase_noise(key: Key, shape: tuple[int, ...]) -> Frames:
    """Pixels that random erasing fills a box with: standard normal on the network's scale, the same on every device.

    The published code fills in floats after normalisation. Here the noise becomes pixels, rounded and held inside 0 to
    255, which about 3 % of it would leave (below -2 and above 2.44 on the network's scale).
    """
    noise = random_generator(*key).standard_normal(shape, dtype=np.float32)
    pixels: Frames = np.rint(255 * (PIXEL_MEAN[0] + PIXEL_STD[0] * noise)).clip(0, 255).astype(np.uint8)
    return pixels


def erase_normalised(clips: Float[Tensor, "b c *t h w"], boxes: Sequence[Box | None]) -> None:
    """Fill a box of each clip that has one with standard normal noise, in place; it comes from the device's generator.

    timm's `pixel` mode: fresh noise for each pixel, colour and frame.
    """
    for clip, box in zip(clips, boxes, strict=True):
        if box is not None:
            clip[..., box.top : box.top + box.height, box.left : box.left + box.width].normal_()


def crop_and_resize(
    frames: UInt8[Tensor, "t h w c"], box: Box, *, size: int, interpolation: Interpolation = "bilinear"
) -> UInt8[Tensor, "t s s c"]:
    """Cut a box from every frame and scale it to a square."""
    cut = frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
    return resize(cut, height=size, width=size, interpolation=interpolation)


def scale_down(
    frames: UInt8[Tensor, "t h w c"], short_edge: int | None, interpolation: Interpolation = "bilinear"
) -> UInt8[Tensor, "t h2 w2 c"]:
    """Scale frames whose short side is longer than `short_edge` down to it; others stay, as all do without a number."""
    height, width = frames.shape[1:3]
    if short_edge is None or min(height, width) <= short_edge:
        return frames
    rows, columns = _short_edge_size(height, width, short_edge)
    return resize(frames, height=rows, width=columns, interpolation=interpolation)


def evaluation_crops(
    frames: UInt8[Tensor, "t h w c"],
    *,
    short_edge: int,
    crop_size: int,
    num_crops: int,
    single_crop: Literal["centre", "left"] = "centre",
    interpolation: Interpolation = "bilinear",
    centre_rounding: Literal["up", "even"] = "up",
) -> list[UInt8[Tensor, "t s s c"]]:
    """Scale the short side and cut squares: one, or left, centre and right along the long side.

    Published: one crop comes from a short side of 256 (Kinetics), three come from one of the crop's own size. The
    centre offset is `ceil((side - crop) / 2)` (in torchvision rounded to the even number); the long side is scaled with
    rounding down. The published one-crop test of Something-Something takes the `left` crop (in upright videos the top
    one), centred across the short side.

    Crops are views of the scaled frames.
    """
    size, corners = evaluation_places(
        *frames.shape[1:3],
        short_edge=short_edge,
        crop_size=crop_size,
        num_crops=num_crops,
        single_crop=single_crop,
        centre_rounding=centre_rounding,
    )
    scaled = resize(frames, height=size[0], width=size[1], interpolation=interpolation)
    return [scaled[:, top : top + crop_size, left : left + crop_size] for top, left in corners]


def evaluation_places(
    height: int,
    width: int,
    *,
    short_edge: int,
    crop_size: int,
    num_crops: int,
    single_crop: Literal["centre", "left"] = "centre",
    centre_rounding: Literal["up", "even"] = "up",
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """To how many rows and columns `evaluation_crops` scales frames of a size, and where its crops begin there."""
    height, width = _short_edge_size(height, width, short_edge if num_crops == 1 else crop_size)
    rows, columns = height - crop_size, width - crop_size
    whole = math.ceil if centre_rounding == "up" else round
    centre = whole(rows / 2), whole(columns / 2)
    if height <= width:
        corners = [(centre[0], left) for left in (0, centre[1], columns)]
    else:
        corners = [(top, centre[1]) for top in (0, centre[0], rows)]
    if num_crops == 1:
        corners = [corners[0 if single_crop == "left" else 1]]
    return (height, width), corners


def resize(
    frames: UInt8[Tensor, "t h w c"], *, height: int, width: int, interpolation: Interpolation = "bilinear"
) -> UInt8[Tensor, "t h2 w2 c"]:
    """Scale with antialiasing; frames that have the size already are given back."""
    if frames.shape[1:3] == (height, width):
        return frames
    # A view: the kernel for three colours next to each other is the fastest one.
    first = frames.permute(0, 3, 1, 2)
    if frames.is_cuda:  # has the antialiasing kernel for floats only
        scaled = _interpolate(first.float(), height, width, interpolation).round_().clamp_(0, 255).to(torch.uint8)
    else:
        scaled = _interpolate(first, height, width, interpolation)
    return scaled.permute(0, 2, 3, 1)


def normalise(
    clips: UInt8[Tensor, "b t h w c"], *, mean: Sequence[float] = PIXEL_MEAN, std: Sequence[float] = PIXEL_STD
) -> Float[Tensor, "b c t h w"]:
    """Pixels to the network's scale, on whatever device they are."""
    scaled = clips.permute(0, 4, 1, 2, 3).contiguous().float()
    for colour, centre, unit in zip(scaled.unbind(1), mean, std, strict=True):
        colour.div_(255 * unit).sub_(centre / unit)
    return scaled


def _short_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """Rows and columns of frames whose short side is scaled to `edge`; the long side is rounded down."""
    return (edge, width * edge // height) if height <= width else (height * edge // width, edge)


def _interpolate(frames: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    return functional.interpolate(frames, size=(height, width), mode=interpolation, antialias=True)
