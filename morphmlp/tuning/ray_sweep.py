"""A sweep on Ray: every point a whole training inside a Ray Tune trial, all under one parent run.

A trial is a process on the driver's node that holds no CPU: it starts its own Ray Train workers and decode
tasks, for which the session declares the CPUs of `max_concurrent_trials` trainings. So trials never wait for
each other's resources.
"""

import contextlib
import dataclasses
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from pydantic import JsonValue, TypeAdapter

from morphmlp.config import ExperimentConfig
from morphmlp.config.sweep import SweepConfig, sweep_to_yaml
from morphmlp.data.train_clips import train_plan
from morphmlp.data_splits import DataSplits, read_splits
from morphmlp.environment import environment_tags
from morphmlp.errors import CheckpointError, ClusterError
from morphmlp.progress import Progress
from morphmlp.ray_cluster import Placement, ray_session
from morphmlp.ray_experiment import ExperimentResult
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tracking import RunWriter, find_run, open_run, prepare_store, tracking_uri
from morphmlp.tuning.ray_trials import TrialJob, run_trials
from morphmlp.tuning.report import SweepResult, Trial, sweep_figure, trial_table
from morphmlp.tuning.space import Point, Space
from morphmlp.tuning.trial_log import TrialView

_RESULT = TypeAdapter(ExperimentResult)


@dataclass(frozen=True, kw_only=True)
class SweepFolder:
    """The files of a sweep, under `<cluster.storage>/<run name>/`; beside them a folder for each trial."""

    root: Path

    @property
    def sweep(self) -> Path:
        """The resolved sweep file."""
        return self.root / "sweep.yaml"

    @property
    def table(self) -> Path:
        """The closing table."""
        return self.root / "sweep_table.md"


def run_sweep(sweep: SweepConfig, space: Space, *, run_name: str, progress: Progress) -> SweepResult:
    """Train and test every possible point, and record all of them.

    A trial that fails stops no other; it stands in the result with its reason.

    Args:
        sweep: The sweep.
        space: Its points.
        run_name: Name of the parent run; `<run name>-<number>-<values>` are the trials'.
        progress: Told what happens.

    Raises:
        MorphMLPError: Whatever the user can mend, before any trial starts.
        KeyboardInterrupt: Ctrl-C; Ray is down by then, and the runs that were going are recorded as killed.
    """
    began = time.monotonic()
    configs = [point.config for point in space.points]
    splits = _read_all_splits(configs)
    uri = tracking_uri()
    prepare_store(uri)
    folder = _new_folder(sweep, Path(configs[0].cluster.storage) / run_name)
    parent = _open_parent(sweep, configs[0], splits[0], uri=uri, run_name=run_name)
    parent.artifact(folder.sweep)
    names = [f"{run_name}-{number:03d}-{point.label}" for number, point in enumerate(space.points, start=1)]
    jobs = [
        TrialJob(
            config=_stored_in(folder.root, point.config),
            run_name=name,
            parent_run_id=parent.run_id,
            point=dict(point.values),
            uri=uri,
            working_folder=str(Path.cwd()),
        )
        for name, point in zip(names, space.points, strict=True)
    ]
    views = [
        TrialView(name=f"trial {number}/{len(jobs)} {point.title}", path=job.log)
        for number, (job, point) in enumerate(zip(jobs, space.points, strict=True), start=1)
    ]
    try:
        _train_all(sweep, jobs, views, splits, progress=progress, tuning=folder.root)
    except KeyboardInterrupt:
        for job in jobs:
            _close_killed(job, uri)
        parent.finish("KILLED")
        raise
    except BaseException:
        parent.finish("FAILED")
        raise
    trials = tuple(map(_outcome, space.points, jobs, views))
    result = SweepResult(
        parent_run_id=parent.run_id,
        run_name=run_name,
        wall_s=time.monotonic() - began,
        trials=trials,
        impossible=space.impossible,
    )
    _record(result, parent, folder, title=f"{sweep.name}, {configs[0].dataset}")
    return result


