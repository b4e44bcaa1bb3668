"""Published numbers as `experiments/published.yaml` holds them, and which runs and points they stand next to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import flat_fields, read_yaml
from morphmlp.config.model import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.values import STRICT, PositiveFloat, PositiveInt
from morphmlp.errors import ConfigError
from morphmlp.models.presets import preset

TITLES = {
    "k400": "Kinetics-400",
    "ssv1": "Something-Something V1",
    "ssv2": "Something-Something V2",
    "imagenet": "ImageNet-1K",
    "ade20k": "ADE20K",
}
"""Data sets with published numbers that runs are held against, and their names in print."""
ADE20K_CLASSES = 150

Percent = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedRow:
    """One published number of a network that can be trained here."""

    dataset: str
    """Data set whose validation split was scored."""
    model: str
    """Name in print."""
    source: str
    """Where the row can be read."""
    note: str | None
    """What to know before relying on it."""

    def expected_params(self) -> dict[str, JsonValue]:
        """The parameters that a run must have to stand next to the number; None: it must have none.

        A checkpoint that was chosen by validation, whose items these data sets test on, reads higher and doesn't, and
        neither does a test on larger crops than the published one.
        """
        return {
            "test.checkpoint": "last",
            "test.crop_size": None,
            "test.short_edge": None,
            "train.max_steps": None,
            "train.early_stopping": None,
        }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedModel(PublishedRow):
    """One published number of a MorphMLP that classifies."""

    preset: str
    """The same network in `models.presets`."""
    epochs: PositiveInt
    """Length of the published training; a run of another length isn't compared with the number."""
    top1: Percent
    """Top-1, percent."""
    top5: Percent | None
    """Top-5, percent; null where the source has none."""

    def expected_params(self) -> dict[str, JsonValue]:
        """See `PublishedRow`; the network, its input and the length of its training are the published ones."""
        chosen = preset(self.preset)
        return {
            **super().expected_params(),
            **_model_params(chosen.model),
            "clip.num_frames": chosen.num_frames,
            "clip.crop_size": chosen.crop_size,
            "train.epochs": self.epochs,
        }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedVideo(PublishedModel):
    """One published number of a video model."""

    dataset: Literal["k400", "ssv1", "ssv2"]
    frames: PositiveInt
    """Frames per clip."""
    frame_stride: PositiveInt | None
    """Source frames between two clip frames; null where frames come from equal segments."""
    views: Annotated[str, Field(pattern=r"^\d+ clips? x \d+ crops?$")]
    """Views of a video, in words."""
    gflops_total: PositiveFloat
    """Multiply-accumulates over all views as printed, billions."""

    @property
    def num_views(self) -> tuple[int, int]:
        """Clips and crops per video."""
        clips, _, _, crops, _ = self.views.split()
        return int(clips), int(crops)

    def expected_params(self) -> dict[str, JsonValue]:
        """See `PublishedModel`; the published one-crop test takes the centre on Kinetics, else the left crop."""
        clips, crops = self.num_views
        dense: dict[str, JsonValue] = {"clip.sampling": "dense", "clip.frame_stride": self.frame_stride}
        return {
            **super().expected_params(),
            **(dense if self.frame_stride is not None else {"clip.sampling": "segments"}),
            "test.num_clips": clips,
            "test.num_crops": crops,
            **({"test.single_crop": "centre" if self.dataset == "k400" else "left"} if crops == 1 else {}),
        }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedImage(PublishedModel):
    """One published number of an image model, tested on one centre crop."""

    dataset: Literal["imagenet"]
    resolution: PositiveInt
    """Rows and columns of the input, pixels."""
    params_m: PositiveFloat
    """Parameters as printed, millions."""
    gflops: PositiveFloat
    """Multiply-accumulates as printed, billions."""

    def expected_params(self) -> dict[str, JsonValue]:
        """See `PublishedModel`; trained from fresh weights, which are tested as they are and not averaged."""
        views: dict[str, JsonValue] = {"test.num_clips": 1, "test.num_crops": 1, "test.single_crop": "centre"}
        fresh: dict[str, JsonValue] = {"start_from.weights": None, "test.weights": "raw"}
        return {**super().expected_params(), **views, **fresh, "clip.crop_size": self.resolution}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PublishedSegmentation(PublishedRow):
    """One published number of a network that segments images, each seen whole at one scale."""

    dataset: Literal["ade20k"]
    preset: str | None
    """The backbone in `models.presets`, on images of another size; null for one that isn't a MorphMLP."""
    backbone: Literal["morphmlp", "resnet50"]
    decoder: Literal["semantic_fpn"]
    crop_size: PositiveInt
    """Rows and columns of the training's crops and short side of the test's images, pixels."""
    steps: PositiveInt
    """Length of the published training in optimiser steps; a run of another length isn't compared with the number."""
    batch: PositiveInt
    """Crops of a step."""
    params_m: PositiveFloat
    """Parameters as printed, millions."""
    miou: Percent
    """Mean intersection over union, percent."""

    @property
    def network(self) -> ModelConfig:
        """The backbone with the classes of ADE20K, its chunks as at the size of its image weights."""
        chosen = preset(self.preset or "morphmlp_s_image")
        return replace(chosen.model, num_classes=ADE20K_CLASSES, chunk_crop_size=chosen.crop_size)

    @property
    def segmentation(self) -> SegmentationConfig:
        """The section of an experiment that repeats it."""
        return SegmentationConfig(
            backbone=self.backbone,
            decoder=self.decoder,
            decoder_channels=128,
            dropout=0.1,
            auxiliary_weight=0.0,
            loss_over="all_pixels",
            long_edge=4 * self.crop_size,
            resize_ratio=(0.5, 2.0),
            category_limit=0.75,
            flip=0.5,
            photometric=True,
        )

    def expected_params(self) -> dict[str, JsonValue]:
        """See `PublishedRow`; drop path isn't printed, so that any goes."""
        section = _SEGMENTATION.dump_python(self.segmentation, mode="json")
        network = {} if self.preset is None else _model_params(self.network)
        return {
            **super().expected_params(),
            **{name: value for name, value in network.items() if name != "model.drop_path_rate"},
            **{f"segmentation.{name}": section[name] for name in section if name != "test"},
            **{f"segmentation.test.{name}": section["test"][name] for name in ("mode", "stride", "scales", "flip")},
            "clip.crop_size": self.crop_size,
            "clip.short_edge": self.crop_size,
            "train.steps": self.steps,
            "train.global_batch_size": self.batch,
        }


