"""Everything that chance decides about one augmented clip, as a value.

Each choice comes from a counter-based key (`ClipKey`, repeat, purpose) and the size of the frames, never from shared
state, so that decode tasks and training workers draw alike, and switching one augmentation off leaves the draws of the
others as they are. Ranges and odds are those of the published recipes: for video MTLab/MorphMLP, which takes
RandAugment and random erasing from timm by way of PySlowFast, for images DeiT, which takes them from timm. No pixels
and no torch here: a table of draws is read in milliseconds.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from morphmlp.config.clip import MAX_MAGNITUDE, AugmentConfig, RandAugmentPolicy, parse_rand_augment
from morphmlp.config.values import Colour
from morphmlp.data.decoding.protocol import Box
from morphmlp.data.stream.plan import random_generator

OPERATIONS = (
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""RandAugment's operations whose severity rises with the magnitude (`inc1`), in the published order."""

OPERATION_ODDS = 0.5
"""Chance that a drawn operation is carried out."""

ERASE_AREA = (0.02, 1 / 3)
"""Random erasing: least and greatest share of the crop."""
ERASE_ASPECT = (0.3, 1 / 0.3)
"""Random erasing: least and greatest height / width."""
CROP_TRIES = 10
ERASE_TRIES = 100
"""Boxes that are drawn before a clip stays whole; the published number for boxes that hold through time. (timm draws
10 for images: docs/decisions/0018.)"""

Key = tuple[int | str, ...]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class ClipKey:
    """All that the random draws of a video's clips follow from: equal keys draw alike, on any machine, in any order."""

    seed: int
    """Root of the run's draws."""
    epoch: int
    """Pass over the manifest."""
    video_id: str
    copy: int = 0
    """Which of the places that the video has in the epoch (`train.copies`)."""

    def of(self, *purpose: int | str) -> Key:
        """The key of one choice, such as that of a repeat's crop."""
        copy = ("copy", self.copy) if self.copy else ()
        return (self.seed, self.epoch, self.video_id, *copy, *purpose)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of RandAugment, the same for all frames of a clip."""

    name: str
    """Name of the operation, one of `OPERATIONS`."""
    argument: float
    """Degrees (rotate), bits that stay (posterize), threshold (solarize), grey levels (solarize_add), factor (color,
    contrast, brightness, sharpness), columns per row or rows per column (shear), share of the side (translate); 0 for
    those that take none."""
    interpolation: Interpolation = "bicubic"
    """How a warp reads between pixels."""

    def describe(self) -> str:
        """The operation in words, as in `rotate -21.3 deg`."""
        way = " (bilinear)" if self.interpolation == "bilinear" and self.name in _GREATEST else ""
        return _WORDS.get(self.name, self.name).format(self.argument) + way


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """A box of the finished crop that noise fills."""

    box: Box
    key: Key
    """Key of the noise of pixels, which is fresh in each frame."""
    on: Literal["pixels", "normalised"] = "pixels"
    """`normalised`: it is left to the training loop, where the micro-batch is normalised."""


@dataclass(frozen=True, kw_only=True)
class ClipDraw:
    """One augmented clip's draws, in the order in which they are carried out."""

    operations: tuple[Operation, ...]
    """Of RandAugment, on whole frames or, with `operations_on: crop`, after the flip."""
    box: Box
    """What RandomResizedCrop cuts from the frames."""
    flip: bool
    erase: Erasing | None
    operations_on: Literal["frames", "crop"] = "frames"
    fill: Colour = (128, 128, 128)
    """Colour that warps bring in."""
    interpolation: Interpolation = "bilinear"
    """How the box is scaled."""

    def describe(self) -> str:
        """All draws in one line, for contact sheets and logs."""
        operations = [operation.describe() for operation in self.operations]
        parts = [f"crop {self.box.describe()}" + (" (bicubic)" if self.interpolation == "bicubic" else "")]
        if self.flip:
            parts.append("flip")
        parts = [*operations, *parts] if self.operations_on == "frames" else [*parts, *operations]
        if self.erase is not None:
            after = " after normalisation" if self.erase.on == "normalised" else ""
            parts.append(f"erase {self.erase.box.describe()}{after}")
        return ", ".join(parts)


def draw_clip(
    augment: AugmentConfig, key: ClipKey, *, repeat: int, height: int, width: int, crop_size: int
) -> ClipDraw:
    """Draw one clip.

    Height and width are those of the frames that RandomResizedCrop cuts, `crop_size` the side of the finished crop,
    pixels.
    """

    def rng(purpose: str) -> np.random.Generator:
        return random_generator(*key.of(repeat, purpose))

    def interpolation(purpose: str) -> Interpolation:
        return "bilinear" if rng(purpose).random() < 0.5 else "bicubic"

    operations: tuple[Operation, ...] = ()
    if augment.rand_augment is not None:
        operations = draw_operations(rng("rand_augment"), policy=parse_rand_augment(augment.rand_augment))
    if augment.interpolation == "random":
        operations = tuple(
            replace(operation, interpolation=interpolation(f"warp {number}"))
            for number, operation in enumerate(operations)
        )
    box = random_resized_box(rng("crop"), height=height, width=width, scale=augment.scale, aspect=augment.aspect)
    flip = bool(rng("flip").random() < augment.flip)
    return ClipDraw(
        operations=operations,
        box=box,
        flip=flip,
        erase=draw_erasing(augment, key, repeat=repeat, crop_size=crop_size),
        operations_on=augment.rand_augment_on,
        fill=augment.fill,
        interpolation=interpolation("scaling") if augment.interpolation == "random" else augment.interpolation,
    )


