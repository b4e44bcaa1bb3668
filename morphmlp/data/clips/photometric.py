"""Photometric distortion of training images: brightness, contrast, saturation and hue, on uint8 as published.

mmsegmentation's arithmetic. Each step ends in whole levels, cut off and held inside 0 to 255. Saturation and hue change
the image in OpenCV's 8-bit HSV, whose hue has 180 steps of 2 degrees. Everything is looked up in tables, so that decode
tasks need no OpenCV. To HSV the tables give OpenCV's values exactly, back from it within one level (where its vector
code cuts off, its code for single pixels rounds, as here).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from morphmlp.data.clips.scene_draws import HUE_STEPS, Adjustment

Image = npt.NDArray[np.uint8]
"""`[h w 3]`, RGB."""

_STRIP = 1 << 16
"""Pixels at a time: what is made of more doesn't stay in the cache, and new memory for it costs more than all else."""
_SHIFT = 12
_HUE_COLUMNS = 6 * 256
"""Of the table of hues: a hue's numerator is between -1 and 5 times the greatest difference of two colours."""


def adjust(image: Image, adjustments: Sequence[Adjustment]) -> Image:
    """Carry out the adjustments in their order; the image that comes in stays as it is."""
    if not adjustments:
        return image
    adjusted = np.empty(image.shape, dtype=np.uint8)
    rows = max(_STRIP // image.shape[1], 1)
    for top in range(0, len(image), rows):
        strip = image[top : top + rows]
        for adjustment in adjustments:
            strip = _STEPS[adjustment.name](strip, adjustment.argument)
        adjusted[top : top + rows] = strip
    return adjusted


def to_hsv(image: Image) -> tuple[Image, Image, Image]:
    """Hue in steps of 2 degrees (0 to 179), saturation and value (0 to 255), each `[h w]`: those of OpenCV."""
    red, green, blue = image.transpose(2, 0, 1).copy()
    value = np.maximum(np.maximum(red, green), blue)
    range_ = value - np.minimum(np.minimum(red, green), blue)
    # Which colour is the greatest, as masks of bits: eight times as fast as choosing element by element.
    is_red = np.negative((value == red).view(np.uint8))
    is_green = np.negative((value == green).view(np.uint8)) & ~is_red
    is_blue = ~(is_red | is_green)
    first = (is_red & green) | (is_green & blue) | (is_blue & red)
    second = (is_red & blue) | (is_green & red) | (is_blue & green)
    numerator = first.astype(np.int16) - second
    wide = range_.astype(np.int16)
    numerator += (is_green.view(np.int8) & (2 * wide)) | (is_blue.view(np.int8) & (4 * wide))
    numerator += wide
    place = range_.astype(np.intp)
    saturation = _saturations().take((value.astype(np.intp) << 8) | place, mode="clip")
    place *= _HUE_COLUMNS
    place += numerator
    return _hues().take(place, mode="clip"), saturation, value


def from_hsv(hue: Image, saturation: Image, value: Image) -> Image:
    """The image with these hues, saturations and values, each `[h w]`; rounded to whole levels."""
    image = np.empty((*value.shape, 3), dtype=np.uint8)
    place = (hue.astype(np.intp) << 8) | saturation
    wide = value.astype(np.uint32)
    for colour, shares in enumerate(_shares()):
        level = shares.take(place, mode="clip")
        level *= wide
        level += 1 << 15
        level >>= 16
        image[..., colour] = level
    return image


def _levels(factor: float = 1.0, offset: float = 0.0) -> npt.NDArray[np.uint8]:
    """What a linear change makes of each level: cut off, not rounded."""
    levels = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return levels.clip(0, 255).astype(np.uint8)


def _translate(image: Image, levels: npt.NDArray[np.uint8]) -> Image:
    """Each level replaced. Bytes know the fastest way."""
    return np.frombuffer(image.tobytes().translate(levels.tobytes()), dtype=np.uint8).reshape(image.shape)


def _brightness(image: Image, offset: float) -> Image:
    return _translate(image, _levels(offset=offset))


def _contrast(image: Image, factor: float) -> Image:
    return _translate(image, _levels(factor))


def _saturation(image: Image, factor: float) -> Image:
    hue, saturation, value = to_hsv(image)
    return from_hsv(hue, _translate(saturation, _levels(factor)), value)


def _hue(image: Image, steps: float) -> Image:
    hue, saturation, value = to_hsv(image)
    return from_hsv(_translate(hue, ((np.arange(256) + int(steps)) % HUE_STEPS).astype(np.uint8)), saturation, value)


_STEPS = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}


def _reciprocals(numerator: int) -> npt.NDArray[np.int64]:
    """Fixed-point `numerator` / n for n from 0 to 255, 0 for n = 0."""
    return np.array([0, *np.rint((numerator << _SHIFT) / np.arange(1, 256))], dtype=np.int64)


@cache
def _saturations() -> npt.NDArray[np.uint8]:
    """By value x 256 + range: 255 x range / value, rounded in fixed point as OpenCV does."""
    ranges = np.arange(256)
    table = (ranges * _reciprocals(255)[:, None] + (1 << (_SHIFT - 1))) >> _SHIFT
    return table.clip(0, 255).astype(np.uint8).reshape(-1)


@cache
def _hues() -> npt.NDArray[np.uint8]:
    """By range x columns + (numerator + range): 30 x numerator / range, in fixed point, negative ones from behind."""
    ranges = np.arange(256)[:, None]
    scaled = (np.arange(_HUE_COLUMNS) - ranges) * _reciprocals(HUE_STEPS // 6)[:, None]
    table = (scaled + (1 << (_SHIFT - 1))) >> _SHIFT
    return np.where(table < 0, table + HUE_STEPS, table).clip(0, 255).astype(np.uint8).reshape(-1)


@cache
def _shares() -> npt.NDArray[np.uint32]:
    """By hue x 256 + saturation, for red, green, blue: what part of the value the colour has, in 2^-16."""
    sixth = np.arange(256) * 6 / HUE_STEPS
    missing = np.stack([2 - abs(sixth - 3), abs(sixth - 2) - 1, abs(sixth - 4) - 1]).clip(0, 1)
    shares = 1 - missing[:, :, None] * (np.arange(256) / 255)
    return np.rint(shares * (1 << 16)).astype(np.uint32).reshape(3, -1)
