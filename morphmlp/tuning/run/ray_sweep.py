"""A sweep on Ray: every trial a whole training inside a Ray Tune trial, all under one parent run.

A trial is a process on the driver's node that holds no CPU: it starts its own Ray Train workers and decode
tasks, for which the session declares the CPUs of `max_concurrent_trials` trainings. So trials never wait for
each other's resources.
"""

import contextlib
import dataclasses
import io
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import ray
from pydantic import JsonValue

from morphmlp.cluster.address import require_named_cluster
from morphmlp.cluster.ray_cluster import Placement, ray_session
from morphmlp.cluster.ray_decoding import keep_statistics_here
from morphmlp.cluster.ray_nodes import was_submitted
from morphmlp.config import ExperimentConfig
from morphmlp.config.sweep import Asha, SweepConfig
from morphmlp.data.stream.plan import TrainPlan
from morphmlp.data.stream.ray_first_look import require_files
from morphmlp.environment import source_tags
from morphmlp.errors import CheckpointError, ClusterError
from morphmlp.experiment.data_splits import DataSplits, read_splits, recorded_datasets
from morphmlp.experiment.run_claim import fingerprints_of, require_same_data
from morphmlp.preflight.ray_shared_files import require_shared_files
from morphmlp.progress import LoggedProgress, Progress
from morphmlp.record import MetricPoint, Metrics
from morphmlp.reporting.tables.published import Ablation
from morphmlp.stop_signals import StopSignals
from morphmlp.tasks.scores import primary_score
from morphmlp.tracking import RunWriter, find_run, ready_store, tracking_uri
from morphmlp.training.weights.start import with_checked_weights
from morphmlp.tuning.report.report import write_report, write_winners
from morphmlp.tuning.report.summary import checkpoints_summary, trial_table
from morphmlp.tuning.run import decisions
from morphmlp.tuning.run.kept_checkpoints import KeptCheckpoints
from morphmlp.tuning.run.ray_trials import run_trials
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.sweep_record import TrialRecorder, open_sweep_run, write_sweep
from morphmlp.tuning.run.trial_queue import Entry, TrialQueue, make_job
from morphmlp.tuning.run.trials import SweepResult
from morphmlp.tuning.search.optuna_search import OptunaPoints
from morphmlp.tuning.search.population import Population
from morphmlp.tuning.search.ray_asha_pruner import AshaPruner
from morphmlp.tuning.search.scheduler import PointSource, SweepScheduler
from morphmlp.tuning.space.space import Planner, Space


def run_sweep(
    sweep: SweepConfig,
    base: Mapping[str, JsonValue],
    space: Space,
    folder: SweepFolder,
    *,
    progress: Progress,
    stops: StopSignals | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    published: Sequence[Ablation] = (),
) -> SweepResult:
    """Train and test the points of a sweep with every seed, and record all of them.

    A trial that fails stops no other; it stands in the result with its reason. A sweep that is refused leaves nothing.
    `base` is the content of its base experiment's file; trials are named `<folder>-<number>-<values>`. `resume`
    continues with what the folder holds, which must be new otherwise; `retry_failed` runs trials again that had ended
    with an error. What `published`, the paper's ablations, prints for a point's fields is shown next to the point.

    Raises:
        MorphMLPError: Whatever the user can fix, before any trial starts.
        KeyboardInterrupt: A signal; Ray is down by then, and the runs that were going are recorded as killed.
    """
    began = time.monotonic()
    require_named_cluster()
    log = LoggedProgress(progress, folder.log)
    splits = _checked_splits(space)
    config = space.points[0].config
    ready_store(config.dataset)
    total = space.num_points(sweep) * len(sweep.seeds)
    at_once = min(sweep.max_concurrent_trials, total)
    with contextlib.ExitStack() as held:

        def hold_folder() -> None:
            held.enter_context(folder.lock())
            held.enter_context(log.last_words())

        if resume:
            hold_folder()
            _require_unfinished(folder, config, splits[0])
        else:
            folder.require_new()
        opened: _OpenSweep | None = None
        try:
            with _session(config, splits, trials=at_once) as placement:
                if not resume:
                    folder.begin(sweep, base)
                    hold_folder()
                opened = _OpenSweep(
                    sweep, base, space, data=splits[0], folder=folder, progress=log, published=published
                )
                if retry_failed:
                    opened.queue.retry_failed()
                opened.run(placement, at_once=at_once, total=total, stops=stops or StopSignals())
        except BaseException as error:
            if opened is not None:
                opened.end_early(killed=isinstance(error, KeyboardInterrupt))
            raise
        return opened.finish(wall_s=time.monotonic() - began)


