import math
import shutil

import mlflow
import pytest

from morphmlp.errors import StoreAwayError, TrackingError
from morphmlp.line_file import WaitingLines
from morphmlp.record import MetricPoint
from morphmlp.tracking import BufferedWriter, RetryPolicy, RunWriter, end_early, find_run, write_waiting

NOBODY = "http://127.0.0.1:1"
"""A port that nothing listens on."""


@pytest.fixture
def notes():
    return []


@pytest.fixture
def buffered(writer, tmp_path, notes):
    """Starts buffered writers on one file and stops them after the test."""
    started = []

    def start(to=writer, path=tmp_path / "waiting.jsonl"):
        started.append(BufferedWriter(to, path, log=notes.append, longest_pause_s=0.01))
        return started[-1]

    yield start
    for one in started:
        one.close(0.0)


def steps(writer, key="train/loss"):
    return [point.step for point in writer.history([key])]


def tags(writer, run_name):
    return find_run(writer.uri, run_name=run_name).tags


def test_points_and_tags_arrive_and_the_file_is_empty_then(writer, buffered, points, tmp_path, request):
    record = buffered()
    record.metrics(points(range(3)))
    record.tags({"a": "1"})
    record.metrics(points(range(3, 5)))
    assert record.close(30)
    assert steps(writer) == [0, 1, 2, 3, 4]
    assert tags(writer, request.node.name)["a"] == "1"
    assert (tmp_path / "waiting.jsonl").read_bytes() == b""


def test_a_store_that_does_not_answer_holds_nobody_up(writer, buffered, spoiled, points):
    spoiled.open.clear()
    record = buffered()
    record.metrics(points([0]))
    assert spoiled.waiting.wait(30)
    record.metrics(points([1]))
    record.tags({"a": "1"})
    assert not spoiled.open.is_set()  # both came back while the first write still waits
    assert spoiled.sent == []
    spoiled.open.set()
    assert record.flush(30)
    assert steps(writer) == [0, 1]


def test_a_store_that_is_back_gets_everything_once_and_in_order(writer, buffered, spoiled, points, notes):
    spoiled.refusals = 3
    record = buffered()
    for step in range(20):
        record.metrics(points([step]))
    assert record.flush(30)
    assert spoiled.sent == [("train/loss", step) for step in range(20)]
    assert steps(writer) == list(range(20))
    assert len(notes) == 2
    assert "connection refused; training continues, the record waits in" in notes[0]
    assert "takes the record again" in notes[1]


def test_a_run_that_is_deleted_meanwhile_is_told_with_the_way_back_and_gets_everything_then(
    writer, buffered, points, notes
):
    record = buffered()
    record.metrics(points([0]))
    assert record.flush(30)
    client = mlflow.MlflowClient(writer.uri)
    client.delete_run(writer.run_id)
    record.metrics(points([1]))
    assert not record.flush(1)  # training continues
    client.restore_run(writer.run_id)
    record.metrics(points([2]))
    assert record.flush(30)
    assert steps(writer) == [0, 1, 2]
    assert f"the run {writer.run_id} was deleted there; bring it back by `" in notes[0]
    assert len(notes) == 2


def test_a_write_whose_answer_got_lost_is_not_sent_again(writer, buffered, spoiled, points):
    spoiled.lost_answers = 1
    record = buffered()
    record.metrics(points(range(3)))
    record.metrics(points(range(3, 6)))
    assert record.flush(30)
    assert spoiled.sent == [("train/loss", step) for step in range(6)]
    assert steps(writer) == list(range(6))


def test_what_a_killed_process_left_is_written_by_the_next(writer, buffered, points, tmp_path):
    killed = buffered(RunWriter(NOBODY, writer.run_id))
    killed.metrics(points(range(4)))
    shutil.copy(tmp_path / "waiting.jsonl", tmp_path / "left.jsonl")  # what is on disk at this moment
    following = buffered(writer, tmp_path / "left.jsonl")
    following.metrics(points(range(2, 6), value=2.0))  # from the checkpoint at step 2 on
    assert following.flush(30)
    history = writer.history(["train/loss"])
    assert [(point.step, point.value) for point in history] == [(s, 1.0) for s in range(4)] + [(4, 2.0), (5, 2.0)]


def test_the_driver_writes_what_the_controller_left(writer, buffered, points, tmp_path):
    controller = buffered(RunWriter(NOBODY, writer.run_id))
    controller.metrics(points(range(4)))
    assert not controller.close(0.0)
    write_waiting(tmp_path / "waiting.jsonl", writer)
    assert steps(writer) == [0, 1, 2, 3]
    write_waiting(tmp_path / "waiting.jsonl", writer)
    write_waiting(tmp_path / "never-written.jsonl", writer)
    assert not list(tmp_path.glob("never-written*"))
    assert steps(writer) == [0, 1, 2, 3]


def test_a_driver_that_wrote_before_doubles_no_point_of_a_controller_that_ended_before_its_file_did(
    writer, buffered, points, tmp_path
):
    writer.metrics(points([0], key="model/gmacs"))  # before training: the store has no losses then
    RunWriter(writer.uri, writer.run_id).metrics(points(range(3)))
    controller = buffered(RunWriter(NOBODY, writer.run_id))
    controller.metrics(points(range(2, 4), value=2.0))  # from the checkpoint at step 2 on
    assert not controller.close(0.0)
    write_waiting(tmp_path / "waiting.jsonl", writer)
    history = writer.history(["train/loss"])
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]