PublishedNetwork = PublishedVideo | PublishedImage | PublishedSegmentation


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Variant:
    """One row of an ablation."""

    variant: str
    """What it is, in words."""
    fields: dict[str, JsonValue] | None
    """Dotted fields of an experiment that make it here; null where none do."""
    top1: Percent
    """Top-1, percent."""
    miou: Percent | None = None
    """mIoU on ADE20K with Semantic FPN, percent."""
    params_m: PositiveFloat | None = None
    """Parameters as printed, millions."""
    gflops: PositiveFloat | None = None
    """Multiply-accumulates as printed, billions."""
    images_per_s: PositiveFloat | None = None
    """Images per second as printed."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ablation:
    """One of the paper's ablation tables."""

    table: PositiveInt
    """Its number in arXiv 2111.12527v1."""
    title: str
    """What is varied."""
    dataset: Literal["imagenet", "ssv1"]
    """Data set whose validation split was scored."""
    network: str
    """Name in print."""
    epochs: PositiveInt | None
    """Length of the trainings; null where none is printed."""
    rows: tuple[Variant, ...]

    @model_validator(mode="after")
    def _rows_have_the_same_fields(self) -> Self:
        if len({tuple(row.fields) for row in self.rows if row.fields is not None}) > 1:
            raise ValueError(f"rows of table {self.table} have different fields; name the same ones in each")
        return self

    def printed(self, config: ExperimentConfig, swept: Sequence[str]) -> str | None:
        """What is printed for the variant that an experiment is, where nothing else of it is swept."""
        fields = flat_fields(config)
        for row in self.rows:
            if row.fields and row.fields.keys() >= set(swept) and row.fields.items() <= fields.items():
                return f"{row.top1:.1f} ({self.network}, {TITLES[self.dataset]}, Table {self.table})"
        return None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Other:
    """A number of a network that isn't measured here."""

    model: str
    """Name in print."""
    score: Percent
    """Top-1, on ADE20K mIoU, percent."""
    top5: Percent | None = None
    """Top-5, percent."""
    params_m: PositiveFloat | None = None
    """Parameters, millions."""
    gflops_total: PositiveFloat | None = None
    """Multiply-accumulates over all views, billions."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Others:
    """Numbers on one data set from one place."""

    dataset: Literal["k400", "ssv1", "ssv2", "imagenet", "ade20k"]
    source: str
    """Where they can be read."""
    rows: tuple[Other, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Published:
    """Everything in `experiments/published.yaml`."""

    videos: tuple[PublishedVideo, ...]
    images: tuple[PublishedImage, ...]
    segmentations: tuple[PublishedSegmentation, ...]
    ablations: tuple[Ablation, ...]
    others: tuple[Others, ...]

    def models(self, dataset: str) -> tuple[PublishedNetwork, ...]:
        """The published models of a data set."""
        every: tuple[PublishedNetwork, ...] = (*self.videos, *self.images, *self.segmentations)
        return tuple(row for row in every if row.dataset == dataset)


_PUBLISHED = TypeAdapter(Published)
_MODEL = TypeAdapter(ModelConfig)
_SEGMENTATION = TypeAdapter(SegmentationConfig)


def _model_params(model: ModelConfig) -> dict[str, JsonValue]:
    return {f"model.{name}": value for name, value in _MODEL.dump_python(model, mode="json").items()}


def load_published(path: str | Path) -> Published:
    """Read `published.yaml`.

    Raises:
        ConfigError: The file is missing or holds something else; all faults together.
    """
    try:
        return _PUBLISHED.validate_json(json.dumps(read_yaml(path)), strict=True)
    except ValidationError as error:
        places = ((".".join(str(part) for part in detail["loc"]), detail["msg"]) for detail in error.errors())
        raise ConfigError([f"{path}: {place}: {message}" for place, message in places]) from None


def printed_numbers(
    ablations: Sequence[Ablation], config: ExperimentConfig, point: Mapping[str, JsonValue]
) -> str | None:
    """The paper's numbers for a sweep's point, `79.6 (MorphMLP-T, ImageNet-1K, Table 7)`; None where it has none.

    A point has one where all that is swept is what a table varies, and its experiment has the values of a row there.
    """
    found = [printed for table in ablations if (printed := table.printed(config, list(point))) is not None]
    return "; ".join(found) or None