def _checked_splits(space: Space) -> list[DataSplits]:
    """The videos of the points' data sets, each once; the points' starting weights are checked with them."""
    known: dict[tuple[object, int], DataSplits] = {}
    for point in space.points:
        config = point.config
        key = (config.data, config.model.num_classes)
        if key not in known:
            known[key] = read_splits(config)
        with_checked_weights(config, known[key].train.class_names)
    return list(known.values())


def _require_unfinished(folder: SweepFolder, config: ExperimentConfig, data: DataSplits) -> None:
    known = find_run(tracking_uri(), run_name=folder.root.name, experiment=config.dataset)
    if known is None:
        return
    if known.status == "FINISHED":
        raise CheckpointError(f"--resume {folder.root.name}: that sweep is finished, see {folder.root}")
    where = f"--resume {folder.root.name}: {folder.root}"
    require_same_data(fingerprints_of(known.tags), data, dataclasses.asdict(config.data), where)


@contextlib.contextmanager
def _session(config: ExperimentConfig, splits: Sequence[DataSplits], *, trials: int) -> Iterator[Placement]:
    """Ray, with what each of so many trials at a time may use of it."""
    plans = (TrainPlan.of(config.train, num_videos=len(data.train)) for data in splits)
    micro_batches = min(plan.micro_batches_per_step for plan in plans)
    with (
        # Tune prints lines even at verbosity 0, and so does Ray of its processes; progress goes to standard error.
        contextlib.redirect_stdout(io.StringIO()),
        ray_session(config.cluster, config.ingest, micro_batches=micro_batches, trials=trials) as placement,
    ):
        if placement.on_cluster:
            keep_statistics_here()  # trials, which read, may come to any node
            require_shared_files(config, [data.by_split() for data in splits], placement)
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        for data in splits:
            require_files(data.by_split(), config.ingest)
        yield share(placement, trials=trials, cpus=cpus, gpus=gpus)


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