def share(placement: Placement, *, trials: int, cpus: int, gpus: int) -> Placement:
    """What one of several trials at a time gets of a cluster, so that none starves another.

    Raises:
        ClusterError: The cluster can't hold so many at a time, with the arithmetic.
    """
    workers = trials * placement.num_workers
    free = cpus - workers * placement.cpus_per_worker
    need = workers * (placement.cpus_per_worker + 1)
    if placement.device == "cuda" and workers > gpus:
        raise ClusterError(
            f"max_concurrent_trials: {trials} trials of {placement.num_workers} workers need {workers} GPUs, "
            f"there are {gpus}; lower it or cluster.num_workers"
        )
    if free < workers:
        raise ClusterError(
            f"max_concurrent_trials: {trials} trials of {placement.num_workers} workers need {need} CPUs "
            f"({placement.cpus_per_worker} and one for decoding each), there are {cpus}; lower it or "
            "cluster.num_workers"
        )
    return dataclasses.replace(
        placement,
        ingest_cpus=min(placement.ingest_cpus, free // trials),
        max_workers=placement.num_workers,
        on_cluster=False,  # a trial keeps its share: it follows no nodes that come and go
    )


def _train_all(
    sweep: SweepConfig,
    jobs: Sequence[TrialJob],
    views: Sequence[TrialView],
    splits: Sequence[DataSplits],
    *,
    progress: Progress,
    tuning: Path,
) -> None:
    config = jobs[0].config
    at_once = min(sweep.max_concurrent_trials, len(jobs))
    micro_batches = min(
        train_plan(job.config, len(data.train)).micro_batches_per_step for job, data in zip(jobs, splits, strict=True)
    )
    with (
        # Tune prints lines even at verbosity 0, and so does Ray of its processes; progress goes to standard error.
        contextlib.redirect_stdout(io.StringIO()),
        ray_session(config.cluster, config.ingest, micro_batches=micro_batches, trials=at_once) as placement,
    ):
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        shared = share(placement, trials=at_once, cpus=int(total.get("CPU", 0)), gpus=int(total.get("GPU", 0)))
        run_trials(jobs, views, shared, at_once=at_once, folder=tuning, progress=progress)


def _read_all_splits(configs: Sequence[ExperimentConfig]) -> list[DataSplits]:
    """Each point's videos; read once where points share them."""
    known: dict[tuple[object, int], DataSplits] = {}
    splits = []
    for config in configs:
        key = (config.data, config.model.num_classes)
        if key not in known:
            known[key] = read_splits(config)
        splits.append(known[key])
    return splits


def _new_folder(sweep: SweepConfig, root: Path) -> SweepFolder:
    if root.exists():
        raise CheckpointError(f"--run-name {root.name}: {root} exists; choose another name")
    folder = SweepFolder(root=root)
    root.mkdir(parents=True)
    folder.sweep.write_text(sweep_to_yaml(sweep), encoding="utf-8")
    return folder


def _stored_in(root: Path, config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with its run's folder inside the sweep's; nothing else changes."""
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, storage=str(root)))


def _open_parent(
    sweep: SweepConfig, config: ExperimentConfig, data: DataSplits, *, uri: str, run_name: str
) -> RunWriter:
    params: dict[str, JsonValue] = {
        "experiment": sweep.experiment,
        "max_concurrent_trials": sweep.max_concurrent_trials,
        **{f"overrides.{name}": value for name, value in sweep.overrides.items()},
        **{f"grid.{name}": list(values) for name, values in sweep.grid.items()},
    }
    tags = {**environment_tags(), **data.tags(), Tags.EXPERIMENT: sweep.name, Tags.KIND: "sweep"}
    run_id = open_run(uri, experiment=config.dataset, run_name=run_name, tags=tags, params=params)
    return RunWriter(uri, run_id)


def _outcome(point: Point, job: TrialJob, view: TrialView) -> Trial:
    result = None if view.result is None else _RESULT.validate_python(view.result)
    if result is None:
        known = find_run(job.uri, run_name=job.run_name, experiment=job.config.dataset)
        run_id = None if known is None else known.run_id
        if run_id is not None:
            RunWriter(job.uri, run_id).tags({Tags.ERROR: view.reason or ""})
            RunWriter(job.uri, run_id).finish("FAILED")
    else:
        run_id = result.run_id
    return Trial(
        point=point.values,
        title=point.title,
        state="finished" if result else "failed",
        run_id=run_id,
        top1=result.top1 if result else None,
        top5=result.top5 if result else None,
        num_videos=result.num_videos if result else None,
        gmacs=point.cost.gmacs,
        params=point.cost.params,
        wall_s=result.wall_s if result else None,
        error=None if result else view.reason,
    )


def _close_killed(job: TrialJob, uri: str) -> None:
    """A stopped trial's process can't write its end any more."""
    known = find_run(uri, run_name=job.run_name, experiment=job.config.dataset)
    if known is not None and known.status == "RUNNING":
        RunWriter(uri, known.run_id).finish("KILLED")


def _record(result: SweepResult, parent: RunWriter, folder: SweepFolder, *, title: str) -> None:
    folder.table.write_text(trial_table(result.trials), encoding="utf-8")
    parent.artifact(folder.table)
    parent.figure(sweep_figure(result.trials, title=title), "figures/sweep.png")
    parent.metrics([MetricPoint(Metrics.RUN_WALL_S, result.wall_s, 0, int(time.time() * 1000))])
    parent.finish("FAILED" if result.failed else "FINISHED")
