"""Rows of `experiments/published.yaml` that are of networks here, and which runs stand next to them."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter
from pydantic.dataclasses import dataclass

from morphmlp.config.model import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.values import STRICT, PositiveFloat, PositiveInt
from morphmlp.models.presets import preset

ADE20K_CLASSES = 150
Percent = Annotated[float, Field(ge=0, le=100)]
_MODEL = TypeAdapter(ModelConfig)
_SEGMENTATION = TypeAdapter(SegmentationConfig)


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

    @property
    def title(self) -> str:
        """Name in print, with what else a data set has several rows of."""
        return self.model

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

    @property
    def score(self) -> float:
        """Top-1, percent."""
        return self.top1

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
    def title(self) -> str:
        """See `PublishedRow`."""
        return f"{self.model}, {self.frames} frames, {self.views}"

    @property
    def printed_gflops(self) -> float:
        """Over all views, as printed."""
        return self.gflops_total

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

    @property
    def printed_gflops(self) -> float:
        """As printed."""
        return self.gflops

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
    def score(self) -> float:
        """Mean intersection over union, percent."""
        return self.miou

    @property
    def printed_gflops(self) -> None:
        """None are printed."""
        return

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


def _model_params(model: ModelConfig) -> dict[str, JsonValue]:
    return {f"model.{name}": value for name, value in _MODEL.dump_python(model, mode="json").items()}
