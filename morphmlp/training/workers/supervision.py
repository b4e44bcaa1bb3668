"""Follows the training workers, and starts them again until the plan is done.

Every start continues from the newest checkpoint, with as many workers as fit. Where more fit, the running ones are
asked to save and stop first, so growing repeats no step.
"""

import math
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from signal import SIGINT
from typing import Any, Protocol

from morphmlp.config.operation import ClusterConfig, IngestConfig
from morphmlp.config.values import Unit
from morphmlp.errors import ClusterError, ConfigError, MorphMLPError, RunStoppedError, StorageError
from morphmlp.line_file import JsonLines
from morphmlp.progress import Progress
from morphmlp.stop_signals import NAMES, Interrupted, StopSignals
from morphmlp.tasks.scores import ScoreName
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers.stops import Stop, StopReason, ask_to_stop, requested_stop, write_stop_request

POLL_S = 0.2
ENDS = (StopReason.TOO_MANY_BROKEN, StopReason.DIVERGED, StopReason.NO_IMPROVEMENT)
"""Reasons of the workers' own, after which they don't start again."""
STOP_WAIT_S = 300.0
"""Time for a step and a checkpoint after a stop was asked for; then the command ends all the same."""
REMIND_EVERY_S = 60.0
INGEST_LOOK_S = 10.0
SILENCE_S = 90.0
"""After so long without a word of the workers the user is told, and again each time that it has doubled."""
_RANDOM = re.compile(r"(?<![0-9A-Za-z])(?=[0-9a-f]*[0-9])[0-9a-f]{8,}(?![0-9A-Za-z])")
"""Parts of names that differ between two tries of the same."""


class Ending(Enum):
    """How a group of workers ended."""

    RETURNED = auto()
    """Each one came to the end of its function: the plan's end, or a reason to stop that it reported."""
    NOT_STARTED = auto()
    """They didn't get their places."""
    FAILED = auto()
    """At least one raised or died."""
    NODE_LOST = auto()
    """A machine was taken away, announced or not."""


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a group of workers."""

    ending: Ending
    reason: str = ""
    """In a line; empty where they returned."""
    fault: MorphMLPError | None = None
    """What a worker raised for the user to fix."""
    recorded: bool = True
    """Whether a failure is in the run's record already: the workers' controller writes it, where it lives."""


class Budget:
    """Restarts that a run has left, failures and losses of nodes counted apart; None: any number of losses."""

    def __init__(self, *, max_failures: int, max_preemptions: int | None) -> None:
        self._max_failures, self._max_preemptions = max_failures, max_preemptions
        self._failures = 0
        self._preemptions = 0
        self._last_fault: tuple[str, ...] | None = None
        self._last_fault_step = -1

    def charge(self, end: End, *, step: int = -1) -> None:
        """Count an end after a step, the last that the workers reported; -1: none.

        Raises:
            StorageError: Storage failed; workers that start again would take steps again, and fail again.
            ConfigError: The workers can't do what the experiment asks for, which no start changes.
            MorphMLPError: What a worker raised, where it says the same as the time before and came no further, or the
                budget is spent.
            ClusterError: The budget is spent.
        """
        if end.ending is Ending.NODE_LOST:
            self._preemptions += 1
            if self._max_preemptions is not None and self._preemptions > self._max_preemptions:
                raise ClusterError(
                    f"training failed: nodes were lost {self._preemptions} times, cluster.max_preemptions is "
                    f"{self._max_preemptions}; the last time: {end.reason}"
                )
        if end.ending is not Ending.FAILED:
            return
        self._failures += 1
        spent = self._failures > self._max_failures
        if isinstance(end.fault, StorageError | ConfigError):
            raise end.fault
        if end.fault is not None:
            said = (type(end.fault).__name__, *_RANDOM.split(str(end.fault)))
            if spent or (said == self._last_fault and step <= self._last_fault_step):
                raise end.fault
            self._last_fault, self._last_fault_step = said, step
        elif spent:
            raise ClusterError(
                f"training failed: workers failed {self._failures} times, cluster.max_failures is "
                f"{self._max_failures}; the last time: {end.reason}"
            )


class Workers(Protocol):
    """A group of workers at work."""

    def is_alive(self) -> bool:
        """Whether it hasn't ended."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, so many seconds at most."""

    def end(self) -> End:
        """How it ended."""


class Capacity(Protocol):
    """How many workers can run."""

    @property
    def workers(self) -> int:
        """How many the next start has."""

    def look(self) -> str | None:
        """Find out how many workers can start now; what is lacking where there aren't enough."""

    def more(self) -> int:
        """How many more could run."""

    def ingest_lacking(self) -> str | None:
        """Which nodes that decode have gone, in words; None: none."""


@dataclass
class _Watch:
    """What is known of the nodes that decode, and of the workers' silence."""

    heard: float
    tell_after_s: float
    next_look: float = 0.0
    lacking: str | None = None


