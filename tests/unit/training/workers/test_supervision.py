"""Restarts, resizes and stops as the driver decides them, with workers that play their parts from a script."""

import errno
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from morphmlp import stop_signals
from morphmlp.config.operation import ClusterConfig, IngestConfig
from morphmlp.errors import CheckpointError, ClusterError, ConfigError, RunStoppedError, StorageError
from morphmlp.stop_signals import Interrupted, StopSignals
from morphmlp.tasks.scores import TOP1
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers import stops, supervision
from morphmlp.training.workers.stops import Stop, StopReason, ask_to_stop, requested_stop, write_stop_request
from morphmlp.training.workers.supervision import End, Ending, Supervisor

RETURNED = End(ending=Ending.RETURNED)
FAILED = End(ending=Ending.FAILED, reason="worker 1 is gone")
NODE_LOST = End(ending=Ending.NODE_LOST, reason="its node is gone")
NOT_STARTED = End(ending=Ending.NOT_STARTED, reason="no places")
PROGRESS = {"epoch": 1, "loss": 1.0, "clips_per_s": 1.0, "data_wait": 0.0}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "POLL_S", 0.001)


@dataclass
class Script:
    """One group of workers: reports so often, then ends; or works until it is asked to stop."""

    folder: RunFolder
    ends: End
    reports: int = 1
    step: int | None = None
    stopped: Stop | None = None
    until_asked: bool = False
    each_poll: Callable[[], None] = lambda: None
    alive: bool = True

    def is_alive(self) -> bool:
        return self.alive

    def join(self, timeout: float | None = None) -> None:
        self.each_poll()
        if self.reports:
            self.reports -= 1
            self.report(None)
        elif not self.until_asked:
            self.finish(self.stopped)
        elif (stop := requested_stop(self.folder.stop_request)) is not None:
            self.finish(stop)

    def report(self, stopped: Stop | None) -> None:
        line = {"stopped": None if stopped is None else stopped.to_plain(), "notes": [], "points": []}
        if self.step is not None:
            line["progress"] = {**PROGRESS, "step": self.step, "total_steps": 99}
        with self.folder.progress.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self, stopped: Stop | None) -> None:
        if stopped is not None:
            self.report(stopped)
        self.alive = False

    def end(self) -> End:
        return self.ends


@dataclass
class FakeCapacity:
    """As many places as the list says, start by start; the last number stays."""

    counts: list[int]
    lacking: str | None = None
    free: int = 0
    ingest: Iterator[str | None] = field(default_factory=lambda: itertools.repeat(None))

    @property
    def workers(self) -> int:
        return self.counts[0]

    def look(self) -> str | None:
        if self.lacking is None and len(self.counts) > 1:
            del self.counts[0]
        return self.lacking

    def more(self) -> int:
        return self.free

    def ingest_lacking(self) -> str | None:
        return next(self.ingest)