class _OpenSweep:
    """A sweep at work: its record, where its points come from, its trials, and what decides on them."""

    def __init__(
        self,
        sweep: SweepConfig,
        base: Mapping[str, JsonValue],
        space: Space,
        *,
        data: DataSplits,
        folder: SweepFolder,
        progress: Progress,
        published: Sequence[Ablation],
    ) -> None:
        """Open, or continue with what the folder holds."""
        self._sweep, self._space, self._folder, self._progress = sweep, space, folder, progress
        config = space.points[0].config
        uri = ready_store(config.dataset)
        source = source_tags(submitted=was_submitted())
        self._parent = open_sweep_run(
            sweep, folder, uri=uri, dataset=config.dataset, task=config.task, data_tags=data.tags(), source=source
        )
        self._parent.datasets(recorded_datasets(config, data))
        self._parent.artifact(folder.sweep)
        planner = Planner(sweep, base)
        self._source = _source(sweep, space, planner, folder)
        self.queue = TrialQueue(
            self._source,
            seeds=sweep.seeds,
            file=folder.trials,
            make_point=partial(planner.point, measure=False),
            make_job=partial(
                make_job, sweep=sweep, folder=folder, parent_run_id=self._parent.run_id, uri=uri, source=source
            ),
        )
        self.scheduler = _scheduler(sweep, space, planner, self.queue)
        decisions.replay(self.queue, self.scheduler)
        self._recorder = TrialRecorder(uri, config.dataset, folder, progress, published)
        self._kept = KeptCheckpoints(sweep, folder, progress)
        for entry in self.queue.entries:
            self._kept.after(entry)  # of those that had ended when the sweep was stopped

    def run(self, placement: Placement, *, at_once: int, total: int, stops: StopSignals) -> None:
        """Run the trials that are left, so many at a time."""
        run_trials(
            self.queue,
            placement,
            scheduler=self.scheduler,
            at_once=at_once,
            total=total,
            folder=self._folder.tune,
            progress=self._progress,
            on_end=self.on_trial_end,
            stops=stops,
        )

    def on_trial_end(self, entry: Entry) -> None:
        """Complete the record of a trial that has ended, and free the space of checkpoints that nobody needs."""
        self._recorder.write(entry)
        self._kept.after(entry)

    def end_early(self, *, killed: bool) -> None:
        """End the record; after a kill the processes of trials that were going can't write their ends any more."""
        for entry in self.queue.entries if killed else ():
            job = entry.job
            known = find_run(job.uri, run_name=job.run_name, experiment=job.config.dataset)
            if known is not None and known.status == "RUNNING":
                RunWriter(job.uri, known.run_id).finish("KILLED")
        self._parent.finish("KILLED" if killed else "FAILED")

    def finish(self, *, wall_s: float) -> SweepResult:
        """Write table, report and winners, and end the record."""
        folder, parent = self._folder, self._parent
        result = self._kept.when_done(self._result(wall_s), self.queue.entries)
        for note in self._source.notes:
            self._progress.line(note)
        if (checkpoints := checkpoints_summary(result)) is not None:
            self._progress.line(f"sweep: {checkpoints}")
        table = trial_table(result) + (f"\n{checkpoints}\n" if checkpoints else "")
        folder.table.write_text(table, encoding="utf-8")
        parent.artifact(folder.table)
        title = f"{self._sweep.name}, {self._space.points[0].config.dataset}"
        note = _question(self._sweep)
        for file in write_report(result, folder.root, title=title, importances=self._source.importances(), note=note):
            parent.artifact(file)
        configs = {entry.point.title: entry.point.config for entry in self.queue.entries}
        for file in write_winners(result, configs, folder.winners):
            parent.artifact(file, "winners")
        write_sweep(parent, result)
        parent.metrics([MetricPoint.now(Metrics.RUN_WALL_S, result.wall_s)])
        parent.finish("FAILED" if result.failed else "FINISHED")
        for passing in (folder.clips, folder.tune):
            shutil.rmtree(passing, ignore_errors=True)
        return result

    def _result(self, wall_s: float) -> SweepResult:
        return SweepResult(
            parent_run_id=self._parent.run_id,
            run_name=self._folder.root.name,
            wall_s=wall_s,
            task=self._space.points[0].config.task,
            trials=tuple(map(self._recorder.trial, self.queue.entries)),
            impossible=(*self._space.impossible, *self._source.impossible),
        )


def _source(sweep: SweepConfig, space: Space, planner: Planner, folder: SweepFolder) -> PointSource:
    if sweep.search.kind == "optuna":
        score = primary_score(space.points[0].config.task)
        return OptunaPoints(sweep.search, sweep.space, score, planner, folder.journal)
    return PointSource(space.points)


def _scheduler(sweep: SweepConfig, space: Space, planner: Planner, queue: TrialQueue) -> SweepScheduler:
    config = space.points[0].config
    score, whole, unit = primary_score(config.task), config.train.length, config.train.unit
    if sweep.search.kind == "population":
        return Population(
            sweep.search, sweep.space, space.points, score=score, whole=whole, unit=unit, make_point=planner.point
        )
    if isinstance(sweep.scheduler, Asha):
        entries = queue.entries
        return AshaPruner(
            sweep.scheduler,
            score,
            whole=whole,
            unit=unit,
            first_at=config.execution.validate_every_steps or 1,
            point_of=lambda number: entries[number - 1].point.key,
        )
    return SweepScheduler()


def _question(sweep: SweepConfig) -> str:
    """What the sweep asks, in one line."""
    budget = sweep.budget
    bounds = {"GMAC": budget.gmacs, "million parameters": budget.params, "ms": budget.latency_ms}
    parts = [
        f"{sweep.search.kind} search over {', '.join(sweep.space)} of {sweep.experiment}",
        "every trial to its end" if sweep.scheduler.kind == "none" else f"{sweep.scheduler.kind} stops trials early",
        *(f"{bound[0]:g} to {bound[1]:g} {unit}" for unit, bound in bounds.items() if bound is not None),
    ]
    return "; ".join(parts)
