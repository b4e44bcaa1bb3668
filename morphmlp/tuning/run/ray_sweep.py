"""A sweep on Ray: every trial a whole training inside a Ray Tune trial, all under one parent run.

A trial is a process on the driver's node that holds no CPU: it starts its own Ray Train workers and decode
tasks, for which the session declares the CPUs of `max_concurrent_trials` trainings. So trials never wait for
each other's resources.
"""

import contextlib
import dataclasses
import hashlib
import io
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence

import ray
from pydantic import JsonValue

from morphmlp.cluster.address import require_named_cluster
from morphmlp.cluster.ray_cluster import Placement, ray_session
from morphmlp.config import ExperimentConfig
from morphmlp.config.sweep import Range, SweepConfig
from morphmlp.data.stream.plan import TrainPlan
from morphmlp.data.stream.ray_first_look import require_files
from morphmlp.environment import environment_tags
from morphmlp.errors import CheckpointError, ClusterError
from morphmlp.experiment.data_splits import DataSplits, read_splits
from morphmlp.experiment.ray_shared_files import require_shared_files
from morphmlp.experiment.run_claim import fingerprints_of, require_same_data
from morphmlp.progress import LoggedProgress, Progress
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.stop_signals import StopSignals
from morphmlp.tracking import RunWriter, find_run, open_run, ready_store, tracking_uri
from morphmlp.training.weights.start import with_checked_weights
from morphmlp.tuning.report.report import write_report, write_winners
from morphmlp.tuning.report.summary import checkpoints_summary, trial_table
from morphmlp.tuning.run.kept_checkpoints import KeptCheckpoints
from morphmlp.tuning.run.ray_trials import run_trials
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.sweep_record import write_sweep
from morphmlp.tuning.run.trial_jobs import TrialJobs, TrialRecorder
from morphmlp.tuning.run.trial_log import TrialEnd, TrialLog
from morphmlp.tuning.run.trial_queue import Entry, TrialQueue
from morphmlp.tuning.run.trials import SweepResult
from morphmlp.tuning.search.optuna_search import OptunaPoints
from morphmlp.tuning.search.pbt_controller import PbtController
from morphmlp.tuning.search.point_source import ListedPoints, PointSource
from morphmlp.tuning.search.population import Population
from morphmlp.tuning.search.ray_asha_pruner import AshaPruner
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
) -> SweepResult:
    """Train and test the points of a sweep with every seed, and record all of them.

    A trial that fails stops no other; it stands in the result with its reason. A sweep that is refused leaves nothing.

    Args:
        sweep: The sweep.
        base: Content of its base experiment's file.
        space: Its points, as far as they are known before it starts.
        folder: Where its files go; `<folder>-<number>-<values>` are the trials' names.
        progress: Told what happens.
        stops: Signals to this process, where it takes care of them.
        resume: Go on with what the folder holds; otherwise it must be new.
        retry_failed: Run trials again that had ended with an error.

    Raises:
        MorphMLPError: Whatever the user can mend, before any trial starts.
        KeyboardInterrupt: A signal; Ray is down by then, and the runs that were going are recorded as killed.
    """
    began = time.monotonic()
    require_named_cluster()
    progress = log = LoggedProgress(progress, folder.log)
    splits = _checked_splits(space)
    first = space.points[0].config
    total = space.num_points(sweep) * len(sweep.seeds)
    at_once = min(sweep.max_concurrent_trials, total)
    ready_store(first.dataset)
    opened: _OpenSweep | None = None
    with contextlib.ExitStack() as held:
        if resume:
            held.enter_context(folder.lock())
            held.enter_context(log.last_words())
            _require_continuable(folder, first, splits[0])
        else:
            folder.require_new()
        try:
            with _room(first, splits, trials=at_once) as shared:
                if not resume:
                    folder.begin(sweep, base)
                    held.enter_context(folder.lock())
                    held.enter_context(log.last_words())
                opened = _OpenSweep(sweep, base, space, data=splits[0], folder=folder, progress=progress)
                if retry_failed:
                    opened.queue.retry_failed()
                run_trials(
                    opened.queue,
                    shared,
                    verdicts=opened.verdicts,
                    at_once=at_once,
                    total=total,
                    folder=folder.tune,
                    progress=progress,
                    on_end=opened.take_end,
                    stops=stops or StopSignals(),
                )
        except KeyboardInterrupt:
            if opened is not None:
                opened.close_killed()
            raise
        except BaseException:
            if opened is not None:
                opened.parent.finish("FAILED")
            raise
        result = opened.result(wall_s=time.monotonic() - began)
        result = opened.kept.when_done(result, opened.queue.entries)
        opened.record(result)
        return result


