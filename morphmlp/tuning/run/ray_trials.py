"""The trials of a sweep as Ray Tune runs them: one process each, in which a whole experiment runs."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read by Tune when it runs: its own logger files aren't wanted, MLflow is the record.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray
from pydantic import TypeAdapter
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from morphmlp.cluster.failure_reasons import failure_reason
from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import fingerprint
from morphmlp.errors import ClusterError, DivergenceError, RunInUseError, RunStoppedError
from morphmlp.experiment.data_splits import read_splits
from morphmlp.experiment.ray_experiment import ExperimentResult, run_experiment
from morphmlp.progress import Progress
from morphmlp.record import Tags
from morphmlp.stop_signals import NAMES, Interrupted, StopSignals
from morphmlp.targets import ascii_name
from morphmlp.tasks.scores import primary_score
from morphmlp.training.record.accounting import training_cpu_s
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.record.time_windows import read_windows
from morphmlp.training.workers.stops import Stop, StopReason, ask_to_stop, requested_stop, write_stop_request
from morphmlp.training.workers.supervision import STOP_PATIENCE_S
from morphmlp.tuning.run.trial_log import (
    TrialEnd,
    TrialLog,
    follow_all,
)
from morphmlp.tuning.run.trial_queue import Entry, TrialJob, TrialQueue
from morphmlp.tuning.search.pbt_controller import PbtController, member_config
from morphmlp.tuning.search.ray_asha_pruner import EPOCH, SCORE, AshaPruner

POLL_S = 0.5
NODE_SHARE = 0.001
"""Of the resource that every node has of itself, by which a trial stays on the driver's."""
ASK_AGAIN_S = 5.0
LOCK_PATIENCE_S = 60.0
"""Time for a trial's former process to end, whose driver was killed."""
_RESULT = TypeAdapter(ExperimentResult)


def run_trials(
    queue: TrialQueue,
    placement: Placement,
    *,
    verdicts: AshaPruner | PbtController,
    at_once: int,
    total: int,
    folder: Path,
    progress: Progress,
    on_end: Callable[[Entry], None],
    stops: StopSignals,
) -> None:
    """Run all trials to their ends, `at_once` at a time; each ends up in its view.

    Args:
        queue: The trials.
        placement: What each trial may use.
        verdicts: Says which trials stop early, or exploit another.
        at_once: Trials at a time.
        total: Trials in all, as far as is known.
        folder: For Tune's own files, which nobody needs afterwards.
        progress: Told what the trials do.
        on_end: Called, in this thread, for each trial that has ended.
        stops: Signals to this process.

    Raises:
        Interrupted: A signal came; the trials at work have saved, or had time to.
        ClusterError: Tune itself failed.
    """
    progress.phase("sweep", total=total, unit="trials")
    search = _NextTrial(queue, verdicts)
    tuning = _Tuning(_tuner(search, placement, verdicts=verdicts, at_once=at_once, folder=folder))
    told = {entry.job.number for entry in queue.entries if entry.view.end is not None}

    def tell_ends() -> None:
        for entry in queue.entries:
            if entry.view.end is not None and entry.job.number not in told:
                told.add(entry.job.number)
                on_end(entry)

    with stops.saving_first():
        asked: float | None = None
        while tuning.is_alive():
            follow_all([entry.view for entry in queue.entries], progress)
            tell_ends()
            if stops.received is not None:
                asked = asked or search.end(stops.received, progress)
                if time.monotonic() - asked > STOP_PATIENCE_S:
                    break
                _ask_all_to_stop(queue, Stop(reason=StopReason.SWEEP_STOPS, detail=NAMES[stops.received]))
            tuning.join(POLL_S)
    if stops.received is not None:
        raise Interrupted(stops.received)
    errors = tuning.errors()
    for entry in queue.entries:
        entry.view.follow(progress)
        if entry.view.end is None:
            reason = errors.get(ascii_name(entry.job.run_name), "its process died without a word")
            TrialLog(entry.view.path).ended(TrialEnd(state="failed", reason=reason))
            entry.view.follow(progress)
    follow_all([entry.view for entry in queue.entries], progress)
    tell_ends()