@dataclass
class _Attempt:
    """What is known of one group of workers."""

    started: bool = False
    """They have reported."""
    step: int = -1
    """The last that they reported."""
    stop: Stop | None = None
    """Why they stopped, where they said so."""
    more: int = 0
    """How many more workers can start, for which they were asked to save and stop."""


class Supervisor:
    """One run's training, over all its starts."""

    def __init__(
        self,
        start: Callable[[], Workers],
        capacity: Capacity,
        *,
        cluster: ClusterConfig,
        ingest: IngestConfig,
        folder: RunFolder,
        score: ScoreName,
        unit: Unit,
        progress: Progress,
        stops: StopSignals,
        note_event: Callable[[str, bool], None],
        on_validation: Callable[[int, float], None] | None = None,
        on_stop: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare.

        `start` starts as many workers as `capacity` has places for. `note_event` takes what belongs into the record,
        and whether nodes that decode are missing; `on_validation` the epochs or steps done at each validation and its
        primary score. `on_stop` is called once when a signal asks the workers to stop, before they have saved.
        """
        self._start, self._capacity, self._cluster, self._folder = start, capacity, cluster, folder
        self._progress = progress
        self._renderer = _ProgressRenderer(progress, score, unit, on_validation)
        self._stops, self._note_event, self._on_stop = stops, note_event, on_stop
        self._silence_ends = (
            f"if nothing comes for {ingest.others_wait_s} s at the latest (ingest.wait_for_clips_s and 300 s more) "
            "they start again from the last checkpoint"
        )
        self._budget = Budget(max_failures=cluster.max_failures, max_preemptions=cluster.max_preemptions)

    def run(self) -> Stop | None:
        """Train until the workers come to an end that needs no restart; why it was before the plan's end, if it was.

        Raises:
            RunStoppedError: A stop was asked for; the workers have saved.
            Interrupted: It was asked for again, or before there was anything to save, or it took too long.
            MorphMLPError: Restarts are spent, or there are no workers to be had.
        """
        lost = time.monotonic()
        while True:
            self._folder.stop_request.unlink(missing_ok=True)
            before = self._capacity.workers
            workers = self._start()
            attempt = self._follow(workers)
            end = self._end_of(workers)
            if attempt.started:
                lost = time.monotonic()
            if (why := self._why_again(attempt, end)) is None:
                self._folder.stop_request.unlink(missing_ok=True)  # asked to grow at the last moment
                return attempt.stop
            if end.ending is Ending.NOT_STARTED:
                self._end_if_waited_too_long(lost, why)
            self._wait(lost)
            if self._capacity.workers != before:
                self._note_event(f"resized from {before} to {self._capacity.workers} workers: {why}", False)
            elif end.ending in (Ending.RETURNED, Ending.NODE_LOST) or not end.recorded:
                self._note_event(f"restarted: {why}", False)

    def _end_of(self, workers: Workers) -> End:
        """How they ended; where a stop was asked for, what led them may have been stopped with them."""
        try:
            return workers.end()
        except ClusterError as error:
            if self._stops.received is None:
                raise
            return End(ending=Ending.FAILED, reason=str(error))

    def _follow(self, workers: Workers) -> _Attempt:
        """Show what the workers report until they have ended; pass stop requests on, and see whether more fit."""
        attempt = _Attempt()
        lines = JsonLines(self._folder.progress, from_end=True)
        next_look = math.inf
        asked: float | None = None
        watch = _Watch(heard=time.monotonic(), tell_after_s=SILENCE_S)
        with ExitStack() as saving:
            while True:
                alive = workers.is_alive()
                for line in lines.read():
                    if "stopped" in line and not attempt.started:  # a report; notes come before any worker is there
                        attempt.started = True
                        next_look = time.monotonic() + self._cluster.resize_check_s
                        saving.enter_context(self._stops.saving_first())
                    if (stopped := line.get("stopped")) is not None:
                        attempt.stop = Stop.from_plain(stopped)
                    if done := line.get("progress"):
                        attempt.step = done["step"]
                        if done["step"] >= done["total_steps"]:
                            next_look = math.inf
                    self._renderer.show(line)
                    watch.heard, watch.tell_after_s = time.monotonic(), SILENCE_S
                if not alive:
                    return attempt
                now = time.monotonic()
                if attempt.started:
                    self._look_at_ingest(watch, now)
                if self._stops.received is not None:
                    asked = asked or self._ask_to_stop(self._stops.received)
                    if now - asked > STOP_WAIT_S:
                        raise Interrupted(self._stops.received)
                elif not attempt.more and now >= next_look:
                    next_look = now + self._cluster.resize_check_s
                    attempt.more = self._ask_to_grow()
                workers.join(POLL_S)

    def _look_at_ingest(self, watch: _Watch, now: float) -> None:
        """Say when nodes that decode go or come back, and when nothing comes from the workers, and what ends it."""
        if now >= watch.next_look:
            watch.next_look = now + INGEST_LOOK_S
            before, watch.lacking = watch.lacking, self._capacity.ingest_lacking()
            if watch.lacking != before:
                lost = watch.lacking is not None
                self._note_event(f"ingest: {watch.lacking or 'all nodes that decode are back'}", lost)
        if now - watch.heard >= watch.tell_after_s:
            watch.tell_after_s *= 2
            why = watch.lacking or "a slow step, storage, or a link that loses packets"
            silent = f"nothing from the workers for {now - watch.heard:.0f} s"
            self._note_event(f"{silent} ({why}); {self._silence_ends}", watch.lacking is not None)

    def _ask_to_stop(self, signum: int) -> float:
        ask_to_stop(self._folder.stop_request, Stop(reason=StopReason.REQUESTED, detail=NAMES[signum]))
        self._progress.line(
            f"{NAMES[signum]}: stopping after this step; a second Ctrl-C stops at once and loses what came after the "
            "last checkpoint"
        )
        self._on_stop()
        return time.monotonic()

    def _ask_to_grow(self) -> int:
        """Ask the workers to save and stop if more can start and nobody has asked for a stop; how many more."""
        if self._folder.stop_request.exists() or not (more := self._capacity.more()):
            return 0
        try:
            write_stop_request(self._folder.stop_request, Stop(reason=StopReason.MORE_WORKERS))
        except OSError:  # a full disk wouldn't take their checkpoint either
            return 0
        self._progress.line(f"there is room for {more} more worker(s): saving, then starting again with them")
        return more

    def _why_again(self, attempt: _Attempt, end: End) -> str | None:
        """Why the workers must start again; None where they needn't."""
        stop = attempt.stop
        if self._stops.received is not None:
            failed = "" if end.ending is Ending.RETURNED else f", but the workers ended before they saved: {end.reason}"
            raise RunStoppedError(f"stopped by {NAMES[self._stops.received]}{failed}", signum=self._stops.received)
        if end.ending is not Ending.RETURNED:
            self._budget.charge(end, step=attempt.step)
            self._end_if_asked_to_stop()  # the next start removes the request
            return end.reason
        if stop is None or stop.reason in ENDS:
            return None
        if stop.reason is StopReason.NODE_LEAVES:
            why = "a node is about to be taken away"
            self._budget.charge(End(ending=Ending.NODE_LOST, reason=why))
            return why
        if stop.reason is StopReason.MORE_WORKERS:
            return f"there is room for {attempt.more} more"
        raise RunStoppedError(f"stopped by {self._folder.stop_request}", signum=SIGINT)

    def _wait(self, lost: float) -> None:
        """Wait until workers can start."""
        reminded = time.monotonic()
        while (lacking := self._capacity.look()) is not None:
            self._end_if_waited_too_long(lost, lacking)
            if time.monotonic() - reminded >= REMIND_EVERY_S:
                reminded = time.monotonic()
                self._progress.line(f"waiting for workers, {reminded - lost:.0f} s so far: {lacking}")
            self._end_if_asked_to_stop()
            time.sleep(POLL_S)

    def _end_if_asked_to_stop(self) -> None:
        """Obey a request that the workers didn't live to see; our own, to save and grow, is none."""
        asked = requested_stop(self._folder.stop_request)
        if asked is not None and asked.reason is not StopReason.MORE_WORKERS:
            raise RunStoppedError(f"stopped by {self._folder.stop_request}", signum=SIGINT)

    def _end_if_waited_too_long(self, lost: float, lacking: str) -> None:
        waited = time.monotonic() - lost
        if waited >= self._cluster.wait_for_workers_s:
            raise ClusterError(
                f"cluster.wait_for_workers_s: no workers for {waited:.0f} s: {lacking}; the same command continues "
                "from the last checkpoint when there is room"
            )


class _ProgressRenderer:
    """Turns lines of the run's progress file into what the user sees."""

    def __init__(
        self,
        progress: Progress,
        score: ScoreName,
        unit: Unit,
        on_validation: Callable[[int, float], None] | None = None,
    ) -> None:
        self._progress, self._score, self._unit, self._on_validation = progress, score, unit, on_validation
        self._training = False

    def show(self, line: dict[str, Any]) -> None:
        """Show what a line has: notes, validation, the step."""
        for note in line.get("notes", []):
            self._progress.line(note)
        for key, value, at, _ in line.get("points", []):
            if key == self._score.val_metric:
                self._progress.line(f"{self._unit} {at}: validation {self._score.title} {value:.1f}")
                if self._on_validation is not None:
                    self._on_validation(at, value)
        if numbers := line.get("progress"):
            if not self._training:
                self._progress.phase("training", total=int(numbers["total_steps"]), unit="steps")
                self._training = True
            note = (
                f"epoch {numbers['epoch']}, loss {numbers['loss']:.3f}, {numbers['clips_per_s']:.1f} clips/s, "
                f"{numbers['data_wait']:.0%} of it waiting for data"
            )
            self._progress.update(int(numbers["step"]), note)
