"""What training workers are given to do, and how they come to it.

The command and Ray Train's controller pass it on. Neither needs what the workers need: importing that takes seconds.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import ray

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.errors import disk_faults_located
from morphmlp.training.record.run_folder import RunFolder

if TYPE_CHECKING:
    from morphmlp.data.stream.ray_clips import SharedVideos
    from morphmlp.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything that a worker needs; plain values, so that it travels."""

    config: ExperimentConfig
    task: "Task"
    folder: RunFolder
    videos: "SharedVideos"
    placement: Placement
    num_videos: int
    """Available videos of the training manifest."""
    num_val_videos: int
    data_fingerprint: str
    """Of the training manifest's available videos."""
    gmacs_per_view: float
    """Billion multiply-accumulates of a forward pass of one view."""


def import_worker() -> None:
    """Import what a worker needs."""
    import_module("morphmlp.training.workers.ray_worker")


def run_job(config: "dict[str, ray.ObjectRef[TrainJob]]") -> None:
    """Train on this worker; Ray Train hands the dictionary to every one, and to its controller."""
    from morphmlp.training.workers.ray_worker import train_worker  # noqa: PLC0415 (for workers alone)

    with disk_faults_located():
        train_worker(ray.get(config["job"]))