def _ask_all_to_stop(queue: TrialQueue, stop: Stop) -> None:
    """Ask the trials at work to save and stop; again and again, since a start of their workers forgets it."""
    for entry in queue.entries:
        folder = _folder(entry.job)
        if entry.view.end is None and folder.root.exists() and not folder.stop_request.exists():
            ask_to_stop(folder.stop_request, stop)


def _tuner(
    search: "_NextTrial", placement: Placement, *, verdicts: AshaPruner | PbtController, at_once: int, folder: Path
) -> tune.Tuner:
    def name(trial: Any) -> str:
        job: TrialJob = trial.config["job"]
        return ascii_name(job.run_name)  # Ray fails at others

    # Failing trials are told by the sweep, with their reason; Tune would add its tracebacks.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    node = f"node:{ray.util.get_node_ip_address()}"  # type: ignore[no-untyped-call]
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_run_trial, placement=placement),
            # The process waits while its workers work: it holds no CPU, and every CPU declared is theirs.
            {"CPU": 0, node: NODE_SHARE},
        ),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=_StopRequests(verdicts),
            num_samples=-1,  # as many as the queue has
            max_concurrent_trials=at_once,
            trial_name_creator=name,
            trial_dirname_creator=name,
            reuse_actors=True,  # the next trial needn't import everything again; a failed one's process is never reused
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent.resolve()), verbose=0),
    )


