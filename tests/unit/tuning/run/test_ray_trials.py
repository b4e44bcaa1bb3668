"""Which trial is handed to Ray Tune next; nothing of Ray is started."""

import signal
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from morphmlp.errors import RunStoppedError
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers.stops import Stop, StopReason, requested_stop, write_stop_request
from morphmlp.tuning.run import ray_trial_process
from morphmlp.tuning.run.ray_trials import _ask_all_to_stop, _Trials
from morphmlp.tuning.run.trial_log import TrialLog, TrialView

PRUNED = Stop(reason=StopReason.PRUNED, detail="63.0 is in the lower half of those seen at epoch 2")
SWEEP_STOPS = Stop(reason=StopReason.SWEEP_STOPS, detail="SIGTERM")


@pytest.fixture
def queue(tmp_path):
    """Three trials that have not started."""
    entries = []
    for number in (1, 2, 3):
        path = tmp_path / f"t{number}" / "trial.jsonl"
        TrialLog(path)
        job = SimpleNamespace(number=number)
        entries.append(SimpleNamespace(job=job, view=TrialView(name=f"t{number}", path=path)))
    waiting, ended = iter(entries), []

    def end(entry, end):
        entry.view.end = end
        ended.append(entry)

    return SimpleNamespace(entries=entries, next=lambda: next(waiting, None), end=end, ended=ended)


def handed_out(queue, given_up):
    trials = _Trials(queue, SimpleNamespace(given_up=given_up.get))
    handed = []
    while (found := trials.suggest(str(len(handed)))) != Searcher.FINISHED:
        handed.append(found["job"].number)
    return handed


def test_a_trial_whose_point_was_given_up_does_not_start_and_ends_as_stopped(queue):
    assert handed_out(queue, {2: "another seed was behind"}) == [1, 3]
    ends = [entry.view.end for entry in queue.entries]
    assert (ends[0], ends[2]) == (None, None)
    assert (ends[1].state, ends[1].error, ends[1].wall_s, ends[1].cpu_s) == (
        "stopped",
        "another seed was behind",
        0,
        0,
    )
    assert queue.ended == [queue.entries[1]]


def test_where_all_that_are_left_were_given_up_the_sweep_ends(queue):
    assert handed_out(queue, dict.fromkeys((1, 2, 3), "behind")) == []
    assert all(entry.view.end.state == "stopped" for entry in queue.entries)


def test_a_sweep_that_is_asked_to_end_starts_no_more_trials(queue):
    trials = _Trials(queue, SimpleNamespace(given_up={}.get))
    assert trials.suggest("a")["job"].number == 1
    lines = []
    trials.end(signal.SIGTERM, SimpleNamespace(line=lines.append))
    assert trials.suggest("b") == Searcher.FINISHED
    assert lines[0].startswith("SIGTERM: the trials stop after this step")


def test_only_trials_at_work_are_asked_to_stop_and_no_other_request_is_lost(tmp_path):
    def entry(name, *, end=None, asked=None):
        folder = tmp_path / name
        if name != "waiting":
            folder.mkdir()
        if asked is not None:
            write_stop_request(folder / "stop-requested", asked)
        return SimpleNamespace(job=SimpleNamespace(folder=RunFolder(folder)), view=SimpleNamespace(end=end))

    entries = [entry("done", end="finished"), entry("behind", asked=PRUNED), entry("works")]
    _ask_all_to_stop(SimpleNamespace(entries=[*entries, entry("waiting")]), SWEEP_STOPS)
    asked = {path.parent.name: requested_stop(path) for path in tmp_path.glob("*/stop-requested")}
    assert asked == {"behind": PRUNED, "works": SWEEP_STOPS}


def test_a_trial_that_stops_with_its_sweep_has_not_ended(tmp_path, monkeypatch):
    """So the sweep continues it when it is resumed."""
    job = SimpleNamespace(
        folder=RunFolder(tmp_path / "t1"),
        working_folder=str(tmp_path),
        uri="",
        log=tmp_path / "t1" / "trial.jsonl",
        max_minutes=None,
    )

    def stop(*_):
        write_stop_request(tmp_path / "t1" / "stop-requested", SWEEP_STOPS)
        raise RunStoppedError("stopped", signum=signal.SIGINT)

    monkeypatch.setattr(ray_trial_process, "_train_and_test", stop)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    ray_trial_process.run_trial({"job": job}, placement=None)
    view = TrialView(name="t1", path=job.log)
    view.read_silently()
    assert view.end is None