def draw_erasing(augment: AugmentConfig, key: ClipKey, *, repeat: int, crop_size: int) -> Erasing | None:
    """What random erasing does to one clip; it follows from the key alone, without the video."""
    if augment.erase == 0:
        return None
    own = key.of(repeat)
    rng = random_generator(*own, "erase")
    if not rng.random() < augment.erase:
        return None
    box = erase_box(rng, size=crop_size)
    return None if box is None else Erasing(box=box, key=(*own, "noise"), on=augment.erase_on)


def draw_fractions(count: int, key: ClipKey) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The numbers in [0, 1) that place a video's frames; all repeats share them."""
    return random_generator(*key.of("start")).random(count)


def draw_operations(rng: np.random.Generator, *, policy: RandAugmentPolicy) -> tuple[Operation, ...]:
    """The operations that are carried out: `num_ops` drawn with replacement, each kept with `OPERATION_ODDS`.

    The magnitude is normal around the policy's, held inside 0 to `MAX_MAGNITUDE`, drawn anew for each operation.
    """
    drawn = []
    for _ in range(policy.num_ops):
        name = OPERATIONS[rng.integers(len(OPERATIONS))]
        kept = rng.random() < OPERATION_ODDS
        magnitude = min(max(rng.normal(policy.magnitude, policy.magnitude_std), 0.0), MAX_MAGNITUDE)
        sign = 1 if rng.random() < 0.5 else -1
        if kept:
            drawn.append(Operation(name=name, argument=severity(name, magnitude, sign=sign)))
    return tuple(drawn)


def severity(name: str, magnitude: float, *, sign: int) -> float:
    """The argument of an operation at a magnitude of 0 to `MAX_MAGNITUDE`.

    timm's increasing set: at 7 a rotation by 21 degrees, 2 bits, a threshold of 77, 77 grey levels, factors of 0.37 or
    1.63, a shear of 0.21, a translation by 31.5 % of the side. `sign`, 1 or -1, goes with those that have two
    directions.
    """
    share = magnitude / MAX_MAGNITUDE
    if name in _GREATEST:
        return sign * share * _GREATEST[name]
    if name in _FACTORS:
        return 1.0 + sign * share * 0.9
    levels = {"posterize": 4 - int(share * 4), "solarize": 256 - int(share * 256), "solarize_add": int(share * 110)}
    return levels.get(name, 0)


def random_resized_box(
    rng: np.random.Generator, *, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """RandomResizedCrop's box: area uniform, aspect log-uniform, ten tries, then the greatest centre box in range."""
    for _ in range(CROP_TRIES):
        area = height * width * _uniform(rng, *scale)
        ratio = math.exp(_uniform(rng, math.log(aspect[0]), math.log(aspect[1])))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return _place(rng, box_height, box_width, height=height, width=width)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    box_height = min(height, round(width / ratio))
    box_width = min(width, round(height * ratio))
    return Box(top=(height - box_height) // 2, left=(width - box_width) // 2, height=box_height, width=box_width)


def erase_box(rng: np.random.Generator, *, size: int) -> Box | None:
    """Random erasing's box in a square crop, smaller than it on both sides; None where none is found."""
    for _ in range(ERASE_TRIES):
        area = size * size * _uniform(rng, *ERASE_AREA)
        ratio = math.exp(_uniform(rng, math.log(ERASE_ASPECT[0]), math.log(ERASE_ASPECT[1])))
        box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_height < size and 0 < box_width < size:
            return _place(rng, box_height, box_width, height=size, width=size)
    return None


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """As numpy's `uniform`, number for number, without its checks, which take longer than the draw."""
    return low + (high - low) * rng.random()


def _place(rng: np.random.Generator, box_height: int, box_width: int, *, height: int, width: int) -> Box:
    return Box(
        top=int(rng.integers(0, height - box_height + 1)),
        left=int(rng.integers(0, width - box_width + 1)),
        height=box_height,
        width=box_width,
    )


_GREATEST = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.45, "translate_y": 0.45}
_FACTORS = ("color", "contrast", "brightness", "sharpness")
_WORDS = {
    "rotate": "rotate {:+.1f} deg",
    "posterize": "posterize to {:.0f} bits",
    "solarize": "solarize from {:.0f}",
    "solarize_add": "solarize_add {:.0f}",
    "color": "color x{:.2f}",
    "contrast": "contrast x{:.2f}",
    "brightness": "brightness x{:.2f}",
    "sharpness": "sharpness x{:.2f}",
    "shear_x": "shear_x {:+.2f}",
    "shear_y": "shear_y {:+.2f}",
    "translate_x": "translate_x {:+.0%}",
    "translate_y": "translate_y {:+.0%}",
}
