"""The trials of a sweep as Ray Tune runs them: one process each, in which a whole experiment runs."""

import dataclasses
import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read by Tune when it runs: its own logger files aren't wanted, MLflow is the record.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray
from pydantic import JsonValue
from ray import tune

from morphmlp.config import ExperimentConfig
from morphmlp.data_splits import read_splits
from morphmlp.errors import ClusterError
from morphmlp.progress import Progress
from morphmlp.ray_cluster import Placement
from morphmlp.ray_experiment import run_experiment
from morphmlp.record import Tags
from morphmlp.tuning.trial_log import TrialLog, TrialView, follow_all, reason_of

POLL_S = 0.5
NODE_SHARE = 0.001
"""Of the resource that every node has of itself, by which a trial stays on the driver's."""


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """Everything that a trial needs; plain values, so that it travels."""

    config: ExperimentConfig
    run_name: str
    parent_run_id: str
    point: dict[str, JsonValue]
    uri: str
    """The tracking store."""
    working_folder: str
    """Where relative paths of the experiment start."""

    @property
    def log(self) -> Path:
        """What the trial tells, line by line."""
        return Path(self.config.cluster.storage) / self.run_name / "trial.jsonl"


def run_trials(
    jobs: Sequence[TrialJob],
    views: Sequence[TrialView],
    placement: Placement,
    *,
    at_once: int,
    folder: Path,
    progress: Progress,
) -> None:
    """Run all trials to their ends, in order, `at_once` at a time; each ends up in its view, failed or finished.

    Args:
        jobs: The trials.
        views: What is known of each; filled here.
        placement: What each trial may use.
        at_once: Trials at a time.
        folder: The sweep's folder; Tune keeps its state in `tune/`.
        progress: Told what the trials do.

    Raises:
        ClusterError: Tune itself failed.
    """
    progress.phase("sweep", total=len(jobs), unit="trials")
    tuning = _Tuning(_tuner(jobs, placement, at_once=at_once, folder=folder))
    while tuning.is_alive():
        follow_all(views, progress)
        tuning.join(POLL_S)
    errors = tuning.errors()
    for job, view in zip(jobs, views, strict=True):
        view.follow(progress)
        if not view.ended:
            view.reason = errors.get(job.run_name, "its process died without a word")
            progress.line(f"{view.name}: failed: {view.reason}")
    follow_all(views, progress)


def _tuner(jobs: Sequence[TrialJob], placement: Placement, *, at_once: int, folder: Path) -> tune.Tuner:
    names = [job.run_name for job in jobs]

    def name(trial: Any) -> str:
        index: int = trial.config["index"]
        return names[index]

    # Failing trials are told by the sweep, with their reason; Tune would add its tracebacks.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    node = f"node:{ray.util.get_node_ip_address()}"  # type: ignore[no-untyped-call]
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_run_trial, jobs=list(jobs), placement=placement),
            # The process waits while its workers work: it holds no CPU, and every CPU declared is theirs.
            {"CPU": 0, node: NODE_SHARE},
        ),
        param_space={"index": tune.grid_search(list(range(len(jobs))))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=at_once,
            trial_name_creator=name,
            trial_dirname_creator=name,
            reuse_actors=True,  # the next trial needn't import everything again; a failed one's process is never reused
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder.resolve()), verbose=0),
    )


def _run_trial(config: dict[str, int], *, jobs: Sequence[TrialJob], placement: Placement) -> None:
    job = jobs[config["index"]]
    os.chdir(job.working_folder)
    os.environ["MLFLOW_TRACKING_URI"] = job.uri
    log = TrialLog(job.log)
    log.line("starts")
    try:
        result = run_experiment(
            job.config,
            read_splits(job.config),
            placement,
            run_name=job.run_name,
            progress=log,
            tags={Tags.KIND: "trial", Tags.POINT: json.dumps(job.point)},
            parent_run_id=job.parent_run_id,
        )
    except BaseException as error:
        log.failed(error)
        raise
    log.line(f"top-1 {result.top1:.1f} of {result.num_videos} videos, {result.wall_s:.0f} s")
    log.finished(dataclasses.asdict(result))


class _Tuning(threading.Thread):
    """`tuner.fit()` beside the main thread, which stays free for progress and Ctrl-C."""

    def __init__(self, tuner: tune.Tuner) -> None:
        super().__init__(name="tune", daemon=True)
        self._tuner = tuner
        self._results: tune.ResultGrid | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._results = self._tuner.fit()
        except BaseException as error:  # noqa: BLE001 (raised in the main thread)
            self._error = error

    def errors(self) -> dict[str, str]:
        """Why trials failed, by run name, as far as Tune knows.

        Raises:
            ClusterError: Tune itself failed.
        """
        self.join()
        if self._results is None:
            raise ClusterError(f"the sweep failed: {reason_of(self._error or RuntimeError('no result'))}")
        found = [self._results[index] for index in range(len(self._results))]
        return {Path(result.path).name: reason_of(result.error) for result in found if result.error is not None}
