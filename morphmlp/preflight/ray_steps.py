"""The first steps of a training: all workers, real videos, the network, its gradients exchanged, and a checkpoint."""

import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.ray_clips import SharedVideos
from morphmlp.errors import MorphMLPError, RunStoppedError
from morphmlp.models.cost import model_cost
from morphmlp.preflight.report import StepsReport
from morphmlp.progress import Progress
from morphmlp.record import Metrics
from morphmlp.tasks.factory import task_of
from morphmlp.tracking import RunWriter
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.record.accounting import read_windows
from morphmlp.training.record.report import read_points
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers.ray_job import TrainJob
from morphmlp.training.workers.ray_trainer import train

STEPS = 3
_WAIT_S = 120.0
"""Longest wait for workers, or for storage."""


@contextmanager
def folder_of_steps(config: ExperimentConfig, progress: Progress) -> Iterator[RunFolder]:
    """A folder under `cluster.storage`, removed with all that the steps left, once nobody writes there any more."""
    folder = RunFolder(Path(config.cluster.storage) / f"preflight-{uuid.uuid4().hex[:8]}")
    try:
        yield folder
    finally:
        _remove(config, folder, progress)


def take_steps(
    config: ExperimentConfig,
    videos: Mapping[str, Manifest],
    placement: Placement,
    writer: RunWriter,
    folder: RunFolder,
    *,
    progress: Progress,
) -> StepsReport:
    """Train for a few steps in the folder of `folder_of_steps`."""
    config = _shortened(config)
    few = config.train.micro_batch_size * placement.num_workers
    val = replace(videos["val"], table=videos["val"].table.slice(0, few))
    task = task_of(config, train=videos["train"])
    job = TrainJob(
        config=config,
        task=task,
        folder=folder,
        videos=SharedVideos.of(train=videos["train"], val=val),
        placement=placement,
        num_videos=len(videos["train"]),
        num_val_videos=len(val),
        data_fingerprint=videos["train"].fingerprint(),
        gmacs_per_view=model_cost(
            config.model,
            num_frames=config.clip.num_frames,
            crop_size=config.clip.crop_size,
            segmentation=config.segmentation,
        ).gmacs,
    )
    began = time.monotonic()
    try:
        folder.root.mkdir(parents=True)
        train(job, writer, progress)
        return _report(folder, placement, fault=None, wall_s=time.monotonic() - began)
    except RunStoppedError:
        raise
    except (MorphMLPError, OSError) as error:
        fault = " ".join(str(error).split())
        return _report(folder, placement, fault=fault, wall_s=time.monotonic() - began)


def _shortened(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment for a few steps, without patience: here a failure is what one looks for."""
    waits = min(config.cluster.wait_for_workers_s, _WAIT_S)
    return replace(
        config,
        train=replace(config.train, max_steps=STEPS),
        execution=replace(config.execution, report_every_steps=1, ledger=False),
        checkpoint=replace(config.checkpoint, wait_for_storage_s=min(config.checkpoint.wait_for_storage_s, _WAIT_S)),
        ingest=replace(config.ingest, clip_cache=None),
        cluster=replace(config.cluster, max_failures=0, max_preemptions=0, wait_for_workers_s=waits),
    )


def _report(folder: RunFolder, placement: Placement, *, fault: str | None, wall_s: float) -> StepsReport:
    windows = [window for window in read_windows(folder.progress) if window.steps]
    later = [window.wait_s + window.compute_s + window.all_reduce_s for window in windows if window.steps][1:]
    skipped = sum(point.value for point in read_points(folder.progress) if point.key == Metrics.TRAIN_SKIPPED_STEPS)
    return StepsReport(
        steps=max((window.step for window in windows), default=0),
        workers=placement.num_workers,
        fault=fault,
        start_s=sum(window.start_s for window in windows),
        step_s=median(later) if later else None,
        skipped=int(skipped),
        wall_s=wall_s,
    )


def _remove(config: ExperimentConfig, folder: RunFolder, progress: Progress) -> None:
    storage = config.checkpoint.storage
    if not folder.root.exists():
        return
    try:
        if storage is not None:
            run_store(config.checkpoint, folder).clear(progress.line)
            if "://" not in storage:
                shutil.rmtree(Path(storage) / folder.root.name, ignore_errors=True)
    except MorphMLPError as error:
        progress.line(f"the checkpoint of the steps stays in {storage}: {error}")
    shutil.rmtree(folder.root, ignore_errors=True)
