"""What a run is doing: a pure function of its record, the time, and what else was seen of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from morphmlp.record import MetricPoint, Metrics, RunSummary, Tags
from morphmlp.reporting.status import recorded
from morphmlp.reporting.status.bill import Bill, Prices
from morphmlp.reporting.status.pace import Pace
from morphmlp.reporting.status.recorded import RecordedPlan
from morphmlp.reporting.status.words import seconds, span

QUIET_S = 120.0
"""A silence that is no stall yet, however short the steps are: a checkpoint, a busy server."""
START_QUIET_S = 300.0
"""The same before the first report, and after an event: nodes and processes start, the first batch is decoded."""
VALIDATION_QUIET_S = 1800.0
"""The same of a validation, where none has been timed."""
OVERDUE = 4
"""A silence as long as so many reports take is a stall."""
GONE_S = 15.0
"""A run that has reported within this time is at work, whatever a lock on a mounted folder seems to say."""
CLOCKS_S = 10.0
"""Reports from further ahead than this mean that clocks differ."""


class State(StrEnum):
    """What a run is doing."""

    STARTING = "starting"
    TRAINING = "training"
    VALIDATING = "validating"
    TESTING = "testing"
    RUNNING = "running"
    """It has no steps of its own: a sweep, a preflight."""
    INTERRUPTED = "interrupted"
    """Something happened to it, and no report has come since."""
    STALLED = "stalled"
    DRIVER_GONE = "driver gone"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


WELL = frozenset({State.STARTING, State.TRAINING, State.VALIDATING, State.TESTING, State.RUNNING})
"""States of a run that is at work."""
ENDED = {"FINISHED": State.FINISHED, "FAILED": State.FAILED, "KILLED": State.STOPPED}
"""By MLflow's word for it."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of a run besides its latest numbers."""

    speeds: Sequence[MetricPoint] = ()
    """Its clips a second, by step."""
    starts: Sequence[MetricPoint] = ()
    """Its numbers of workers, by step."""
    losses: Sequence[MetricPoint] = ()
    driver_gone: str | None = None
    """By what its command is known to be gone; None where it isn't, or nobody knows."""
    moved_ms: int | None = None
    """When its folder took the last report, where the folder is seen from here."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run as the table shows it, and as `--json` writes it; what nobody knows is None."""

    name: str
    run_id: str
    dataset: str
    experiment: str
    """The configuration's name."""
    state: State
    age_s: float
    """Since the last report, or the start; of a run that has ended since its end."""
    step: int | None
    total_steps: int | None
    epoch: int | None
    epochs: int | None
    clips_per_s: float | None
    """At the last report, like the next two."""
    step_s: float | None
    wait_share: float | None
    """Share of the time spent waiting for data, 0 to 1."""
    trend: float | None
    """By how much the last reports are faster than those before them, as a share; slower is below 0."""
    workers: int | None
    """At the last start."""
    workers_asked: tuple[int, int] | None
    """Fewest and most."""
    workers_since_s: float | None
    """How long ago they started."""
    score: str | None
    left_s: float | None
    """Of training, without the test."""
    cost: float | None
    """Of the time from the first start to now, without gaps in which no command was at work, and without the test."""
    cost_to_end: float | None
    currency: str
    num_events: int
    events: tuple[tuple[str, str], ...]
    """Time (UTC, ISO 8601) and text of the last ones, newest first."""
    remarks: tuple[str, ...]
    """What somebody should know, in words."""
    speeds: tuple[float, ...]
    """Clips a second over the run; empty where they weren't asked for."""
    losses: tuple[float, ...]


