"""The trials of a sweep, as many at a time as may run: each is started, heard, and stopped where the scheduler says so.

Ray Tune starts the processes and hands on their scores. It decides nothing: which trial is next comes from the queue,
which one stops from the sweep's scheduler.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

# Read by Tune when it runs: its own logger files aren't needed, MLflow is the record.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from morphmlp.cluster.failure_reasons import failure_reason
from morphmlp.cluster.ray_cluster import Placement
from morphmlp.errors import ClusterError
from morphmlp.progress import Progress
from morphmlp.stop_signals import NAMES, Interrupted, StopSignals
from morphmlp.targets import ascii_name
from morphmlp.training.workers.stops import Stop, StopReason, ask_to_stop
from morphmlp.training.workers.supervision import STOP_WAIT_S
from morphmlp.tuning.run import decisions
from morphmlp.tuning.run.ray_trial_process import AT, SCORE, run_trial
from morphmlp.tuning.run.trial_log import show_all
from morphmlp.tuning.run.trial_queue import Entry, TrialJob, TrialQueue
from morphmlp.tuning.run.trials import TrialEnd
from morphmlp.tuning.search.scheduler import SweepScheduler

POLL_S = 0.5
NODE_SHARE = 0.001
"""Of the resource that every node has of itself, by which a trial stays on the driver's."""


def run_trials(
    queue: TrialQueue,
    placement: Placement,
    *,
    scheduler: SweepScheduler,
    at_once: int,
    total: int,
    folder: Path,
    progress: Progress,
    on_end: Callable[[Entry], None],
    stops: StopSignals,
) -> None:
    """Run all trials to their ends, `at_once` at a time; each ends up in its view.

    `total` are the trials in all, as far as is known; `folder` is for Tune's own files, which nobody needs afterwards.
    `on_end` is called, in this thread, for each trial that has ended.

    Raises:
        Interrupted: A signal came; the trials at work have saved, or had time to.
        ClusterError: Tune itself failed.
    """
    progress.phase("sweep", total=total, unit="trials")
    searcher = _Trials(queue, scheduler)
    tuning = _in_thread(_tuner(searcher, _Scores(queue, scheduler), placement, at_once=at_once, folder=folder).fit)

    def hear() -> None:
        show_all([entry.view for entry in queue.entries], progress)
        for entry in queue.newly_ended():
            on_end(entry)

    with stops.saving_first():
        asked: float | None = None
        while not tuning.done():
            hear()
            if stops.received is not None:
                asked = asked or searcher.end(stops.received, progress)
                if time.monotonic() - asked > STOP_WAIT_S:
                    break
                _ask_all_to_stop(queue, Stop(reason=StopReason.SWEEP_STOPS, detail=NAMES[stops.received]))
            wait([tuning], POLL_S)
    if stops.received is not None:
        raise Interrupted(stops.received)
    errors = _errors(tuning)
    for entry in queue.entries:  # those whose processes died without writing an end
        entry.view.read()
        if entry.view.end is None:
            reason = errors.get(ascii_name(entry.job.run_name), "its process died without a word")
            queue.end(entry, TrialEnd(state="failed", error=reason))
    hear()


def _ask_all_to_stop(queue: TrialQueue, stop: Stop) -> None:
    """Ask the trials at work to save and stop; again and again, since a start of their workers forgets it."""
    for entry in queue.entries:
        folder = entry.job.folder
        if entry.view.end is None and folder.root.exists() and not folder.stop_request.exists():
            ask_to_stop(folder.stop_request, stop)


def _tuner(
    searcher: "_Trials", scheduler: "_Scores", placement: Placement, *, at_once: int, folder: Path
) -> tune.Tuner:
    def name(trial: Any) -> str:
        job: TrialJob = trial.config["job"]
        return ascii_name(job.run_name)  # Ray fails at others

    # The sweep shows why a trial failed; Tune would add its tracebacks.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    node = f"node:{ray.util.get_node_ip_address()}"  # type: ignore[no-untyped-call]
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, placement=placement),
            # The process waits while its workers work: it holds no CPU, and every CPU declared is theirs.
            {"CPU": 0, node: NODE_SHARE},
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # as many as the queue has
            max_concurrent_trials=at_once,
            trial_name_creator=name,
            trial_dirname_creator=name,
            reuse_actors=True,  # the next trial needn't import everything again; a failed one's process is never reused
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent.resolve()), verbose=0),
    )


class _Trials(Searcher):
    """Hands Tune the queue's trials. It has no state of its own to save: the queue's file has it."""

    def __init__(self, queue: TrialQueue, scheduler: SweepScheduler) -> None:
        super().__init__()
        self._queue, self._scheduler = queue, scheduler
        self._started: dict[str, Entry] = {}
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
        while not self._ended and (entry := self._queue.next()) is not None:
            if (reason := self._scheduler.given_up(entry.job.number)) is None:
                self._started[trial_id] = entry
                return {"job": entry.job}
            self._queue.end(entry, TrialEnd(state="stopped", error=reason, wall_s=0.0, cpu_s=0.0))
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        del result, error
        self._queue.note_end(self._started[trial_id])

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed sweep makes its own."""


class _Scores(FIFOScheduler):
    """Passes scores on to the sweep's scheduler, and its decisions to the trials. Tune itself never ends one."""

    def __init__(self, queue: TrialQueue, scheduler: SweepScheduler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._queue, self._scheduler = queue, scheduler

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        del tune_controller
        if AT in result:  # Tune reports a trial's end in this way too
            job: TrialJob = trial.config["job"]
            decision = self._scheduler.on_score(job.number, result[AT], result[SCORE])
            if decision is not None:
                decisions.request(self._queue, job, decision)
        train_on: str = TrialScheduler.CONTINUE
        return train_on


def _in_thread(fit: Callable[[], tune.ResultGrid]) -> Future[tune.ResultGrid]:
    """Call a function next to the main thread, which stays free for progress and Ctrl-C, and never waits at exit."""
    outcome: Future[tune.ResultGrid] = Future()

    def run() -> None:
        try:
            outcome.set_result(fit())
        except BaseException as error:  # noqa: BLE001 (raised in the main thread)
            outcome.set_exception(error)

    threading.Thread(target=run, name="tune", daemon=True).start()
    return outcome


def _errors(tuning: Future[tune.ResultGrid]) -> dict[str, str]:
    """Why trials failed, by the names that Ray has of them, as far as Tune knows."""
    if (error := tuning.exception()) is not None:
        raise ClusterError(f"the sweep failed: {failure_reason(error)}")
    found = [tuning.result()[index] for index in range(len(tuning.result()))]
    return {Path(result.path).name: failure_reason(result.error) for result in found if result.error is not None}
