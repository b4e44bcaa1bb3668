"""The driver's side of training: launch Ray Train, follow its progress, bring back the last checkpoint."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from morphmlp.data.quarantine import Quarantine, broken_limit
from morphmlp.errors import ClusterError, DivergenceError, MorphMLPError
from morphmlp.progress import Progress
from morphmlp.ray_cluster import Placement
from morphmlp.record import Metrics
from morphmlp.tracking import RunWriter
from morphmlp.training.ray_record import RecordReports
from morphmlp.training.ray_worker import TrainJob, train_worker
from morphmlp.training.report import QUARANTINE
from morphmlp.training.run_folder import RunFolder

POLL_S = 0.2
START_ATTEMPTS = 30
"""Attempts to start the workers, about a minute each, before a run that gets no nodes ends with an error."""


def train(job: TrainJob, placement: Placement, writer: RunWriter, folder: RunFolder, progress: Progress) -> Path:
    """Train to the end of the plan, or continue the run that `folder` holds.

    Args:
        job: What the workers do.
        placement: How many there are, and where.
        writer: The record.
        folder: The run's files; its name is the run's name.
        progress: Told steps, losses and notes.

    Returns:
        The folder of the last checkpoint.

    Raises:
        QuarantineLimitError: Too many training videos are broken.
        DivergenceError: The training loss is no longer a number.
        ClusterError: The workers failed more often than `cluster.max_failures`.
    """
    cluster = job.config.cluster
    record = RecordReports(writer, folder, manifests=(job.config.data.train, job.config.data.val))
    trainer = TorchTrainer(
        _run_job,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if placement.device == "cuda" else "gloo"),
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # Ray's hints name Train v1's
            num_workers=placement.num_workers,
            use_gpu=placement.device == "cuda",
            # A worker holds its CPUs for the whole run; decoding needs others (docs/decisions/0003).
            label_selector=dict(placement.worker_labels) or None,
            resources_per_worker={
                "CPU": placement.cpus_per_worker,
                **({"GPU": 1} if placement.device == "cuda" else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=folder.root.name,
            storage_path=str(folder.root.parent.resolve()),
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]  # the same
                max_failures=cluster.max_failures, controller_failure_limit=START_ATTEMPTS
            ),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=job.config.execution.keep_checkpoints),
            callbacks=[record],  # type: ignore[list-item]  # the same
        ),
    )
    progress.line(f"starting {placement.num_workers} training worker(s) on {placement.device}")
    fitting = _Fitting(trainer)
    screen = _Screen(progress)
    for line in _follow(folder.progress, fitting):
        screen.show(line)
    if screen.stopped == QUARANTINE:
        quarantine = Quarantine.read(folder.quarantine)
        for stage, num_videos in (("train", job.num_videos), ("val", job.num_val_videos)):
            quarantine.check_share(stage=stage, num_videos=num_videos, limit=broken_limit(job.config.ingest))
    result = fitting.result()
    if screen.stopped is not None:
        raise DivergenceError(f"{screen.stopped}; lower optim.lr or optim.clip_norm, and use another --run-name")
    return Path(result.checkpoint.path)


class _Fitting(threading.Thread):
    """`trainer.fit()` beside the main thread, which stays free for progress and Ctrl-C."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(name="fit", daemon=True)
        self._trainer = trainer
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._trainer.fit()
        except BaseException as error:  # noqa: BLE001 (raised in the main thread)
            self._error = error

    def result(self) -> Any:
        """What `fit` returned.

        Raises:
            ClusterError: The workers failed; the last reason is named.
        """
        self.join()
        if self._error is not None:
            raise _as_own_error(self._error)
        return self._result


def _follow(path: Path, fitting: _Fitting) -> Iterator[dict[str, Any]]:
    """Lines that the controller appends, until training is over."""
    place = path.stat().st_size if path.exists() else 0
    while True:
        alive = fitting.is_alive()
        if path.exists():
            with path.open(encoding="utf-8") as file:
                file.seek(place)
                while (text := file.readline()).endswith("\n"):
                    place = file.tell()
                    yield json.loads(text)
        if not alive:
            return
        fitting.join(POLL_S)


class _Screen:
    """Turns the controller's lines into progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._training = False
        self.stopped: str | None = None

    def show(self, line: dict[str, Any]) -> None:
        self.stopped = line.get("stopped") or self.stopped
        for note in line.get("notes", []):
            self._progress.line(note)
        for key, value, epoch, _ in line.get("points", []):
            if key == Metrics.VAL_TOP1:
                self._progress.line(f"epoch {epoch}: validation top-1 {value:.1f}")
        if numbers := line.get("progress"):
            if not self._training:
                self._progress.phase("training", total=int(numbers["total_steps"]), unit="steps")
                self._training = True
            note = (
                f"epoch {numbers['epoch']}, loss {numbers['loss']:.3f}, {numbers['clips_per_s']:.1f} clips/s, "
                f"{numbers['data_wait']:.0%} of it waiting for data"
            )
            self._progress.update(int(numbers["step"]), note)


def _run_job(config: dict[str, TrainJob]) -> None:
    # Ray Train hands a dictionary to every worker.
    train_worker(config["job"])


def _as_own_error(error: BaseException) -> BaseException:
    for reason in getattr(error, "worker_failures", {}).values():
        cause = getattr(reason, "cause", reason)
        if isinstance(cause, MorphMLPError):
            return cause
    if isinstance(error, ray.train.TrainingFailedError):
        return ClusterError(f"training failed: {str(error).strip().splitlines()[-1]}")
    return error
