"""One trial of a sweep: a process of Ray Tune, in which a whole experiment runs."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune

from morphmlp.cluster.failure_reasons import failure_reason
from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import fingerprint
from morphmlp.errors import DivergenceError, RunInUseError, RunStoppedError
from morphmlp.experiment.data_splits import read_splits
from morphmlp.experiment.ray_experiment import run_experiment
from morphmlp.experiment.result import ExperimentResult
from morphmlp.record import Tags
from morphmlp.tasks.scores import primary_score
from morphmlp.training.record.accounting import read_windows, training_cpu_s
from morphmlp.training.workers.stops import Stop, StopReason, requested_stop, write_stop_request
from morphmlp.tuning.run.decisions import carry_out_exploit
from morphmlp.tuning.run.trial_log import TrialLog
from morphmlp.tuning.run.trial_queue import TrialJob
from morphmlp.tuning.run.trials import TrialEnd

AT, SCORE = "at", "score"
"""What a trial reports to Tune after each validation."""
ASK_AGAIN_S = 5.0
LOCK_PATIENCE_S = 60.0
"""Time for a trial's former process to end, whose driver was killed."""


def run_trial(config: dict[str, TrialJob], *, placement: Placement) -> None:
    """Run a trial to its end, or until it is asked to stop, and write to its log how it ended."""
    job = config["job"]
    os.chdir(job.working_folder)
    os.environ["MLFLOW_TRACKING_URI"] = job.uri
    log = TrialLog(job.log)
    log.line("starts")
    began, cpu = time.monotonic(), time.process_time()

    def end_early(state: Any, reason: str) -> None:
        spent = training_cpu_s(read_windows(job.folder.progress)) + time.process_time() - cpu
        log.ended(TrialEnd(state=state, error=reason, wall_s=time.monotonic() - began, cpu_s=spent))

    try:
        with _time_limit(job):
            result = _train_and_test(job, placement, log)
    except RunStoppedError as error:
        stop = requested_stop(job.folder.stop_request) or Stop(reason=StopReason.REQUESTED)
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
        primary = primary_score(job.config.task)
        log.line(f"{primary.title} {result.score:.1f} of {result.num_videos} videos, {result.wall_s:.0f} s")
        log.ended(
            TrialEnd(
                state="finished",
                score=result.score,
                scores=dict(result.scores),
                score_interval=None if primary.of_videos else result.intervals.get(primary.key),
                num_videos=result.num_videos,
                clips_per_s=result.clips_per_s,
                run_id=result.run_id,
                wall_s=result.wall_s,
                cpu_s=result.cpu_s,
            )
        )


def _train_and_test(job: TrialJob, placement: Placement, log: TrialLog) -> ExperimentResult:
    """Run the experiment; a member of a population continues after every exploit."""

    def on_validation(at: int, score: float) -> None:
        log.validation(at, score)
        tune.report({AT: at, SCORE: score})

    while True:
        config = job.config
        if job.is_member:
            config, note = carry_out_exploit(job)
            if note is not None:
                log.line(note)
        try:
            return _when_free(job, config, placement, log, on_validation)
        except RunStoppedError:
            stop = requested_stop(job.folder.stop_request)
            if stop is None or stop.reason is not StopReason.EXPLOITS:
                raise
            job.folder.stop_request.unlink()


def _when_free(
    job: TrialJob,
    config: ExperimentConfig,
    placement: Placement,
    log: TrialLog,
    on_validation: Callable[[int, float], None],
) -> ExperimentResult:
    """Run the experiment, as soon as no process of a driver that was killed works on it any more."""
    patience = time.monotonic() + LOCK_PATIENCE_S
    # By the fingerprint a run is found again; a member's experiment changes while it trains, its job's doesn't.
    tags = {
        **job.source,
        Tags.KIND: "trial",
        Tags.POINT: json.dumps(job.point),
        Tags.FINGERPRINT: fingerprint(job.config),
    }
    while True:
        try:
            return run_experiment(
                config,
                read_splits(config),
                placement,
                run_name=job.run_name,
                progress=log,
                tags=tags,
                parent_run_id=job.parent_run_id,
                on_validation=on_validation,
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
    over, request, limit_s = threading.Event(), job.folder.stop_request, 60 * job.max_minutes
    stop = Stop(reason=StopReason.OUT_OF_TIME, detail=f"it took longer than max_trial_minutes {job.max_minutes:g}")

    def ask() -> None:
        wait = limit_s
        while not over.wait(wait):
            if not request.exists():
                write_stop_request(request, stop)
            wait = ASK_AGAIN_S

    thread = threading.Thread(target=ask, name="time limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
