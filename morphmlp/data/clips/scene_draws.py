"""Everything that chance decides about one training crop of a segmented image, as a value.

mmsegmentation's training pipeline for ADE20K, with its ranges and odds, drawn from keyed streams as in `draws`: an
image and its map are carried through the same draws, and equal keys draw alike on any machine. Sizes follow mmcv's
`rescale_size`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.decoding.protocol import Box
from morphmlp.data.stream.plan import random_generator

CROP_REDRAWS = 10
"""Crops that are looked at and drawn anew; the last one drawn is taken unseen."""
BRIGHTNESS = 32.0
"""Greatest change of brightness, grey levels."""
FACTORS = (0.5, 1.5)
"""Least and greatest factor of contrast and of saturation."""
HUE_STEPS = 180
"""Steps of OpenCV's hue, 2 degrees each."""
HUE_RANGE = (-18, 17)
"""Least and greatest change of hue, steps; the published code leaves 18 out."""
ODDS = 0.5
"""Chance of each adjustment of colours."""

AdjustmentName = Literal["brightness", "contrast", "saturation", "hue"]


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """One step of photometric distortion."""

    name: AdjustmentName
    argument: float
    """Grey levels that are added (brightness), factor (contrast, saturation), steps of 2 degrees (hue)."""

    def describe(self) -> str:
        """The step in words, as in `brightness -12.5`."""
        return f"{self.name} {_WORDS[self.name].format(self.argument)}"


@dataclass(frozen=True, kw_only=True)
class SceneDraw:
    """One training crop's draws, in the order in which they are carried out."""

    height: int
    """Rows of the scaled image, from which the box is cut."""
    width: int
    """Columns of the scaled image."""
    box: Box
    """At most `clip.crop_size` on either side; a smaller one is padded to it."""
    flip: bool
    adjustments: tuple[Adjustment, ...]
    """Of the colours."""

    def describe(self) -> str:
        """All draws in one line, for contact sheets and logs."""
        parts = [f"scale to {self.height}x{self.width}", f"crop {self.box.describe()}"]
        if self.flip:
            parts.append("flip")
        return ", ".join([*parts, *(adjustment.describe() for adjustment in self.adjustments)])


def draw_scene(
    segmentation: SegmentationConfig,
    key: ClipKey,
    *,
    height: int,
    width: int,
    short_edge: int,
    crop_size: int,
    class_shares: Callable[[int, int, Box], tuple[float, ...]],
) -> SceneDraw:
    """Draw one crop of an image.

    Height and width are those of the image as it's stored, pixels. `class_shares` says for the height and width of the
    scaled map and a box in it which share of the box's valid pixels each class has that is there.
    """

    def rng(purpose: str) -> np.random.Generator:
        return random_generator(*key.of(0, purpose))

    low, high = segmentation.resize_ratio
    ratio = rng("scaling").random() * (high - low) + low
    scaled = scaled_size(
        height, width, long_edge=int(segmentation.long_edge * ratio), short_edge=int(short_edge * ratio)
    )
    crop_rng = rng("crop")
    box = _draw_box(crop_rng, *scaled, crop_size)
    if segmentation.category_limit < 1:
        for _ in range(CROP_REDRAWS):
            shares = class_shares(*scaled, box)
            if len(shares) > 1 and max(shares) < segmentation.category_limit:
                break
            box = _draw_box(crop_rng, *scaled, crop_size)
    return SceneDraw(
        height=scaled[0],
        width=scaled[1],
        box=box,
        flip=bool(rng("flip").random() < segmentation.flip),
        adjustments=draw_adjustments(rng("photometric")) if segmentation.photometric else (),
    )


def draw_adjustments(rng: np.random.Generator) -> tuple[Adjustment, ...]:
    """Brightness, saturation, hue, each with `ODDS`; contrast by a coin in front of the last two or behind them."""
    brightness = Adjustment(name="brightness", argument=rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast = Adjustment(name="contrast", argument=rng.uniform(*FACTORS))
    saturation = Adjustment(name="saturation", argument=rng.uniform(*FACTORS))
    hue = Adjustment(name="hue", argument=float(rng.integers(*HUE_RANGE, endpoint=True)))
    kept = dict(zip(("brightness", "contrast", "saturation", "hue"), rng.random(4) < ODDS, strict=True))
    contrast_first = rng.random() < ODDS
    order = (brightness, contrast, saturation, hue) if contrast_first else (brightness, saturation, hue, contrast)
    return tuple(adjustment for adjustment in order if kept[adjustment.name])


def scaled_size(height: int, width: int, *, long_edge: int, short_edge: int) -> tuple[int, int]:
    """Rows and columns of an image scaled, with its proportions, until one of its sides meets the edge given for it.

    Fractions of a pixel are rounded, halves up; a side has at least one pixel.
    """
    factor = min(long_edge / max(height, width), short_edge / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def _draw_box(rng: np.random.Generator, height: int, width: int, crop_size: int) -> Box:
    return Box(
        top=int(rng.integers(0, max(height - crop_size, 0) + 1)),
        left=int(rng.integers(0, max(width - crop_size, 0) + 1)),
        height=min(height, crop_size),
        width=min(width, crop_size),
    )


_WORDS = {"brightness": "{:+.1f}", "contrast": "x{:.2f}", "saturation": "x{:.2f}", "hue": "{:+.0f} steps"}
