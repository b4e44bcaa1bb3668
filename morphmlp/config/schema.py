"""The schema of an experiment file: frozen, typed, and with rules across its sections.

Fields that define a result have no default, so that each YAML can be read alone. Operational fields
(sections `execution`, `checkpoint`, `ingest` and `cluster`) have one and never change what a run computes.
"""

from dataclasses import field, replace
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.clip import PIXEL_MEAN, PIXEL_STD, AugmentConfig, ClipConfig
from morphmlp.config.length import length_faults
from morphmlp.config.model import ModelConfig
from morphmlp.config.operation import (
    CheckpointConfig,
    ClusterConfig,
    ExecutionConfig,
    IngestConfig,
    RecordConfig,
    WorkerRange,
)
from morphmlp.config.segmentation import SegmentationConfig, segmentation_faults
from morphmlp.config.shapes import (
    any_size_faults,
    view_faults,
)
from morphmlp.config.start import StartConfig
from morphmlp.config.values import (
    STRICT,
    NonNegativeFloat,
    NonNegativeInt,
    Part,
    PositiveFloat,
    PositiveInt,
    Rate,
    Share,
    Unit,
    name_faults,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Manifests (Parquet) written by `pipelines/prepare.py`."""

    train: str
    """Manifest of the training videos."""
    val: str
    """Manifest of the videos scored after an epoch, one view each."""
    test: str
    """Manifest of the videos scored at the end, all views."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MixingConfig:
    """Label mixing inside a micro-batch: MixUp or CutMix, by a coin where both are above 0."""

    mixup: NonNegativeFloat
    """Beta parameter of MixUp; 0 switches it off."""
    cutmix: NonNegativeFloat
    """Beta parameter of CutMix; 0 switches it off."""
    label_smoothing: Rate
    """Share of the target spread evenly over all classes."""
    prob: Share = 1.0
    """Chance that a micro-batch is mixed at all: always, as published. Lower it to train on some whole clips too."""
    switch_prob: Share = 0.5
    """Chance of CutMix where both are above 0, as published. Set it where one of the two should come more often."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimConfig:
    """AdamW with linear warm-up, and decay by half a cosine or by a power."""

    lr: PositiveFloat
    """Learning rate after warm-up."""
    min_lr: NonNegativeFloat
    """Learning rate at the end of the last epoch or step, and where `warmup_lr` is null at the first step."""
    warmup_epochs: NonNegativeFloat | None = None
    """Epochs of linear warm-up to `lr`, with `train.epochs`."""
    warmup_steps: NonNegativeInt | None = None
    """Optimiser steps of linear warm-up. Set it with `train.steps`, in the place of `warmup_epochs`."""
    weight_decay: NonNegativeFloat
    """Decay of weights with two or more dimensions; biases and norms have none."""
    clip_norm: PositiveFloat | None
    """Greatest global L2 norm of the gradient; null: it isn't clipped."""
    warmup_lr: NonNegativeFloat | None = None
    """Learning rate at which warm-up begins; null, as published for video: `min_lr`. Set 1e-6 for images, as DeiT."""
    schedule: Literal["steps", "epochs", "deit", "cosine", "poly"] = "steps"
    """`steps`, as published for video: the rate changes with each step, and the cosine begins where warm-up ends.
    `epochs`: timm's, the same for all steps of an epoch; its cosine runs from epoch 0, so that after warm-up it sets in
    a little below `lr`. `deit`: timm's as DeiT's code drives it, one epoch late. `cosine` and `poly`: mmcv's, with each
    step; they fall from the first step to the last, and warm-up multiplies them by a factor that grows from
    `warmup_lr / lr` to 1. Set `poly` for UPerNet's recipes, `cosine` for UniFormer's Semantic FPN, and `deit` to repeat
    a run of DeiT's code step by step."""
    power: PositiveFloat | None = None
    """Of `poly` alone: the rate falls as (1 - share of the steps done) to this power. Set 1 (linear) for Swin's
    UPerNet, 0.9 for PVT's Semantic FPN."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rates fall towards the input by this factor a layer (stem, each block), as BEiT and MAE are fine-tuned;
    the last norm and the head have the whole rate. 1, as published: one rate for all. Set 0.65 to 0.9 to fine-tune."""
    head_lr_factor: PositiveFloat = 1.0
    """The head's learning rate as a multiple of the others'. Raise it where a fresh head stands on trained weights."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        faults = []
        if (self.power is None) == (self.schedule == "poly"):
            right = "a number" if self.schedule == "poly" else "null"
            faults.append(f"power is {self.power}; with schedule {self.schedule} it must be {right}")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            faults.append(f"warmup_steps is {self.warmup_steps} next to warmup_epochs {self.warmup_epochs}; keep one")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def warmup(self) -> float | None:
        """Epochs or steps of warm-up."""
        return self.warmup_steps if self.warmup_epochs is None else self.warmup_epochs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EarlyStoppingConfig:
    """End training once the primary score of validation no longer improves."""

    epochs: PositiveInt | None = None
    """End after so many epochs without a score that is better than the best. Raise it where scores jump from epoch to
    epoch."""
    min_delta: NonNegativeFloat = 0.0
    """What a score must be better by, in its own unit (top-1: percentage points). Raise it where a small validation set
    makes scores jump by chance."""
    steps: PositiveInt | None = None
    """End after so many steps without a better score. Set it with `train.steps`, in the place of `epochs`."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ValueError("epochs: is missing and has no default")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"steps is {self.steps} next to epochs {self.epochs}; keep one")
        return self

    @property
    def patience(self) -> int:
        """Epochs or steps without a better score."""
        return self.epochs or self.steps or 0


BACKBONE: tuple[Part, ...] = ("stem", "stage1", "stage2", "stage3", "stage4")
"""All parts of a network but its head."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """Length and size of the optimisation."""

    epochs: PositiveInt | None = None
    """Passes over the training manifest."""
    steps: PositiveInt | None = None
    """Optimiser steps. Set it in the place of `epochs` for recipes that are written in steps, as those of segmentation:
    warm-up, validation, early stopping and the schedule count steps then. The videos' order stays one of epochs."""
    global_batch_size: PositiveInt
    """Videos per optimiser step, over all workers."""
    micro_batch_size: PositiveInt
    """Videos that go through the network together; BatchNorm statistics and mixing partners stay inside."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that has it and fp32 elsewhere, recorded in the run.
    `fp16` scales the loss, as published; a step that overflows is skipped and the scale halved."""
    ema_decay: Rate | None = None
    """Keep a moving average of the weights that moves by `1 - ema_decay` a step; validation and test then use it unless
    `test.weights` says otherwise. Null, as published: the weights themselves. Set it, as in 0.999, for noisy validation
    scores at small batches."""
    copies: PositiveInt = 1
    """Times that each video stands in an epoch's order, next to each other: DeiT's repeated augmentation. An epoch
    stays as long as the manifest, so that it sees a part of the videos, each so often, decoded and augmented anew, in
    other micro-batches where there are enough. 1, as published for video, whose repeats (`augment.repeats`) come from
    one decode and count extra. Set 3 for images, as DeiT."""
    freeze: Literal["backbone"] | tuple[Part, ...] | None = None
    """Parts that keep the weights they start with, as in `[stem, stage1]`; `backbone`: all but the head. They run as in
    evaluation: BatchNorm keeps its statistics and drop path drops nothing. An unbroken row of parts from the stem on
    needs no backward pass, which saves time and memory. Set it to fine-tune on few videos."""
    class_weights: Literal["balanced"] | tuple[PositiveFloat, ...] | None = None
    """Weights of the classes in the training loss, in label order. `balanced`: inversely by their training videos,
    videos / (classes x videos of the class), so that they average 1 over the videos. Null, as published: all alike. Set
    it where some classes have many more videos than others."""
    early_stopping: EarlyStoppingConfig | None = None
    """End before the whole length where validation no longer improves; null: never. Set it for small data, which a
    network learns by heart long before the last epoch."""
    seed: int = 0
    """Root of every random draw. Change it to see how much of a result is chance."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimiser steps; the learning-rate schedule stays that of `epochs` or `steps`. Set it to try a
    whole experiment, test included, in minutes."""

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ValueError("epochs: is missing and has no default")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"steps is {self.steps} next to epochs {self.epochs}; keep one, and set the other to null")
        if len(self.frozen_parts) == len(get_args(Part)):
            raise ValueError("freeze names every part, which leaves nothing to train; leave one of them out")
        return self

    @property
    def unit(self) -> Unit:
        """What the length is counted in."""
        return "step" if self.epochs is None else "epoch"

    @property
    def length(self) -> int:
        """Epochs or steps of the whole training."""
        return self.epochs or self.steps or 0

    @property
    def frozen_parts(self) -> frozenset[Part]:
        """The parts that `freeze` names."""
        return frozenset(BACKBONE if self.freeze == "backbone" else self.freeze or ())

    @property
    def micro_batches_per_step(self) -> int:
        """K: how many micro-batches make one optimiser step."""
        return -(-self.global_batch_size // self.micro_batch_size)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TestConfig:
    """The multi-view test: each video is scored on `num_clips` clips x `num_crops` crops, logits summed."""

    num_clips: PositiveInt
    """Clips per video, evenly spread over its length."""
    num_crops: Literal[1, 3]
    """1: a single crop, see `single_crop`. 3: left, centre and right along the long side."""
    single_crop: Literal["centre", "left"] = "centre"
    """Place of the one crop. Set `left` (or top) for the published one-crop test of Something-Something."""
    crop_size: PositiveInt | None = None
    """Side of the test's crops, pixels; null: `clip.crop_size`. Set it to test on larger crops than the training's."""
    short_edge: PositiveInt | None = None
    """Short side to which the test's frames are scaled, pixels; null: as much larger or smaller than `clip.short_edge`
    as the crop is. Set it to take another share of a frame."""
    checkpoint: Literal["last", "best"] = "last"
    """Whose weights are tested: the last checkpoint's, as published, or those of the validation with the best
    primary score (of equals the later). Set `best` where training overfits at its end; such weights are then saved
    whatever `checkpoint.every_epochs` says."""
    weights: Literal["averaged", "raw"] = "averaged"
    """Which weights are validated and tested where `train.ema_decay` keeps averages. Set `raw` to keep them in the
    checkpoints and score the weights themselves, as DeiT reports them."""

    @property
    def in_words(self) -> str:
        """The views of a video as results print them: `4 clips x 1 crop`."""
        clips = f"{self.num_clips} clip{'' if self.num_clips == 1 else 's'}"
        left = "left " if self.num_crops == 1 and self.single_crop == "left" else ""
        size = f" of {self.crop_size} px" if self.crop_size else ""
        return f"{clips} x {self.num_crops} {left}crop{'' if self.num_crops == 1 else 's'}{size}"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExperimentConfig:
    """One experiment: one YAML file, one result."""

    name: str
    """Name of the experiment; runs are named after it."""
    dataset: str
    """Name of the data set: runs are recorded and stand in tables under it. Only `k400`, `ssv1`, `ssv2`,
    `imagenet` and `ade20k` stand next to published numbers there."""
    task: Literal["classification", "segmentation"] = "classification"
    """What the network is trained for; it decides head, loss and scores. Set `segmentation` for a class for each pixel
    of an image; it needs the section `segmentation`, and takes nothing from `augment` and `mixing`."""
    model: ModelConfig
    data: DataConfig
    clip: ClipConfig
    augment: AugmentConfig
    mixing: MixingConfig
    optim: OptimConfig
    train: TrainConfig
    test: TestConfig
    segmentation: SegmentationConfig | None = None
    """Decoder, loss, training pipeline and test of segmentation; null with another task."""
    start_from: StartConfig | None = None
    """Weights to start from; null: fresh ones."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    record: RecordConfig = field(default_factory=RecordConfig)

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        faults = [
            *name_faults(self.name),
            *name_faults(self.dataset, "dataset"),
            *self._size_faults(),
            *self._batch_faults(),
            *length_faults(self),
            *self._fine_tuning_faults(),
            *segmentation_faults(self),
        ]
        if self.record.logs_model and self.task == "segmentation":
            faults.append(
                "record.log_model, record.register_as: only networks for classification can be logged; leave both out"
            )
        default_scale = (self.clip.pixel_mean, self.clip.pixel_std) == (PIXEL_MEAN, PIXEL_STD)
        if self.augment.erase and self.augment.erase_on == "pixels" and not default_scale:
            faults.append(
                f"augment.erase_on: pixels have noise for clip.pixel_mean {PIXEL_MEAN[0]} and clip.pixel_std "
                f"{PIXEL_STD[0]} only; with other ones write normalised"
            )
        if self.model.temporal == "none" and self.clip.num_frames != 1:
            faults.append(
                f"clip.num_frames: is {self.clip.num_frames}; with model.temporal: none the network takes one frame, "
                "so it must be 1 (averaged is the video network without temporal layers)"
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def test_clip(self) -> ClipConfig:
        """How clips are cut for the test: as for validation, but for sizes that `test` states."""
        crop_size = self.test.crop_size or self.clip.crop_size
        short_edge = self.test.short_edge or self.clip.short_edge * crop_size // self.clip.crop_size
        return replace(self.clip, crop_size=crop_size, short_edge=short_edge)

    @property
    def test_in_words(self) -> str:
        """What the test sees of a video or an image, as results print it."""
        return self.test.in_words if self.segmentation is None else self.segmentation.test.in_words

    def _size_faults(self) -> list[str]:
        if faults := self.model.shape_faults(self.clip.crop_size):
            return faults
        if self.segmentation is not None and self.segmentation.backbone == "morphmlp":
            return any_size_faults(self.model.chunks(self.clip.crop_size))
        size, edge = self.test.crop_size or self.clip.crop_size, self.test.short_edge
        if edge is not None and edge < size:
            faults.append(
                f"test.short_edge: is {edge}, smaller than the test's crops of {size}; make it at least as large"
            )
        return faults + view_faults(self.model.chunks(self.clip.crop_size), size, field="test.crop_size")

    def _fine_tuning_faults(self) -> list[str]:
        faults = []
        weights = self.train.class_weights
        if isinstance(weights, tuple) and len(weights) != self.model.num_classes:
            faults.append(
                f"train.class_weights: has {len(weights)} weights for {self.model.num_classes} classes "
                "(model.num_classes); give one to each, in label order, or write balanced"
            )
        return faults

    def _batch_faults(self) -> list[str]:
        faults = []
        train, workers = self.train, self.cluster.num_workers
        if isinstance(workers, WorkerRange):
            workers = workers.max
        if train.micro_batch_size > train.global_batch_size:
            faults.append(
                f"train.micro_batch_size: {train.micro_batch_size} is more than train.global_batch_size "
                f"{train.global_batch_size}; it must not exceed it"
            )
        elif workers is not None and workers > train.micro_batches_per_step:
            faults.append(
                f"cluster.num_workers: {workers} workers share {train.micro_batches_per_step} micro-batches a step "
                f"(train.global_batch_size {train.global_batch_size} / train.micro_batch_size "
                f"{train.micro_batch_size}); use at most {train.micro_batches_per_step} workers"
            )
        for name, rate in (("min_lr", self.optim.min_lr), ("warmup_lr", self.optim.warmup_lr)):
            if rate is not None and rate > self.optim.lr:
                faults.append(f"optim.{name}: {rate} is more than optim.lr {self.optim.lr}")
        return faults