def test_what_came_while_an_earlier_controller_held_the_file_is_there_for_who_writes_next(
    writer, buffered, tmp_path, request
):
    path = tmp_path / "waiting.jsonl"
    earlier = WaitingLines(path)  # ends slowly, with everything sent
    assert earlier.oldest() == []
    controller = buffered()
    controller.tags({"event": "ended early"})
    assert path.read_text() == '{"tags": {"event": "ended early"}}\n'  # at once: it may be killed now
    assert not controller.close(0.0)
    earlier.close()
    write_waiting(path, writer)
    assert tags(writer, request.node.name)["event"] == "ended early"


def test_two_processes_never_write_one_record_at_once(writer, buffered, spoiled, points, tmp_path):
    spoiled.open.clear()
    controller = buffered()
    controller.metrics(points([0]))
    assert spoiled.waiting.wait(30)
    with pytest.raises(TrackingError, match=r"waiting\.jsonl: another process still writes this record"):
        write_waiting(tmp_path / "waiting.jsonl", writer, limit_s=0.0)
    spoiled.open.set()
    write_waiting(tmp_path / "waiting.jsonl", writer)
    assert spoiled.sent == [("train/loss", 0)]


def test_an_end_without_the_store_keeps_the_rest_and_says_so(writer, buffered, points, tmp_path, notes):
    record = buffered(RunWriter(NOBODY, writer.run_id))
    record.metrics(points([7]))
    assert not record.close(0.0)
    assert notes[-1] == (
        f"the tracking store hasn't got the complete record; the rest waits in {tmp_path / 'waiting.jsonl'}"
    )
    assert (tmp_path / "waiting.jsonl").stat().st_size > 0


def test_nan_and_infinity_survive_the_wait(writer, buffered, tmp_path):
    waiting = buffered(RunWriter(NOBODY, writer.run_id))
    waiting.metrics([MetricPoint("x", value, step, 1) for step, value in enumerate([math.nan, math.inf, 0.5])])
    waiting.close(0.0)
    write_waiting(tmp_path / "waiting.jsonl", writer)
    nan, infinite, half = (point.value for point in writer.history(["x"]))
    assert math.isnan(nan)
    assert infinite > 1e300
    assert half == 0.5


def test_of_tags_the_last_counts_and_of_points_the_first(writer, buffered, points, tmp_path, request):
    waiting = buffered(RunWriter(NOBODY, writer.run_id))
    for value in (1.0, 2.0):
        waiting.metrics(points([3], value=value))
        waiting.tags({"a": str(value), f"only-{value}": "x"})
    waiting.close(0.0)
    write_waiting(tmp_path / "waiting.jsonl", writer)
    assert [point.value for point in writer.history(["train/loss"])] == [1.0]
    assert {"a": "2.0", "only-1.0": "x", "only-2.0": "x"}.items() <= tags(writer, request.node.name).items()


def test_a_file_that_holds_something_else_is_named(writer, tmp_path):
    (tmp_path / "waiting.jsonl").write_text("these are notes\n")
    with pytest.raises(TrackingError, match=r"waiting\.jsonl: 'these are notes' isn't a line of a record"):
        write_waiting(tmp_path / "waiting.jsonl", writer)


def test_a_driver_waits_for_the_store_and_says_so_once(writer, spoiled, points, notes, tmp_path):
    spoiled.refusals = 2
    patience = RetryPolicy(log=notes.append, kept_in=tmp_path, longest_pause_s=0.01)
    patient = RunWriter(writer.uri, writer.run_id, retry=patience)
    patient.metrics(points(range(3)))
    assert steps(writer) == [0, 1, 2]
    assert len(notes) == 2
    assert f"waiting up to 10 minutes for it; the run's files are safe in {tmp_path}" in notes[0]
    assert "answers again" in notes[1]


def test_a_driver_that_has_waited_long_enough_says_how_the_record_is_completed(writer, spoiled, points, tmp_path):
    patience = RetryPolicy(log=lambda _: None, kept_in=tmp_path, limit_s=0.0)
    patient = RunWriter(writer.uri, writer.run_id, retry=patience)
    spoiled.refusals = 1
    with pytest.raises(TrackingError, match=r"everything is on disk in .* the same command completes the record"):
        patient.metrics(points([0]))
    patient.metrics(points([0]))
    assert steps(writer) == [0]


def test_a_refusal_is_not_waited_for(writer, points, tmp_path, notes):
    patient = RunWriter(writer.uri, "0badf00d", retry=RetryPolicy(log=notes.append, kept_in=tmp_path))
    with pytest.raises(TrackingError, match=r"0badf00d.*the same command completes the record"):
        patient.metrics(points([0]))
    assert notes == []


def test_an_early_end_writes_what_waits_and_the_status(writer, buffered, points, tmp_path, request):
    waiting = buffered(RunWriter(NOBODY, writer.run_id))
    waiting.metrics(points([0]))
    waiting.close(0.0)
    assert end_early(writer, "KILLED", tmp_path / "waiting.jsonl") is None
    assert steps(writer) == [0]
    assert find_run(writer.uri, run_name=request.node.name).status == "KILLED"


def test_an_early_end_without_the_store_waits_for_nothing(points, tmp_path, notes):
    patience = RetryPolicy(log=notes.append, kept_in=tmp_path)
    fault = end_early(RunWriter(NOBODY, "any", retry=patience), "FAILED", tmp_path / "waiting.jsonl")
    assert isinstance(fault, StoreAwayError)
    assert notes == []