@dataclass
class Told:
    """What the user and the record were told."""

    lines: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    ingest_lost: list[bool] = field(default_factory=list)
    done: int = 0

    def note(self, text: str, ingest_lost: bool) -> None:
        self.events.append(text)
        self.ingest_lost.append(ingest_lost)

    def phase(self, title: str, *, total: int, unit: str) -> None:
        pass

    def update(self, done: int, note: str = "") -> None:
        self.done = done

    def line(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Stage:
    """A run's folder and a supervisor on it."""

    folder: RunFolder
    told: Told = field(default_factory=Told)
    stops: StopSignals = field(default_factory=StopSignals)
    starts: int = 0
    recorded_stops: list[str] = field(default_factory=list)

    def group(self, ends: End, **how: object) -> Script:
        return Script(self.folder, ends, **how)  # type: ignore[arg-type]

    def run(self, groups: Iterable[Script], capacity: FakeCapacity | None = None, **cluster: float) -> Stop | None:
        waiting = iter(groups)

        def start() -> Script:
            self.starts += 1
            assert not self.folder.stop_request.exists()
            return next(waiting)

        return Supervisor(
            start,
            capacity or FakeCapacity([2]),
            cluster=ClusterConfig(**cluster),  # type: ignore[arg-type]
            ingest=IngestConfig(),
            folder=self.folder,
            score=TOP1,
            unit="epoch",
            progress=self.told,
            stops=self.stops,
            note_event=self.told.note,
            on_stop=lambda: self.recorded_stops.append("stop"),
        ).run()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(RunFolder(tmp_path))


def test_workers_that_come_to_the_end_of_the_plan_are_not_started_again(stage: Stage) -> None:
    assert stage.run([stage.group(RETURNED)]) is None
    assert stage.starts == 1
    assert stage.told.events == []


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_validation_is_named_by_the_unit_of_the_length(unit: str) -> None:
    told, validations = Told(), []
    renderer = supervision._ProgressRenderer(told, TOP1, unit, lambda *found: validations.append(found))  # type: ignore[arg-type]
    renderer.show({"points": [[TOP1.val_metric, 62.5, 4000, 1], ["val/loss", 1.0, 4000, 1]]})
    assert told.lines == [f"{unit} 4000: validation top-1 62.5"]
    assert validations == [(4000, 62.5)]


def test_a_reason_to_stop_that_is_the_workers_own_is_handed_on(stage: Stage) -> None:
    for stop in (
        Stop(reason=StopReason.TOO_MANY_BROKEN, split="train", detail="6 of 12 train videos"),
        Stop(reason=StopReason.DIVERGED, step=7),
        Stop(reason=StopReason.NO_IMPROVEMENT, detail="no top-1 better than 75.00"),
    ):
        assert stage.run([stage.group(RETURNED, stopped=stop)]) == stop


def test_an_old_stop_request_does_not_stop_a_new_run(stage: Stage) -> None:
    write_stop_request(stage.folder.stop_request, Stop(reason=StopReason.REQUESTED))
    assert stage.run([stage.group(RETURNED)]) is None


def test_failures_and_lost_nodes_have_budgets_of_their_own(stage: Stage) -> None:
    ends = [FAILED, NODE_LOST, NODE_LOST, NODE_LOST, FAILED, RETURNED]
    assert stage.run([stage.group(end) for end in ends], max_failures=2) is None
    with pytest.raises(ClusterError, match=r"failed 2 times, cluster.max_failures is 1; the last time: worker 1 is"):
        stage.run([stage.group(end) for end in ends], max_failures=1)
    with pytest.raises(ClusterError, match=r"lost 3 times, cluster.max_preemptions is 2; the last time: its node"):
        stage.run([stage.group(end) for end in ends], max_preemptions=2)


def test_a_failure_that_nobody_wrote_down_is_recorded_with_the_restart(stage: Stage) -> None:
    killed = End(ending=Ending.FAILED, reason="the controller is gone", recorded=False)
    assert stage.run([stage.group(killed), stage.group(FAILED), stage.group(RETURNED)]) is None
    assert stage.told.events == ["restarted: the controller is gone"]
    with pytest.raises(ClusterError, match=r"cluster.max_failures is 0; the last time: the controller is gone"):
        stage.run([stage.group(killed)], max_failures=0)


def test_an_announced_loss_of_a_node_is_charged_as_one(stage: Stage) -> None:
    groups = [stage.group(RETURNED, stopped=Stop(reason=StopReason.NODE_LEAVES)), stage.group(RETURNED)]
    assert stage.run(list(groups), max_failures=0) is None
    assert stage.told.events == ["restarted: a node is about to be taken away"]
    with pytest.raises(ClusterError, match=r"cluster.max_preemptions is 0"):
        stage.run([stage.group(RETURNED, stopped=Stop(reason=StopReason.NODE_LEAVES))], max_preemptions=0)


def test_what_a_worker_says_twice_is_the_users_to_mend(stage: Stage) -> None:
    fault = End(ending=Ending.FAILED, reason="truncated", fault=CheckpointError("truncated"))
    other = End(ending=Ending.FAILED, reason="slow", fault=CheckpointError("slow"))
    assert stage.run([stage.group(fault), stage.group(other), stage.group(fault), stage.group(RETURNED)]) is None
    stage.starts = 0
    with pytest.raises(CheckpointError, match="truncated"):
        stage.run([stage.group(fault), stage.group(fault), stage.group(RETURNED)])
    assert stage.starts == 2


@pytest.mark.parametrize(("steps", "ends"), [((5, 5), True), ((5, 4), True), ((None, None), True), ((5, 6), False)])
def test_a_fault_that_comes_again_ends_a_run_that_took_no_further_step(
    stage: Stage, steps: tuple[int | None, int | None], ends: bool
) -> None:
    fault = End(ending=Ending.FAILED, reason="no clips", fault=CheckpointError("no clips"))
    groups = [*(stage.group(fault, step=step) for step in steps), stage.group(RETURNED)]
    if ends:
        with pytest.raises(CheckpointError, match="no clips"):
            stage.run(groups)
    else:
        assert stage.run(groups) is None


def test_a_fault_that_names_another_random_folder_is_the_same_fault(stage: Stage) -> None:
    faults = [CheckpointError(f"/runs/a/step-00000024-{tail}: truncated") for tail in ("1a2b3c4d", "99e0f1c2")]
    groups = [stage.group(End(ending=Ending.FAILED, reason="truncated", fault=fault)) for fault in faults]
    with pytest.raises(CheckpointError, match="99e0f1c2"):
        stage.run([*groups, stage.group(RETURNED)])


@pytest.mark.parametrize("fault", [StorageError("no room for the last checkpoint"), ConfigError(["no room for it"])])
def test_workers_are_not_started_again_where_storage_fails_or_they_cannot_do_what_is_asked(
    stage: Stage, fault: StorageError | ConfigError
) -> None:
    ended = End(ending=Ending.FAILED, reason="full", fault=fault)
    with pytest.raises(type(fault), match="no room"):
        stage.run([stage.group(ended), stage.group(RETURNED)], max_failures=3)
    assert stage.starts == 1


def test_a_run_on_a_full_disk_is_stopped_all_the_same_and_not_made_to_grow(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(stops, "atomic_write", full)
    ask_to_stop(stage.folder.stop_request, Stop(reason=StopReason.SWEEP_STOPS))
    assert requested_stop(stage.folder.stop_request) == Stop(reason=StopReason.REQUESTED)

    polls = iter(range(20))
    group = stage.group(RETURNED, reports=1, until_asked=True)

    def end_after_a_while() -> None:
        group.until_asked = next(polls, None) is not None

    group.each_poll = end_after_a_while
    assert stage.run([group], FakeCapacity([1, 3], free=2), resize_check_s=0.001) is None
    assert stage.starts == 1


def test_a_run_s_folder_that_takes_no_request_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone/stop-requested: the workers can't be asked to stop: No such file"):
        ask_to_stop(tmp_path / "gone" / "stop-requested", Stop(reason=StopReason.REQUESTED))


def test_a_run_shrinks_to_what_is_left(stage: Stage) -> None:
    capacity = FakeCapacity([2, 1])
    assert stage.run([stage.group(NODE_LOST), stage.group(RETURNED)], capacity) is None
    assert stage.told.events == ["resized from 2 to 1 workers: its node is gone"]


def test_a_run_grows_by_asking_its_workers_to_stop_first(stage: Stage) -> None:
    capacity = FakeCapacity([1, 3], free=2)
    groups = [stage.group(RETURNED, until_asked=True), stage.group(RETURNED)]
    assert stage.run(groups, capacity, max_failures=0, max_preemptions=0, resize_check_s=0.01) is None
    assert stage.told.events == ["resized from 1 to 3 workers: there is room for 2 more"]


def test_workers_that_have_not_reported_are_not_asked_to_grow(stage: Stage) -> None:
    capacity = FakeCapacity([1, 3], free=2)
    polls = iter(range(50))
    group = stage.group(RETURNED, reports=0, until_asked=True)

    def end_after_a_while() -> None:
        assert not stage.folder.stop_request.exists()
        group.until_asked = next(polls, None) is not None

    group.each_poll = end_after_a_while
    assert stage.run([group], capacity, resize_check_s=0.001) is None


def test_workers_at_the_end_of_their_plan_are_not_asked_to_grow(stage: Stage) -> None:
    capacity = FakeCapacity([1, 3], free=2)
    group = stage.group(RETURNED, reports=0, until_asked=True)
    polls = iter(range(20))

    def end_after_a_while() -> None:
        assert not stage.folder.stop_request.exists()
        if (poll := next(polls, None)) == 0:
            line = {"stopped": None, "progress": {**PROGRESS, "step": 9, "total_steps": 9}}
            stage.folder.progress.write_text(json.dumps(line) + "\n")
        group.until_asked = poll is not None

    group.each_poll = end_after_a_while
    assert stage.run([group], capacity, resize_check_s=0.001) is None
    assert stage.told.done == 9


def test_a_run_without_workers_ends_within_the_stated_time_and_says_what_is_lacking(stage: Stage) -> None:
    capacity = FakeCapacity([2], lacking="2 x {CPU 1, GPU 1} are needed, 1 can start now")
    with pytest.raises(ClusterError, match=r"no workers for .*2 x \{CPU 1, GPU 1\} are needed, 1 can"):
        stage.run([stage.group(NODE_LOST)], capacity, wait_for_workers_s=0.05)
    with pytest.raises(ClusterError, match=r"no workers for .*no places; the same command continues"):
        stage.run(itertools.repeat(stage.group(NOT_STARTED, reports=0)), wait_for_workers_s=0.05)


def test_the_user_hears_of_the_wait(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "REMIND_EVERY_S", 0.01)
    with pytest.raises(ClusterError):
        stage.run([stage.group(NODE_LOST)], FakeCapacity([2], lacking="one is missing"), wait_for_workers_s=0.1)
    assert any(line.startswith("waiting for workers") and "one is missing" in line for line in stage.told.lines)


def test_nodes_that_decode_are_missed_and_greeted_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "INGEST_LOOK_S", 0.0)
    looks = itertools.chain([None, "0 of 1 nodes are there", "0 of 1 nodes are there"], itertools.repeat(None))
    stage.run([stage.group(RETURNED, reports=20)], FakeCapacity([1], ingest=looks))
    told = ["ingest: 0 of 1 nodes are there", "ingest: all nodes that decode are back"]
    assert (stage.told.events, stage.told.ingest_lost) == (told, [True, False])


def test_silent_workers_are_reported_at_growing_intervals(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "SILENCE_S", 0.05)
    monkeypatch.setattr(supervision, "INGEST_LOOK_S", 0.0)
    group = stage.group(RETURNED, until_asked=True)
    ends = time.monotonic() + 1.0
    group.each_poll = lambda: None if group.reports or time.monotonic() < ends else group.finish(None)
    stage.run([group], FakeCapacity([1], ingest=itertools.repeat("no node is there")))
    silent = [text for text in stage.told.events if text.startswith("nothing")]
    assert 1 <= len(silent) <= 5  # after 0.05, 0.1, 0.2, 0.4, 0.8 s
    said = "(no node is there); if nothing comes for 900 s at the latest (ingest.wait_for_clips_s and 300 s more) they"
    assert all(said in text for text in silent)


@pytest.fixture
def _signals_taken(stage: Stage) -> Iterator[None]:
    with stage.stops.installed():
        yield


@pytest.mark.usefixtures("_signals_taken")
@pytest.mark.parametrize(
    ("signum", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")]
)
def test_a_first_signal_lets_the_workers_save(stage: Stage, signum: int, name: str) -> None:
    sent = iter([signum])
    group = stage.group(RETURNED, until_asked=True)
    group.each_poll = lambda: group.reports or ([os.kill(os.getpid(), each) for each in sent] and None)
    with pytest.raises(RunStoppedError, match=f"^stopped by {name}$") as stop:
        stage.run([group])
    assert stop.value.signum == signum
    assert requested_stop(stage.folder.stop_request) == Stop(reason=StopReason.REQUESTED, detail=name)
    assert any("a second Ctrl-C stops at once" in line for line in stage.told.lines)
    assert stage.recorded_stops == ["stop"]


@pytest.mark.usefixtures("_signals_taken")
def test_a_second_signal_ends_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signals, "SAME_WISH_S", 0.0)
    polls = iter(range(20))
    group = stage.group(RETURNED, reports=1000)

    def press() -> None:
        if next(polls) in (5, 10):
            os.kill(os.getpid(), signal.SIGINT)

    group.each_poll = press
    with pytest.raises(Interrupted):
        stage.run([group])
    assert group.alive


@pytest.mark.usefixtures("_signals_taken")
def test_a_signal_before_the_workers_run_ends_at_once(stage: Stage) -> None:
    group = stage.group(RETURNED, reports=0, until_asked=True)
    group.each_poll = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        stage.run([group])
    assert stop.value.signum == signal.SIGTERM
    assert not stage.folder.stop_request.exists()


@pytest.mark.usefixtures("_signals_taken")
def test_a_stop_that_the_workers_do_not_follow_ends_all_the_same(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_WAIT_S", 0.02)
    sent = iter([signal.SIGINT])
    group = stage.group(RETURNED, reports=10**6)
    group.each_poll = lambda: group.reports < 10**6 and [os.kill(os.getpid(), each) for each in sent] and None
    with pytest.raises(Interrupted):
        stage.run([group])


@pytest.mark.usefixtures("_signals_taken")
def test_workers_that_fail_while_they_stop_are_not_started_again(stage: Stage) -> None:
    sent = iter([signal.SIGINT])
    group = stage.group(FAILED, reports=5)
    group.each_poll = lambda: group.reports < 5 and [os.kill(os.getpid(), each) for each in sent] and None
    with pytest.raises(RunStoppedError, match="ended before they saved: worker 1 is gone"):
        stage.run([group])


@pytest.mark.usefixtures("_signals_taken")
def test_a_controller_that_the_same_signal_ends_makes_no_fault_of_a_stop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_: Script) -> End:
        raise ClusterError("training failed: the controller of the workers failed")

    monkeypatch.setattr(Script, "end", end)
    sent = iter([signal.SIGTERM])
    group = stage.group(FAILED, reports=5)
    with pytest.raises(ClusterError, match="controller"):
        stage.run([stage.group(FAILED)])
    group.each_poll = lambda: group.reports < 5 and [os.kill(os.getpid(), each) for each in sent] and None
    with pytest.raises(RunStoppedError, match="ended before they saved: training failed: the controller") as stop:
        stage.run([group])
    assert stop.value.signum == signal.SIGTERM


def test_a_stop_request_in_the_folder_stops_a_run_too(stage: Stage) -> None:
    group = stage.group(RETURNED, until_asked=True)
    group.each_poll = lambda: group.reports or stage.folder.stop_request.write_text("later")
    with pytest.raises(RunStoppedError, match=r"stopped by .*stop-requested"):
        stage.run([group])


def test_a_stop_request_ends_the_wait_for_workers(stage: Stage) -> None:
    capacity = FakeCapacity([2], lacking="none there")
    group = stage.group(NODE_LOST)
    group.each_poll = lambda: group.reports or stage.folder.stop_request.write_text("later")
    began = time.monotonic()
    with pytest.raises(RunStoppedError):
        stage.run([group], capacity)
    assert time.monotonic() - began < 60  # not wait_for_workers_s


@pytest.mark.parametrize("ends", [FAILED, NODE_LOST, NOT_STARTED], ids=lambda end: end.ending.name)
@pytest.mark.parametrize("content", ["", "later", json.dumps(Stop(reason=StopReason.PRUNED).to_plain())])
def test_a_stop_request_that_the_workers_did_not_live_to_see_is_obeyed(stage: Stage, ends: End, content: str) -> None:
    group = stage.group(ends)
    group.each_poll = lambda: group.reports or stage.folder.stop_request.write_text(content)
    with pytest.raises(RunStoppedError, match=r"stopped by .*stop-requested"):
        stage.run([group])
    assert stage.starts == 1


@pytest.mark.parametrize("ends", [RETURNED, FAILED, NODE_LOST], ids=lambda end: end.ending.name)
def test_the_own_request_to_grow_is_no_stop_where_places_are_lacking_for_a_while(stage: Stage, ends: End) -> None:
    class Hesitant(FakeCapacity):
        looks = 0

        def look(self) -> str | None:
            self.looks += 1
            return "none there" if self.looks == 1 else super().look()

    capacity = Hesitant([1, 3], free=2)
    groups = [stage.group(ends, until_asked=True), stage.group(RETURNED)]
    assert stage.run(groups, capacity, resize_check_s=0.01) is None
    assert stage.starts == 2


def test_a_request_to_stop_is_not_overwritten_by_the_wish_to_grow(stage: Stage) -> None:
    group = stage.group(RETURNED, until_asked=True, reports=50)
    group.each_poll = lambda: group.reports == 49 and stage.folder.stop_request.write_text("later") and None
    with pytest.raises(RunStoppedError, match=r"stopped by .*stop-requested"):
        stage.run([group], FakeCapacity([1, 3], free=2), resize_check_s=0.0001)
