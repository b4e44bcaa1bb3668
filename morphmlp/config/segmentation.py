"""The section of an experiment file that says how images are segmented: decoder, loss, training pipeline and test.

Published values are those of mmsegmentation 0.x (Swin's fork of it) and of the recipes built on it: Semantic FPN of
PVT and UniFormer, UPerNet of Swin. The sections `augment` and `mixing` belong to classification and aren't written.
"""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import TYPE_CHECKING, Literal, Self

from pydantic import JsonValue, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.values import STRICT, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Rate, Share

if TYPE_CHECKING:
    from morphmlp.config.schema import ExperimentConfig

MOST_CLASSES = 255
NEUTRAL_SECTIONS: dict[str, dict[str, JsonValue]] = {
    "augment": {
        "repeats": 1,
        "short_edge": None,
        "rand_augment": None,
        "scale": [1.0, 1.0],
        "aspect": [1.0, 1.0],
        "flip": 0.0,
        "erase": 0.0,
    },
    "mixing": {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0},
    "test": {"num_clips": 1, "num_crops": 1},
}
"""What sections of classification hold where the task is segmentation: nothing is augmented or mixed by them."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationTestConfig:
    """How the test segments an image.

    Validation sees whole images at one scale, unmirrored; of what stands here it takes `size_divisor` alone.
    """

    mode: Literal["whole", "slide"] = "whole"
    """`whole`: the scaled image goes through the network at once, as published. Choose `slide` for windows of
    `clip.crop_size`, whose logits are averaged where they overlap: for images too large for memory."""
    stride: PositiveInt | None = None
    """Pixels of the scaled image between two windows; null with `whole`. Set 341 for windows of 512 px, as published
    with `slide`."""
    scales: tuple[PositiveFloat, ...] = (1.0,)
    """Sizes at which each image is seen, as multiples of the test's; the classes' probabilities are averaged. 1 for
    single-scale results, as published. Set `[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]` for multi-scale ones."""
    flip: bool = False
    """See each scale mirrored too. Set it for multi-scale results, which are published with it."""
    size_divisor: PositiveInt | None = 32
    """Both sides of the scaled image are rounded up to multiples of this, which bends its proportions a little: 32, as
    `AlignResize` of PVT and UniFormer, so that the maps of all strides lie exactly over one another. Set null to keep
    proportions, as Swin: classes then move by some pixels at the right and lower edge."""
    panels: NonNegativeInt = 8
    """Images of which a test records panels (image, truth, prediction, errors). Raise it to look at more."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        faults = []
        if (self.stride is None) != (self.mode == "whole"):
            right = "null" if self.mode == "whole" else "a number of pixels"
            faults.append(f"stride is {self.stride}; with mode {self.mode} it must be {right}")
        if not self.scales or len(set(self.scales)) < len(self.scales):
            faults.append(f"scales is {list(self.scales)}; name one or more different ones")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def in_words(self) -> str:
        """How an image was seen, as results print it: `whole image, 6 scales, mirrored too`."""
        seen = "whole image" if self.mode == "whole" else f"windows every {self.stride} px"
        if len(self.scales) > 1:
            seen += f", {len(self.scales)} scales"
        elif self.scales != (1.0,):
            seen += f", scale {self.scales[0]:g}"
        if self.size_divisor is None:
            seen += ", in proportion"
        return seen + (", mirrored too" if self.flip else "")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationConfig:
    """Semantic segmentation: one class for each pixel. Needed with `task: segmentation`, and only then."""

    decoder: Literal["semantic_fpn", "upernet"]
    """What makes logits of the backbone's four maps: Semantic FPN, as published for MorphMLP. Choose UPerNet for the
    recipe published for Swin."""
    decoder_channels: PositiveInt
    """Width of the decoder. Semantic FPN: 128 published, its neck has twice as many. UPerNet: 512 published, its
    auxiliary head has half as many. Lower it to save memory."""
    dropout: Rate
    """Share of the decoder's channels dropped in front of its last layer; 0.1 published. Raise it for few images."""
    auxiliary_weight: NonNegativeFloat
    """Weight of the loss of UPerNet's auxiliary head on stage 3; 0.4 published. Set 0 for no such head, as always with
    Semantic FPN."""
    loss_over: Literal["all_pixels", "valid_pixels"]
    """What a crop's cross-entropy is divided by: `all_pixels`, ignored and padded ones too, as mmsegmentation, or
    `valid_pixels`, those with a class. Choose the latter where much of the images is ignored."""
    long_edge: PositiveInt
    """Most pixels of the long side of an image scaled to `clip.short_edge`; 2048 published, with a short edge of 512.
    Scaled images stay inside both, so that wide ones have a shorter short side. Set four times another short edge."""
    resize_ratio: tuple[PositiveFloat, PositiveFloat]
    """Training images are scaled by a number drawn from this range on top; `[0.5, 2.0]` published. Set a narrower one
    where all images show their objects at one scale."""
    category_limit: Share
    """Crops of which one class covers this share of the valid pixels or more are drawn anew, ten times at most; 0.75
    published. Set 1 to take the first crop, where most images show little besides their background."""
    flip: Share
    """Probability of a horizontal flip in training; 0.5 published. Set 0 where left and right mean something."""
    photometric: bool
    """Change brightness, contrast, saturation and hue of training images, as published. Switch it off where colours are
    what distinguishes the classes."""
    backbone: Literal["morphmlp", "resnet50"] = "morphmlp"
    """`resnet50`: torchvision's, in the place of the network that `model` describes. Choose it to tell what the recipe
    gives from what the backbone gives: Semantic FPN on it has published results on ADE20K."""
    test: SegmentationTestConfig = field(default_factory=SegmentationTestConfig)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        faults = []
        low, high = self.resize_ratio
        if low > high:
            faults.append(f"resize_ratio is [{low}, {high}]; the first number must not exceed the second")
        if not self.category_limit:
            faults.append("category_limit is 0, which no crop stays below; write 1 to take any crop")
        if self.decoder == "semantic_fpn" and self.auxiliary_weight:
            faults.append(
                f"auxiliary_weight is {self.auxiliary_weight:g}; Semantic FPN has no auxiliary head, so it must be 0"
            )
        if self.decoder == "upernet" and self.decoder_channels % 2:
            faults.append(
                f"decoder_channels is {self.decoder_channels}; UPerNet's auxiliary head has half as many, so it must "
                "be even"
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self


def with_neutral_sections(content: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """An experiment's mapping with what a file for segmentation leaves out; others come back as they are."""
    filled = dict(content)
    if content.get("task") == "segmentation":
        for section, neutral in NEUTRAL_SECTIONS.items():
            given = content.get(section, {})
            filled[section] = {**neutral, **given} if isinstance(given, dict) else given
    return filled


def segmentation_faults(config: "ExperimentConfig") -> list[str]:
    """What doesn't agree between the task, its section and the others, each fault led by its dotted field."""
    segmentation, clip, train = config.segmentation, config.clip, config.train
    if config.task != "segmentation":
        if segmentation is None:
            return []
        return [f"segmentation: is given, and task is {config.task}; write task: segmentation, or leave it out"]
    if segmentation is None:
        return ["segmentation: is missing; task: segmentation needs the section"]
    faults = []
    for section, neutral in NEUTRAL_SECTIONS.items():
        found = asdict(getattr(config, section))
        faults += [
            f"{section}.{name}: is {_listed(found[name])}, which belongs to classification; leave it out with task: "
            "segmentation"
            for name, value in neutral.items()
            if _listed(found[name]) != value
        ]
    faults += [
        f"{name}: is {value}; with task: segmentation {right}"
        for name, value, right, wrong in (
            ("model.temporal", config.model.temporal, "it must be none", config.model.temporal != "none"),
            ("clip.channel_order", clip.channel_order, "it must be rgb", clip.channel_order != "rgb"),
            ("clip.interpolation", clip.interpolation, "it must be bilinear", clip.interpolation != "bilinear"),
            ("train.class_weights", "balanced", "give each class a weight", train.class_weights == "balanced"),
            ("test.crop_size", config.test.crop_size, "see segmentation.test", config.test.crop_size is not None),
            ("test.short_edge", config.test.short_edge, "see segmentation.test", config.test.short_edge is not None),
            ("test.single_crop", "left", "see segmentation.test", config.test.single_crop != "centre"),
        )
        if wrong
    ]
    if config.model.num_classes > MOST_CLASSES:
        faults.append(
            f"model.num_classes: is {config.model.num_classes}; label maps hold at most {MOST_CLASSES} classes and 255 "
            "for ignored pixels"
        )
    if segmentation.long_edge < clip.short_edge:
        faults.append(
            f"segmentation.long_edge: is {segmentation.long_edge}, smaller than clip.short_edge {clip.short_edge}; "
            "make it at least as large"
        )
    stride = segmentation.test.stride
    if stride is not None and stride > clip.crop_size:
        faults.append(
            f"segmentation.test.stride: is {stride}, more than the windows' {clip.crop_size} px (clip.crop_size), "
            "which would leave gaps; make it at most as large"
        )
    if segmentation.decoder == "upernet" and train.micro_batch_size == 1:
        faults.append(
            "train.micro_batch_size: is 1; UPerNet normalises maps pooled to 1 x 1 over the images of a micro-batch, "
            "make it 2 or more"
        )
    return faults


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
