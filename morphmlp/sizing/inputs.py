"""What a sizing starts from: the experiment's quantities, and measured costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.data.stream.plan import TrainPlan
from morphmlp.data.stream.ray_dataset import TASKS_AHEAD, IngestShare
from morphmlp.errors import ConfigError
from morphmlp.models.cost import model_cost
from morphmlp.tasks.factory import task_of

GIGABIT = 1e9 / 8
"""Bytes a second."""
GRADIENT_BYTES = 4
"""Of a parameter: gradients are exchanged in fp32."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Seconds of forward, backward and optimiser on one GPU by its clips: as measured, or on a line through that."""

    points: Sequence[tuple[int, float]]
    """Clips of one micro-batch, and seconds."""
    measured_by: str

    def seconds(self, clips: int) -> float:
        """Of a micro-batch of so many clips.

        Raises:
            ConfigError: One size was measured, and this is another.
        """
        known = dict(self.points)
        if clips in known:
            return known[clips]
        if len(known) == 1:
            [measured] = known
            raise ConfigError(
                [
                    f"--step-s: known for micro-batches of {measured} clips, needed for {clips}; measure that, as by "
                    f"`python pipelines/benchmark.py train-step --config FILE --clips {clips} --json step.json`, and "
                    "name both"
                ]
            )
        slope, fixed = np.polyfit(list(known), list(known.values()), 1)
        if slope <= 0 or fixed < 0:
            raise ConfigError([f"--step-s: {self.described()} lie on no line that grows from 0 upwards; measure again"])
        return float(slope * clips + fixed)

    def is_extrapolated(self, clips: int) -> bool:
        """Whether no measurement is as small, or as large."""
        sizes = [size for size, _ in self.points]
        return not min(sizes) <= clips <= max(sizes)

    def described(self) -> str:
        """The measurements in words."""
        return ", ".join(f"{clips} clips {seconds * 1000:.4g} ms" for clips, seconds in self.points)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured."""

    step: StepCost
    decode_s: float
    """CPU seconds of a training clip, from file to finished pixels; on a full node, where that was measured."""
    decoded_by: str
    """Where that comes from."""
    decode_growth: float = 1.0
    """`decode_s` over what it is for a decoder alone on its node; 1 where nobody measured that."""
    full_cores: int | None = None
    """Cores of the node on which the growth was measured."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """An experiment in the quantities that size a cluster."""

    videos: int
    val_videos: int
    videos_per_step: int
    micro_batch: int
    """Videos of it."""
    clips_per_video: int
    steps: int
    """Of the whole training."""
    steps_per_epoch: int
    video_bytes: int
    """What a decode task hands over of one video."""
    task_videos: int
    """Videos of a decode task."""
    file_bytes: float | None
    """Mean size of a video's file; None where nobody knows."""
    params: int
    validations: int
    store_bytes: int | None
    """`ingest.object_store_mb`."""
    save_every_s: float | None
    """`checkpoint.every_minutes`."""

    @property
    def micro_batches(self) -> int:
        """K of a step: most workers that a step has work for."""
        return -(-self.videos_per_step // self.micro_batch)

    @property
    def clips_per_step(self) -> int:
        """Over all workers."""
        return self.videos_per_step * self.clips_per_video

    @property
    def gradient_bytes(self) -> int:
        """What each worker exchanges a step."""
        return self.params * GRADIENT_BYTES

    def object_store_bytes(self, cores: int) -> int:
        """Decoded clips that may wait, as a run sets its limit."""
        return self.store_bytes or TASKS_AHEAD * cores * self.task_videos * self.video_bytes


def work_of(config: ExperimentConfig, *, videos: int | None, val_videos: int | None) -> Work:
    """Count an experiment's work, by its manifests where numbers of videos aren't given.

    Raises:
        ConfigError: A number is missing, and so is the manifest.
    """
    file_bytes = None
    if videos is None:
        manifest = _manifest(config.data.train, "data.train", "--videos")
        videos, file_bytes = len(manifest), pc.mean(manifest.table["size_bytes"]).as_py()
    if val_videos is None:
        val_videos = len(_manifest(config.data.val, "data.val", "--val-videos"))
    train, clips = config.train, task_of(config).train_clips()
    plan = TrainPlan.of(train, num_videos=videos)
    steps = train.length * (plan.steps_per_epoch if train.unit == "epoch" else 1)
    every = (
        config.execution.validate_every_epochs * plan.steps_per_epoch
        if train.unit == "epoch"
        else config.execution.validate_every_steps or plan.steps_per_epoch
    )
    share = IngestShare(
        policy=None,  # type: ignore[arg-type]  # only its rule for the size of a task is asked
        cpus=1,
        object_store_bytes=None,
        videos_per_task=config.ingest.videos_per_task,
        node_labels={},
        pin_memory=False,
    )
    minutes, store_mb = config.checkpoint.every_minutes, config.ingest.object_store_mb
    return Work(
        videos=videos,
        val_videos=val_videos,
        videos_per_step=plan.videos_per_step,
        micro_batch=min(train.micro_batch_size, plan.videos_per_step),
        clips_per_video=clips.clips_per_video,
        steps=steps,
        steps_per_epoch=plan.steps_per_epoch,
        video_bytes=clips.video_bytes,
        task_videos=share.task_videos(clips),
        file_bytes=file_bytes,
        params=model_cost(
            config.model,
            num_frames=config.clip.num_frames,
            crop_size=config.clip.crop_size,
            segmentation=config.segmentation,
        ).params,
        validations=-(-steps // every),
        store_bytes=None if store_mb is None else store_mb * 2**20,
        save_every_s=None if minutes is None else minutes * 60,
    )


def _manifest(path: str, field: str, option: str) -> Manifest:
    if not Path(path).exists():
        raise ConfigError(
            [f"{field}: no such manifest: {path}; prepare it, or name the number of its videos by {option}"]
        )
    return read_manifest(path, only=["available", "size_bytes"]).available()