def run_status(run: RunSummary, seen: Seen, *, now_ms: int, prices: Prices | None = None) -> RunStatus:
    """Judge a run by what is known of it."""
    plan, step = RecordedPlan.of(run), recorded.step_of(run)
    pace = Pace.of(plan, seen.speeds, begin_ms=run.start_ms)
    silence = _Silence.of(run, seen, plan=plan, pace=pace, step=step, now_ms=now_ms)
    state = _state(run, seen, plan=plan, step=step, silence=silence)
    starts = [*filter(recorded.is_real, seen.starts or filter(None, [run.latest.get(Metrics.TRAIN_WORKERS)]))]
    workers = [int(start.value) for start in starts]
    since_s = (now_ms - starts[-1].timestamp_ms) / 1000 if starts else None
    asked = recorded.workers_asked(run.params)
    step_s = None if plan is None else pace.step_s(plan.length.steps_per_epoch)
    left_s = None
    if state in WELL and plan is not None and step is not None and step_s is not None:
        left_s = max(plan.length.total_steps - step, 0) * step_s
    bill, held = Bill.of(run, prices), pace.held(starts)
    if workers and run.status not in ENDED and state is not State.DRIVER_GONE:
        held.append((silence.s, workers[-1]))
    cost = None if bill is None else bill.of_run(run, held)
    to_end = None
    if cost is not None and bill is not None and left_s is not None and workers:
        to_end = cost + left_s / 3600 * bill.hour(workers[-1])
    num_events, events = recorded.events(run.tags)
    remarks = [
        *silence.remarks(state, seen, step_s=recorded.number(run, Metrics.TRAIN_STEP_S)),
        *(_few(workers, asked, since_s) if run.status not in ENDED else ()),
        *(_last_event(num_events, events, now_ms) if run.status not in ENDED else ()),
        *([error] if run.status != "FINISHED" and (error := run.tags.get(Tags.ERROR)) else ()),
    ]
    return RunStatus(
        name=run.run_name,
        run_id=run.run_id,
        dataset=run.experiment,
        experiment=run.tags.get(Tags.EXPERIMENT, ""),
        state=state,
        age_s=silence.s,
        step=step,
        total_steps=None if plan is None else plan.length.total_steps,
        epoch=None if plan is None or step is None else plan.epoch(step),
        epochs=None if plan is None else plan.epochs,
        clips_per_s=recorded.number(run, Metrics.TRAIN_CLIPS_PER_S),
        step_s=recorded.number(run, Metrics.TRAIN_STEP_S),
        wait_share=recorded.wait_share(run),
        trend=pace.trend,
        workers=workers[-1] if workers else None,
        workers_asked=asked,
        workers_since_s=since_s,
        score=recorded.score(run),
        left_s=left_s,
        cost=cost,
        cost_to_end=to_end,
        currency="" if prices is None else prices.currency,
        num_events=num_events,
        events=events,
        remarks=tuple(remarks),
        speeds=tuple(pace.speeds),
        losses=tuple(point.value for point in seen.losses if recorded.is_real(point)),
    )


