"""The sections of an experiment file that say how clips are taken from videos and augmented."""

import re
from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.values import STRICT, Colour, PositiveFloat, PositiveInt, Share, ThreePositive, ThreeShares

MAX_MAGNITUDE = 10.0
DEFAULT_OPERATIONS = "2"
"""Operations that timm draws where its notation has no `n`."""
PIXEL_MEAN: ThreeShares = (0.45, 0.45, 0.45)
PIXEL_STD: ThreePositive = (0.225, 0.225, 0.225)
"""Published normalisation of pixels in [0, 1] for video."""
_FIELD = re.compile(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClipConfig:
    """How a clip is cut from a video; written `num_frames`x`frame_stride`, as in 16x4."""

    sampling: Literal["dense", "dense_decord", "segments"]
    """`dense`: one window of `num_frames` x `frame_stride` frames at 30 frames per second, whatever the video's own
    rate, as published for Kinetics. `dense_decord`: the same in the video's own frames, as with the published decord
    backend. `segments`: one frame from each of `num_frames` equal parts, as published for Something-Something."""
    num_frames: PositiveInt
    """Frames per clip."""
    frame_stride: PositiveInt | None
    """Source frames between two clip frames; null with `segments`."""
    crop_size: PositiveInt
    """Side of the square crop, pixels."""
    short_edge: PositiveInt
    """Short side to which validation and test frames are scaled before they are cropped, pixels."""
    channel_order: Literal["rgb", "bgr"]
    """Order of the colours that augmentation and network see. `bgr` is that of the released Something-Something
    weights, whose frames came from OpenCV."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How frames are scaled to a short side: `bilinear`, as published for video. Set `bicubic` for images, as DeiT."""
    centre_rounding: Literal["up", "even"] = "up"
    """Where a centre crop lies whose margin is odd: half of it rounded `up`, as published for video, or to the `even`
    number, as in torchvision. Set `even` for images, as DeiT."""
    pixel_mean: ThreeShares = PIXEL_MEAN
    """What normalisation subtracts from pixels in [0, 1], for each colour in `channel_order`: 0.45, as published for
    video. Set `[0.485, 0.456, 0.406]` for ImageNet."""
    pixel_std: ThreePositive = PIXEL_STD
    """What normalisation divides by, for each colour: 0.225, as published for video. Set `[0.229, 0.224, 0.225]` for
    ImageNet."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        faults = []
        if self.short_edge < self.crop_size:
            faults.append(
                f"short_edge is {self.short_edge}, smaller than crop_size {self.crop_size}; make it at least as large"
            )
        if (self.frame_stride is None) != (self.sampling == "segments"):
            right = "null" if self.sampling == "segments" else "a number"
            faults.append(f"frame_stride is {self.frame_stride}; with sampling {self.sampling} it must be {right}")
        if faults:
            raise ValueError("\n".join(faults))
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """Training augmentation of a clip, in this order; one draw holds for all its frames.

    The defaults are the video recipe's. DeiT's image recipe crops first and erases last, after normalisation.
    """

    repeats: PositiveInt
    """Augmented clips cut from each decoded video per epoch (repeated augmentation)."""
    short_edge: PositiveInt | None
    """Frames with a longer short side are scaled down to it first, pixels; null: they stay as decoded."""
    rand_augment: str | None
    """RandAugment in timm's notation, as in `rand-m7-n4-mstd0.5-inc1`; `n` is 2 where it's left out. Null switches it
    off."""
    rand_augment_on: Literal["frames", "crop"] = "frames"
    """What RandAugment works on: the whole `frames` before they are cropped, as published for video, or the flipped
    `crop`. Set `crop` for images, as DeiT."""
    fill: Colour = (128, 128, 128)
    """Colour that RandAugment's warps bring in from outside, in `channel_order`: grey, as published for video. Set
    `[124, 116, 104]`, ImageNet's mean, for images, as DeiT."""
    scale: tuple[PositiveFloat, PositiveFloat]
    """RandomResizedCrop: least and greatest share of the frame's area."""
    aspect: tuple[PositiveFloat, PositiveFloat]
    """RandomResizedCrop: least and greatest width / height."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    """How RandomResizedCrop scales its box: `bilinear`, as published for video. `random`: a fair coin, for each of
    RandAugment's warps too, which are bicubic otherwise (timm's `random`). Set `bicubic` for images, as DeiT."""
    flip: Share
    """Probability of a horizontal flip."""
    erase: Share
    """Probability of random erasing: one box for all frames, filled with fresh noise in each."""
    erase_on: Literal["pixels", "normalised"] = "pixels"
    """What random erasing works on. `pixels`: the noise is rounded and held inside 0 to 255. `normalised`: it stays
    standard normal, drawn on the training device for each micro-batch. Set `normalised` for images, as DeiT."""
    on: Literal["ingest", "worker"] = "ingest"
    """Where it is carried out: in the decode tasks (`ingest`), or in batches on the training device (`worker`). Set
    `worker` where a GPU waits for decode CPUs: RandAugment costs them as much as decoding. The draws are the same."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        faults = [
            f"{name} is [{low}, {high}]; the first number must not exceed the second"
            for name, (low, high) in (("scale", self.scale), ("aspect", self.aspect))
            if low > high
        ]
        if self.scale[1] > 1:
            faults.append(f"scale ends at {self.scale[1]}; a crop can't cover more than 1.0 of the frame")
        if self.on == "worker" and self.short_edge is None:
            faults.append("short_edge is null; with on: worker whole frames travel, so it must bound their size")
        if self.rand_augment is not None:
            faults.extend(
                f"rand_augment is {self.rand_augment!r}: {fault}" for fault in rand_augment_faults(self.rand_augment)
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self


@dataclass(frozen=True, kw_only=True)
class RandAugmentPolicy:
    """How RandAugment draws operations, as timm and the published recipe write it: `rand-m7-n4-mstd0.5-inc1`."""

    magnitude: float
    """Mean strength, 0 to `MAX_MAGNITUDE`."""
    num_ops: int
    """Operations drawn for a clip, with replacement."""
    magnitude_std: float
    """Standard deviation of the strength, drawn anew for each operation and held inside 0 to `MAX_MAGNITUDE`."""


def parse_rand_augment(text: str) -> RandAugmentPolicy:
    """The policy that a text names.

    Raises:
        ValueError: The text names none; see `rand_augment_faults`.
    """
    if faults := rand_augment_faults(text):
        raise ValueError("; ".join(faults))
    values = _values(text)
    return RandAugmentPolicy(
        magnitude=float(values["m"]),
        num_ops=int(values.get("n", DEFAULT_OPERATIONS)),
        magnitude_std=float(values.get("mstd", "0")),
    )


def rand_augment_faults(text: str) -> list[str]:
    """What is wrong with a policy's text; empty where it can be used."""
    head, *parts = text.split("-")
    if head != "rand":
        return ["it must begin with `rand-`, as in rand-m7-n4-mstd0.5-inc1"]
    faults = [f"{part!r} is none of m, n, mstd, inc with a number" for part in parts if not _FIELD.fullmatch(part)]
    if faults:
        return faults
    values = _values(text)
    if len(values) < len(parts):
        faults.append("a field is given twice")
    if "m" not in values or not 0 <= float(values["m"]) <= MAX_MAGNITUDE:
        faults.append(f"m (the magnitude) must be there, 0 to {MAX_MAGNITUDE:g}")
    operations = values.get("n", DEFAULT_OPERATIONS)
    if not operations.isdecimal() or int(operations) < 1:
        faults.append("n (the number of operations) must be a whole number from 1")
    if values.get("inc") != "1":
        faults.append("only policies whose severity rises with the magnitude are known: end it with inc1")
    return faults


def _values(text: str) -> dict[str, str]:
    return {match[1]: match[2] for part in text.split("-")[1:] if (match := _FIELD.fullmatch(part))}