@contextlib.contextmanager
def _room(config: ExperimentConfig, splits: Sequence[DataSplits], *, trials: int) -> Iterator[Placement]:
    """Ray, with what each of so many trials at a time may use of it.

    Raises:
        ClusterError: They can't be held, with the arithmetic.
        ManifestError: The videos aren't there.
    """
    plans = (TrainPlan.of(config.train, num_videos=len(data.train)) for data in splits)
    micro_batches = min(plan.micro_batches_per_step for plan in plans)
    with (
        # Tune prints lines even at verbosity 0, and so does Ray of its processes; progress goes to standard error.
        contextlib.redirect_stdout(io.StringIO()),
        ray_session(config.cluster, config.ingest, micro_batches=micro_batches, trials=trials) as placement,
    ):
        if placement.on_cluster:
            require_shared_files(config, splits, placement)
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        for data in splits:
            require_files(data.by_split(), config.ingest)
        yield share(placement, trials=trials, cpus=cpus, gpus=gpus)


class _OpenSweep:
    """A sweep at work: its record, where its points come from, its trials, and what decides over them."""

    def __init__(
        self,
        sweep: SweepConfig,
        base: Mapping[str, JsonValue],
        space: Space,
        *,
        data: DataSplits,
        folder: SweepFolder,
        progress: Progress,
    ) -> None:
        """Open or go on with what the folder holds."""
        self._sweep, self._space, self._folder, self._progress = sweep, space, folder, progress
        config = space.points[0].config
        uri = ready_store(config.dataset)
        self.parent = _open_parent(sweep, config, data, uri=uri, folder=folder)
        self.parent.artifact(folder.sweep)
        planner = Planner(sweep, base)
        self._source = _source(sweep, space, planner, folder)
        jobs = TrialJobs(sweep, folder, self.parent.run_id, uri)
        self.queue = TrialQueue(
            sweep, self._source, file=folder.trials, make_point=planner.known_point, make_job=jobs.make
        )
        self.verdicts = _verdicts(sweep, space, planner, self.queue)
        self.recorder = TrialRecorder(uri, config.dataset, folder, progress)
        self.kept = KeptCheckpoints(sweep, folder, progress)
        for entry in self.queue.entries:
            self.kept.after(entry)  # of those that had ended when the sweep was stopped

    def take_end(self, entry: Entry) -> None:
        """Complete the record of a trial that has ended, and make room."""
        self.recorder.write(entry)
        self.kept.after(entry)

    def close_killed(self) -> None:
        """End the record; the processes of trials that were going can't write their ends any more."""
        for entry in self.queue.entries:
            job = entry.job
            known = find_run(job.uri, run_name=job.run_name, experiment=job.config.dataset)
            if known is not None and known.status == "RUNNING":
                RunWriter(job.uri, known.run_id).finish("KILLED")
        self.parent.finish("KILLED")

    def result(self, *, wall_s: float) -> SweepResult:
        """What it found."""
        proposed = self._source.impossible if isinstance(self._source, OptunaPoints) else ()
        return SweepResult(
            parent_run_id=self.parent.run_id,
            run_name=self._folder.root.name,
            wall_s=wall_s,
            task=self._space.points[0].config.task,
            trials=tuple(map(self.recorder.trial, self.queue.entries)),
            impossible=(*self._space.impossible, *proposed),
        )

    def record(self, result: SweepResult) -> None:
        """Write table, report and winners, and end the record."""
        folder, parent, source = self._folder, self.parent, self._source
        importances = None
        if isinstance(source, OptunaPoints):
            importances = source.importances()
            for note in source.notes:
                self._progress.line(note)
        configs = {entry.point.title: entry.point.config for entry in self.queue.entries}
        title = f"{self._sweep.name}, {self._space.points[0].config.dataset}"
        checkpoints = checkpoints_summary(result)
        if checkpoints is not None:
            self._progress.line(f"sweep: {checkpoints}")
        table = trial_table(result) + (f"\n{checkpoints}\n" if checkpoints else "")
        folder.table.write_text(table, encoding="utf-8")
        parent.artifact(folder.table)
        note = _asked(self._sweep)
        for file in write_report(result, folder.root, title=title, importances=importances, note=note):
            parent.artifact(file)
        for file in write_winners(result, configs, folder.winners):
            parent.artifact(file, "winners")
        write_sweep(parent, result)
        parent.metrics([MetricPoint(Metrics.RUN_WALL_S, result.wall_s, 0, int(time.time() * 1000))])
        parent.finish("FAILED" if result.failed else "FINISHED")
        for passing in (folder.clips, folder.tune):
            shutil.rmtree(passing, ignore_errors=True)


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