@dataclass(frozen=True, kw_only=True)
class _Silence:
    """How long nothing has been heard of a run, and how long that may take."""

    s: float
    since_event_s: float
    """Seconds of it after the first event in it."""
    limit_s: float
    """Longer than this is a stall."""
    reported: bool
    """The command at work has reported."""
    interrupted: bool
    """Something happened after the last report."""
    validates: bool
    """The next report comes after a validation, whose time has begun."""
    ahead_s: float
    """How far the last report is ahead of this machine's clock."""
    waiting_s: float
    """For how long the record hasn't got what the run's folder has."""

    @classmethod
    def of(
        cls, run: RunSummary, seen: Seen, *, plan: RecordedPlan | None, pace: Pace, step: int | None, now_ms: int
    ) -> "_Silence":
        begun_ms = max(run.start_ms, recorded.time_ms(run.tags.get(Tags.BEGUN, "")) or 0)
        reports = [point.timestamp_ms for key, point in run.latest.items() if key.startswith(("train/", "val/"))]
        last_ms = max(reports, default=0)
        heard_ms = max(last_ms, begun_ms, seen.moved_ms or 0)
        if run.status in ENDED:
            heard_ms = run.end_ms or heard_ms
        _, events = recorded.events(run.tags)
        times = [recorded.time_ms(time) or 0 for time, _ in events]
        event_ms = min((time for time in times if time > max(last_ms, begun_ms)), default=0)
        reported, interrupted = last_ms > begun_ms, event_ms > 0
        limit_s, validates = START_QUIET_S, False
        silent_s = max(now_ms - heard_ms, 0) / 1000
        if reported and not interrupted:
            limit_s = QUIET_S
            step_s = recorded.number(run, Metrics.TRAIN_STEP_S) or 0.0
            if plan is not None and step is not None:
                following = plan.next_report(step)
                rest_s = (following - step) * step_s
                validates = plan.is_validated(following) and silent_s > rest_s
                usual_s = pace.usual_s(lambda at: plan.is_validated(at) == plan.is_validated(following))
                if usual_s is None and validates:
                    limit_s = VALIDATION_QUIET_S
                limit_s = max(limit_s, OVERDUE * (usual_s or rest_s))
        return cls(
            s=silent_s,
            since_event_s=max(now_ms - max(heard_ms, event_ms), 0) / 1000,
            limit_s=limit_s,
            reported=reported,
            interrupted=interrupted,
            validates=validates,
            ahead_s=(last_ms - now_ms) / 1000,
            waiting_s=0.0 if seen.moved_ms is None or not reported else (seen.moved_ms - last_ms) / 1000,
        )

    def remarks(self, state: State, seen: Seen, *, step_s: float | None) -> list[str]:
        """What is to be said of it."""
        if state in ENDED.values():
            return []
        said = []
        heard = f"no report for {span(self.s)}" if self.reported else f"no report since its start {span(self.s)} ago"
        if state is State.DRIVER_GONE:
            said.append(f"{heard}; its command is gone ({seen.driver_gone}); the same command continues it")
        elif state is State.STALLED:
            took = "" if step_s is None or not self.reported else f"; last step took {seconds(step_s)}"
            said.append(heard + took + ("; a validation is due" if self.validates else ""))
        if self.ahead_s > CLOCKS_S:
            said.append(f"its last report is from {span(self.ahead_s)} ahead: clocks differ, ages are wrong")
        if self.waiting_s > QUIET_S:
            said.append(f"MLflow lacks the reports of the last {span(self.waiting_s)}: they wait in the run's folder")
        return said


def _state(run: RunSummary, seen: Seen, *, plan: RecordedPlan | None, step: int | None, silence: _Silence) -> State:
    if run.status in ENDED:
        return ENDED[run.status]
    if seen.driver_gone is not None and silence.s > GONE_S:
        return State.DRIVER_GONE
    if Tags.EXPERIMENT not in run.tags or run.tags.get(Tags.KIND) == "sweep":
        return State.RUNNING
    return _at_work(run, plan=plan, step=step, silence=silence)


def _at_work(run: RunSummary, *, plan: RecordedPlan | None, step: int | None, silence: _Silence) -> State:
    if Metrics.RUN_WORKER_HOURS in run.latest or (plan and step and step >= plan.length.total_steps):
        return State.TESTING
    if silence.since_event_s > silence.limit_s:
        return State.STALLED
    if silence.interrupted:
        return State.INTERRUPTED
    if not silence.reported or step is None:
        return State.STARTING
    return State.VALIDATING if silence.validates else State.TRAINING


def _few(workers: Sequence[int], asked: tuple[int, int] | None, since_s: float | None) -> list[str]:
    """Workers that were asked for and aren't there."""
    if not workers or asked is None or since_s is None or workers[-1] >= asked[1]:
        return []
    before = f", {workers[-2]} before" if len(workers) > 1 and workers[-2] > workers[-1] else ""
    return [f"{workers[-1]} of {asked[1]} workers for {span(since_s)}{before}"]


def _last_event(count: int, events: Sequence[tuple[str, str]], now_ms: int) -> list[str]:
    if not events:
        return []
    time, text = events[0]
    at = recorded.time_ms(time)
    when = time if at is None else f"{span(max(now_ms - at, 0) / 1000)} ago"
    return [f"{when}: {text}" if count == 1 else f"{count} events, the last {when}: {text}"]
