import json
import pickle
from dataclasses import fields, replace

import pytest
from empty_store import empty_store

from morphmlp.data.quarantine import BrokenVideo, Quarantine, broken_to_plain
from morphmlp.line_file import LineFile
from morphmlp.record import Metrics, Tags
from morphmlp.tracking import RunWriter, find_run, open_run, write_waiting
from morphmlp.training.record.accounting import TimeWindow, read_windows, training_cpu_s
from morphmlp.training.record.run_events import RunEvents, read_events
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.workers.ray_record import RecordReports

NOBODY = "http://127.0.0.1:1"
VIDEO = BrokenVideo(
    video_id="v",
    path="v.mp4",
    size_bytes=10,
    mtime=None,
    stage="train",
    error="DecodeError",
    message="truncated",
    decoder="pyav",
    decoder_version="18",
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    empty_store(uri)
    return uri


@pytest.fixture
def writer(store, request):
    return RunWriter(store, open_run(store, experiment="demo", run_name=request.node.name, tags={}, params={}))


@pytest.fixture
def tags(writer, request):
    """Reads the run's tags."""
    return lambda: find_run(writer.uri, run_name=request.node.name).tags


@pytest.fixture
def started(folder):
    """Starts the record as Ray does, pickled on the way to the controller."""

    def start(writer):
        return pickle.loads(pickle.dumps(RecordReports(writer, folder, manifests=())))

    return start


def report(step, **more):
    return {"points": [(Metrics.TRAIN_LOSS, 2.0, step, 1_700_000_000_000 + step)], **more}


def lines(folder):
    return [json.loads(line) for line in folder.progress.read_text().splitlines()]


def notes(folder):
    return [note for line in lines(folder) for note in line["notes"]]


def test_reports_reach_the_record_and_the_driver(started, writer, folder, tags):
    record = started(writer)
    record.after_report(None, [report(1, facts={"morphmlp.precision": "fp32"}), {}], None)
    record.after_report(None, [report(2, stopped="SIGTERM", notes=["hello"]), {}], None)
    write_waiting(folder.record_waiting, writer)  # waits for the record's thread
    history = writer.history([Metrics.TRAIN_LOSS])
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 2.0)]
    assert tags()["morphmlp.precision"] == "fp32"
    assert [line["stopped"] for line in lines(folder)] == [None, "SIGTERM"]
    assert notes(folder) == ["hello"]


def test_reports_that_a_checkpoint_carries_are_taken_in_where_the_record_lacks_them(started, writer, folder):
    before = [report(step, name=f"a-{step}", broken=[broken_to_plain(VIDEO)]) for step in (1, 2, 3)]
    record = started(writer)
    record.after_report(None, [before[0], {}], None)  # the others were on their way
    record._record.close(0.0)
    record = started(writer)
    earlier = [json.dumps(one) for one in before]
    record.after_report(None, [report(4, name="b-1", earlier=earlier), {}], None)
    record.after_report(None, [report(5, name="b-2"), {}], None)
    record._record.close(0.0)
    started(writer).after_report(None, [report(5, name="c-1", earlier=earlier)], None)  # killed at once, and once more
    write_waiting(folder.record_waiting, writer)
    assert [point.step for point in writer.history([Metrics.TRAIN_LOSS])] == [1, 2, 3, 4, 5]
    assert [line["name"] for line in lines(folder) if "name" in line] == ["a-1", "a-2", "a-3", "b-1", "b-2", "c-1"]
    assert [video.video_id for video in Quarantine.read(folder.quarantine).videos()] == [VIDEO.video_id]


def test_broken_videos_that_a_killed_worker_had_no_time_to_report_reach_the_quarantine_at_the_next_start(
    started, writer, folder
):
    others = [replace(VIDEO, video_id=name) for name in ("w", "x")]
    found = LineFile(folder.broken_found)
    for video in others:
        found.append(json.dumps(broken_to_plain(video)))
    record = started(writer)
    record.after_report(None, [report(3, broken=[broken_to_plain(VIDEO)]), {}], None)
    record.after_report(None, [report(4), {"broken": [broken_to_plain(others[0])]}], None)
    record._record.close(0.0)
    assert [video.video_id for video in Quarantine.read(folder.quarantine).videos("train")] == ["w", "x", "v"]


def test_a_window_holds_the_cpu_time_of_all_workers(started, writer, folder):
    record = started(writer)
    window = dict.fromkeys((field.name for field in fields(TimeWindow)), 0.0) | {"workers": 2, "decode_cpu_s": 3.0}
    record.after_report(None, [report(2, window=window, cpu_s=2.0), {"cpu_s": 1.5}], None)
    record.after_report(None, [{"stopped": "x"}, {"stopped": "x"}], None)
    assert [line.worker_cpu_s for line in read_windows(folder.progress)] == [3.5]
    assert training_cpu_s(read_windows(folder.progress)) == 6.5


def test_reports_without_a_store_wait_for_the_driver(started, writer, folder):
    record = started(RunWriter(NOBODY, writer.run_id))
    for step in range(3):
        record.after_report(None, [report(step)], None)
    record._record.close(0.0)  # the controller's process ends
    write_waiting(folder.record_waiting, writer)
    assert [point.step for point in writer.history([Metrics.TRAIN_LOSS])] == [0, 1, 2]


def test_events_are_in_the_folder_in_order_and_in_the_record(started, writer, folder, tags):
    command = RunEvents(folder.events)
    command.add("continued by a second command")
    record = started(writer)
    record.after_exception(None, {1: RuntimeError("no room")})
    command.add("a node that decodes is gone", ingest_lost=True)
    record.after_exception(None, {1: RuntimeError("out of memory")})
    write_waiting(folder.record_waiting, writer)
    events = read_events(folder.events)
    assert [(event.number, event.text, event.ingest_lost) for event in events] == [
        (1, "continued by a second command", False),
        (2, "worker 1 failed: RuntimeError: no room", False),
        (3, "a node that decodes is gone", True),
        (4, "worker 1 failed: RuntimeError: out of memory", False),
    ]
    tag = tags()[Tags.EVENTS]
    assert tag == f"4; last {events[-1].time}: worker 1 failed: RuntimeError: out of memory"
    earlier = [f"{event.time} {event.text}" for event in events[2::-1]]
    assert tags()[Tags.EARLIER_EVENTS].splitlines() == earlier
    assert [point.value for point in writer.history([Metrics.RUN_EVENTS])] == [2, 4]
    assert notes(folder) == [events[1].text, events[3].text]


def test_a_failure_that_ray_tells_again_and_again_is_one_event(started, writer, folder):
    record = started(writer)
    for _ in range(3):
        record.after_exception(None, {0: ValueError("x")})
    assert [event.text for event in read_events(folder.events)] == ["worker 0 failed: ValueError: x"]


def test_a_quarantine_that_can_not_be_written_now_is_written_later(started, writer, folder):
    record = started(writer)
    folder.quarantine.mkdir()
    record.after_report(None, [report(1, broken=[broken_to_plain(VIDEO)])], None)
    assert "can't be written now" in notes(folder)[0]
    folder.quarantine.rmdir()
    record.after_report(None, [report(2)], None)
    assert [video.video_id for video in Quarantine.read(folder.quarantine).videos()] == ["v"]