def _replay(queue: TrialQueue, pruner: AshaPruner) -> None:
    """Tell the pruner what trials had scored before the sweep stopped, in that order.

    A trial that it gives up, and whose process didn't live to learn it, ends here.
    """
    known = [(when, entry, epoch, top1) for entry in queue.entries for epoch, top1, when in entry.view.scores]
    for _, entry, epoch, top1 in sorted(known, key=lambda score: score[0]):
        pruner.take(entry.job.number, epoch, top1)
    for entry in queue.entries:
        reason = pruner.stopped.get(entry.job.number)
        if entry.view.end is None and reason is not None:
            TrialLog(entry.view.path).ended(TrialEnd(state="stopped", reason=reason))
            entry.view.take_in()
            queue.note_end(entry)


def _verdicts(sweep: SweepConfig, space: Space, planner: Planner, queue: TrialQueue) -> AshaPruner | PbtController:
    """What decides over trials while they run, with what was known before a stop."""
    epochs = space.points[0].config.train.epochs
    if sweep.search.kind == "population":
        controller = PbtController(Population(sweep, space.points, epochs=epochs, make_point=planner.point), queue)
        controller.replay()
        return controller
    pruner = AshaPruner(sweep.scheduler, epochs=epochs, point_of=queue.point_of)
    _replay(queue, pruner)
    return pruner


def _source(sweep: SweepConfig, space: Space, planner: Planner, folder: SweepFolder) -> PointSource:
    if sweep.search.kind == "optuna":
        return OptunaPoints(sweep, planner, folder.journal)
    return ListedPoints(space.points)


def _checked_splits(space: Space) -> list[DataSplits]:
    """The videos of the points' data sets, each once; the points' starting weights are checked with them.

    Raises:
        MorphMLPError: A manifest or a file of weights is missing or doesn't fit.
    """
    known: dict[tuple[object, int], DataSplits] = {}
    for point in space.points:
        config = point.config
        key = (config.data, config.model.num_classes)
        if key not in known:
            known[key] = read_splits(config)
        with_checked_weights(config, known[key].train.class_names)
    return list(known.values())


def _require_continuable(folder: SweepFolder, config: ExperimentConfig, data: DataSplits) -> None:
    known = find_run(tracking_uri(), run_name=folder.root.name, experiment=config.dataset)
    if known is None:
        return
    if known.status == "FINISHED":
        raise CheckpointError(f"--resume {folder.root.name}: that sweep is finished, see {folder.root}")
    where = f"--resume {folder.root.name}: {folder.root}"
    require_same_data(fingerprints_of(known.tags), data, dataclasses.asdict(config.data), where)


def _open_parent(
    sweep: SweepConfig, config: ExperimentConfig, data: DataSplits, *, uri: str, folder: SweepFolder
) -> RunWriter:
    params: dict[str, JsonValue] = {
        "experiment": sweep.experiment,
        "task": config.task,
        "search": sweep.search.kind,
        "scheduler": sweep.scheduler.kind,
        "seeds": list(sweep.seeds),
        "max_concurrent_trials": sweep.max_concurrent_trials,
        **{f"overrides.{name}": value for name, value in sweep.overrides.items()},
        **{
            f"space.{name}": dataclasses.asdict(values) if isinstance(values, Range) else list(values)
            for name, values in sweep.space.items()
        },
    }
    content = folder.sweep.read_bytes() + folder.base.read_bytes()
    tags = {
        **environment_tags(),
        **data.tags(),
        Tags.EXPERIMENT: sweep.name,
        Tags.KIND: "sweep",
        Tags.FINGERPRINT: hashlib.sha256(content).hexdigest()[:12],  # by it a sweep that goes on finds its run
    }
    run_id = open_run(uri, experiment=config.dataset, run_name=folder.root.name, tags=tags, params=params)
    return RunWriter(uri, run_id)


def _asked(sweep: SweepConfig) -> str:
    """The sweep's question in one line."""
    budget = sweep.budget
    bounds = {"GMAC": budget.gmacs, "million parameters": budget.params, "ms": budget.latency_ms}
    parts = [
        f"{sweep.search.kind} search over {', '.join(sweep.space)} of {sweep.experiment}",
        "every trial to its end" if sweep.scheduler.kind == "none" else f"{sweep.scheduler.kind} stops trials early",
        *(f"{bound[0]:g} to {bound[1]:g} {unit}" for unit, bound in bounds.items() if bound is not None),
    ]
    return "; ".join(parts)