class _NextTrial(Searcher):
    """Hands Tune the queue's trials. It has no state of its own to save: the queue's file has it."""

    def __init__(self, queue: TrialQueue, verdicts: AshaPruner | PbtController) -> None:
        super().__init__()
        self._queue, self._verdicts = queue, verdicts
        self._given: dict[str, Entry] = {}
        self._ended = False

    def end(self, signum: int, progress: Progress) -> float:
        """Hand out no more trials; returns the time."""
        self._ended = True
        progress.line(
            f"{NAMES[signum]}: the trials stop after this step; a second Ctrl-C stops at once and loses what came "
            "after their last checkpoints"
        )
        return time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> Any:
        entry = None
        while not self._ended and (entry := self._queue.next()) is not None:
            reason = self._verdicts.given_up(entry.job.number)
            if reason is None:
                break
            TrialLog(entry.view.path).ended(TrialEnd(state="stopped", reason=reason, wall_s=0.0, cpu_s=0.0))
            entry.view.take_in()
            self._queue.note_end(entry)
        if entry is None:
            return Searcher.FINISHED
        self._given[trial_id] = entry
        return {"job": entry.job}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        del result, error
        entry = self._given[trial_id]
        entry.view.take_in()
        self._queue.note_end(entry)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep that goes on makes its own."""


class _StopRequests(FIFOScheduler):
    """Asks trials to stop that are given up, or shall exploit another. Tune itself never ends one."""

    def __init__(self, verdicts: AshaPruner | PbtController) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._verdicts = verdicts

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        del tune_controller
        if EPOCH in result:
            job: TrialJob = trial.config["job"]
            reason = self._verdicts.take(job.number, result[EPOCH], result[SCORE])
            if reason is not None:
                write_stop_request(_folder(job).stop_request, Stop(reason=self._verdicts.stop_reason, detail=reason))
        go_on: str = TrialScheduler.CONTINUE
        return go_on


def _run_trial(config: dict[str, TrialJob], *, placement: Placement) -> None:
    job = config["job"]
    os.chdir(job.working_folder)
    os.environ["MLFLOW_TRACKING_URI"] = job.uri
    log = TrialLog(job.log)
    log.line("starts")
    began, cpu = time.monotonic(), time.process_time()

    def on_epoch(epoch: int, top1: float) -> None:
        log.epoch(epoch, top1)
        tune.report({EPOCH: epoch, SCORE: top1})

    def end_early(state: Any, reason: str) -> None:
        spent = training_cpu_s(read_windows(_folder(job).progress)) + time.process_time() - cpu
        log.ended(TrialEnd(state=state, reason=reason, wall_s=time.monotonic() - began, cpu_s=spent))

    try:
        with _time_limit(job):
            result = _to_its_end(job, placement, log, on_epoch)
    except RunStoppedError as error:
        stop = requested_stop(_folder(job).stop_request) or Stop(reason=StopReason.REQUESTED)
        match stop.reason:
            case StopReason.PRUNED:
                end_early("stopped", stop.detail)
            case StopReason.OUT_OF_TIME:
                end_early("timed_out", stop.detail)
            case StopReason.SWEEP_STOPS:
                log.line("stopped with the sweep, which resumes it")
            case _:
                end_early("failed", failure_reason(error))
                raise
    except DivergenceError as error:
        end_early("diverged", failure_reason(error))
    except BaseException as error:
        end_early("failed", failure_reason(error))
        raise
    else:
        title = primary_score(job.config.task).title
        log.line(f"{title} {result.score:.1f} of {result.num_videos} videos, {result.wall_s:.0f} s")
        log.ended(
            TrialEnd(
                state="finished",
                result=_RESULT.dump_python(result, mode="json"),
                wall_s=result.wall_s,
                cpu_s=result.cpu_s,
            )
        )


def _to_its_end(
    job: TrialJob, placement: Placement, log: TrialLog, on_epoch: Callable[[int, float], None]
) -> ExperimentResult:
    """Run the experiment; a member of a population continues after every exploit."""
    while True:
        config = job.config
        if job.is_member:
            config, note = member_config(job)
            if note is not None:
                log.line(note)
        try:
            return _when_free(job, config, placement, log, on_epoch)
        except RunStoppedError:
            stop = requested_stop(_folder(job).stop_request)
            if stop is None or stop.reason is not StopReason.EXPLOITS:
                raise
            _folder(job).stop_request.unlink()


def _when_free(
    job: TrialJob, config: ExperimentConfig, placement: Placement, log: TrialLog, on_epoch: Callable[[int, float], None]
) -> ExperimentResult:
    """Run the experiment, as soon as no process of a driver that was killed works on it any more."""
    patience = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            return run_experiment(
                config,
                read_splits(config),
                placement,
                run_name=job.run_name,
                progress=log,
                # By the fingerprint a run is found again; a member's changes while it trains.
                tags={
                    Tags.KIND: "trial",
                    Tags.POINT: json.dumps(job.point),
                    Tags.FINGERPRINT: fingerprint(job.config),
                },
                parent_run_id=job.parent_run_id,
                on_epoch=on_epoch,
            )
        except RunInUseError:
            if time.monotonic() > patience:
                raise
            time.sleep(1.0)


@contextmanager
def _time_limit(job: TrialJob) -> Iterator[None]:
    """Ask the trial to stop when its time is over; again and again, since a restart of its workers forgets it."""
    if job.max_minutes is None:
        yield
        return
    over, request = threading.Event(), _folder(job).stop_request
    detail = f"it took longer than max_trial_minutes {job.max_minutes:g}"

    def ask() -> None:
        wait = 60 * (job.max_minutes or 0)
        while not over.wait(wait):
            if not request.exists():
                write_stop_request(request, Stop(reason=StopReason.OUT_OF_TIME, detail=detail))
            wait = ASK_AGAIN_S

    thread = threading.Thread(target=ask, name="time limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _folder(job: TrialJob) -> RunFolder:
    return RunFolder(Path(job.config.cluster.storage) / job.run_name)


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
        """Why trials failed, by the names that Ray has of them, as far as Tune knows.

        Raises:
            ClusterError: Tune itself failed.
        """
        self.join()
        if self._results is None:
            raise ClusterError(f"the sweep failed: {failure_reason(self._error or RuntimeError('no result'))}")
        found = [self._results[index] for index in range(len(self._results))]
        return {Path(result.path).name: failure_reason(result.error) for result in found if result.error is not None}
