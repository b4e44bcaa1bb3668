"""What a worker reports: means over a window, each broken video once, plain values only."""

import json
import math
import time
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import tiny_training as tiny
import torch

from morphmlp.data.quarantine import broken_from_plain
from morphmlp.data.stream.plan import Cursor
from morphmlp.line_file import LineFile, read_json_lines
from morphmlp.record import MetricPoint, Metrics
from morphmlp.tasks.scores import TOP1, TOP5
from morphmlp.training.loop import step_clock
from morphmlp.training.loop.loop import RoundSummary, StepSummary
from morphmlp.training.loop.step_clock import StepClock
from morphmlp.training.record import reporter
from morphmlp.training.record.accounting import TimeWindow
from morphmlp.training.record.report import Report, broken_of, points_of
from morphmlp.training.record.reporter import Reporter

GMACS = 0.5
"""Of one view, in these tests."""


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """The clock of the host; it advances with the steps, and when a test says so."""
    moment = SimpleNamespace(s=100.0)
    clock = SimpleNamespace(perf_counter=lambda: moment.s, process_time=lambda: moment.s, time=time.time)
    monkeypatch.setattr(reporter, "time", clock)
    monkeypatch.setattr(step_clock, "time", clock)
    return moment


def step_summary(step, *, loss_sum=6.0, clips=4, num_broken=0, broken=(), skipped=False, times=None, **totals):
    return StepSummary(
        step=step,
        epoch=step // 2,
        lr=0.1 * (step + 1),
        times=times or StepClock(tiny.CPU).end(),
        broken=tuple(map(tiny.broken_video, broken)),
        totals=tiny.totals_of(loss_sum, clips, num_broken, skipped, **totals),
        grad_norm=torch.tensor(float(step + 1)),
    )


class Run:
    """A worker that takes steps, and the host's clock with it."""

    def __init__(self, now, *, first=True):
        self.now, self.clock = now, StepClock(tiny.CPU)
        self.reporter = Reporter(recipe=tiny.recipe_of(), first=first, gmacs_per_view=GMACS)

    def step(self, number, *, wait_s=0.0, compute_s=1.0, all_reduce_s=0.0, **numbers):
        self.now.s += wait_s
        self.clock.begin(wait_s)
        self.now.s += compute_s
        self.clock.handed_over()
        self.now.s += all_reduce_s
        self.clock.reduced()
        self.reporter.add_step(step_summary(number, times=self.clock.end(), **numbers))


@pytest.fixture
def run(now):
    """The first worker, whose first batch has come at once."""
    return Run(now)


def reporter_of(first=True):
    return Reporter(recipe=tiny.recipe_of(), first=first, gmacs_per_view=GMACS)


def values_of(report):
    return {point.key: point.value for point in points_of(report)}


def test_points_of_a_window_are_means_weighted_by_clips(run):
    run.step(0, compute_s=1.5, loss_sum=6.0, clips=4, decode_cpu_s=1.0)
    run.step(1, wait_s=0.5, compute_s=0.75, all_reduce_s=0.25, loss_sum=2.0, clips=1, decode_cpu_s=1.5)
    run.now.s += 1.0
    assert values_of(run.reporter.take()) == pytest.approx(
        {
            Metrics.TRAIN_LOSS: 8 / 5,
            Metrics.TRAIN_LR: 0.2,
            Metrics.TRAIN_GRAD_NORM: 1.5,
            Metrics.TRAIN_STEP_S: 1.5,
            Metrics.TRAIN_DATA_WAIT_S: 0.25,
            Metrics.TRAIN_COMPUTE_S: 1.125,
            Metrics.TRAIN_ALL_REDUCE_S: 0.125,
            Metrics.TRAIN_OTHER_S: 0.5,
            Metrics.TRAIN_CLIPS_PER_S: 5 / 4,
            Metrics.TRAIN_GMACS_PER_S: 3 * GMACS * 5 / 4,
            Metrics.TRAIN_CPU_S_PER_CLIP: 0.5,
        }
    )


def test_broken_videos_are_written_down_before_they_are_reported(run, tmp_path):
    run.reporter.broken_found = LineFile(tmp_path / "broken")
    run.step(0, broken=["a", "b"])
    run.reporter.add_validation(tiny.counts_of(1, top1=1, top5=1, loss_sum=1.0), [tiny.broken_video("c")], at=1)
    written = list(map(broken_from_plain, read_json_lines(tmp_path / "broken")))
    assert [video.video_id for video in written] == ["va", "vb", "vc"]
    assert broken_of(run.reporter.take()) == written
    run.step(1, broken=["b", "d"])  # the next epoch meets them again
    assert [line["video_id"] for line in read_json_lines(tmp_path / "broken")] == ["va", "vb", "vc", "vd"]


def test_time_until_the_first_batch_is_the_start_and_slows_no_step(run):
    run.reporter.add_start(3, 0)
    run.now.s += 2.0
    assert values_of(run.reporter.take()) == {Metrics.TRAIN_WORKERS: 3}
    run.now.s += 5.0
    run.step(0, wait_s=4.0, compute_s=1.0)
    run.step(1, wait_s=1.0, compute_s=1.0)
    first = run.reporter.take()
    values = values_of(first)
    assert values[Metrics.TRAIN_START_S] == 9.0
    assert (values[Metrics.TRAIN_DATA_WAIT_S], values[Metrics.TRAIN_STEP_S]) == (0.5, 1.5)
    assert values[Metrics.TRAIN_CLIPS_PER_S] == 8 / 3
    run.step(2, wait_s=1.0, compute_s=1.0)
    second = run.reporter.take()
    assert Metrics.TRAIN_START_S not in values_of(second)
    windows = [TimeWindow.from_plain(report["window"]) for report in (first, second)]
    assert [(window.start_s, window.wait_s, window.workers) for window in windows] == [(9.0, 1.0, 3), (0.0, 1.0, 3)]


def test_a_window_has_the_cpu_time_of_its_node(run, monkeypatch):
    busy = iter([50.0, 57.5, 60.0])
    monkeypatch.setattr(reporter, "node_busy_s", lambda: next(busy))
    run.reporter = reporter_of()
    run.step(0)
    assert [run.reporter.take()["window"]["node_cpu_s"] for _ in range(2)] == [7.5, 2.5]


def test_time_beside_the_steps_is_told(run):
    """A report at the end of an epoch, after its validation, has no step of its own."""
    run.step(0)
    run.step(1)
    run.reporter.take()
    run.now.s += 7.0
    validation = TimeWindow.from_plain(run.reporter.take()["window"])
    assert (validation.steps, validation.step, validation.epoch) == (0, 2, 1)
    assert (validation.wall_s, validation.other_s) == (7.0, 7.0)
    run.step(2)
    run.now.s += 1.0
    values = values_of(run.reporter.take())
    assert values[Metrics.TRAIN_OTHER_S] == 8.0
    assert values[Metrics.TRAIN_CLIPS_PER_S] == 4 / 9


def test_every_second_is_in_some_window(run):
    began = run.now.s
    run.reporter.add_start(2, 4)
    plain = []
    for number in range(4, 6):
        run.now.s += 0.5
        plain.append(run.reporter.take()["window"])
        run.step(number, wait_s=0.25, compute_s=2.0, all_reduce_s=0.125)
    plain += [run.reporter.take()["window"], run.reporter.take()["window"]]
    windows = [TimeWindow.from_plain(window) for window in plain]
    assert sum(window.wall_s for window in windows) == run.now.s - began
    parts = ("start_s", "wait_s", "compute_s", "all_reduce_s", "other_s")
    assert sum(getattr(window, part) for window in windows for part in parts) == run.now.s - began
    assert [window.epoch for window in windows] == [3, 3, 3, 3]
    assert sum(window.steps for window in windows) == 2


def test_a_skipped_step_is_counted_and_spoils_no_mean(run):
    run.step(0, loss_sum=6.0, clips=4)
    run.reporter.add_step(
        replace(step_summary(1, loss_sum=0.0, clips=0, skipped=True), grad_norm=torch.tensor(torch.nan))
    )
    values = values_of(run.reporter.take())
    assert values[Metrics.TRAIN_LOSS] == 1.5
    assert values[Metrics.TRAIN_GRAD_NORM] == 1.0
    assert values[Metrics.TRAIN_SKIPPED_STEPS] == 1
    run.step(2)
    assert Metrics.TRAIN_SKIPPED_STEPS not in values_of(run.reporter.take())


def test_where_all_steps_are_skipped_there_is_no_loss(run):
    run.step(0, loss_sum=0.0, clips=0, skipped=True)
    report = run.reporter.take()
    assert not {Metrics.TRAIN_LOSS, Metrics.TRAIN_GRAD_NORM, Metrics.TRAIN_CPU_S_PER_CLIP} & values_of(report).keys()
    assert values_of(report)[Metrics.TRAIN_CLIPS_PER_S] == 0
    assert math.isnan(report["progress"]["loss"])


def test_the_number_of_workers_is_a_point_where_they_start():
    reporter = reporter_of()
    reporter.add_start(3, 8)
    (point,) = points_of(reporter.take())
    assert (point.key, point.value, point.step) == (Metrics.TRAIN_WORKERS, 3, 8)


def test_points_carry_the_number_of_steps_taken_and_the_time(run):
    run.step(4)
    points = points_of(run.reporter.take())
    assert {point.step for point in points} == {5}
    assert all(abs(point.timestamp_ms - time.time() * 1000) < 60_000 for point in points)


def test_progress_tells_where_the_run_is(run):
    run.step(1)
    run.reporter.take()
    run.step(2, wait_s=0.5, compute_s=1.5)
    assert run.reporter.take()["progress"] == pytest.approx(
        {"step": 3, "total_steps": 6, "epoch": 2, "loss": 1.5, "clips_per_s": 2.0, "data_wait": 0.25}
    )


def test_the_next_report_starts_afresh(run):
    run.step(0, broken=[3], concealed=1, retried=1)
    run.reporter.take()
    report = run.reporter.take()
    assert (report["broken"], report["points"]) == ([], [])
    assert "progress" not in report


def test_only_the_first_worker_reports_points_and_progress_and_each_its_broken_videos():
    reporter = reporter_of(first=False)
    reporter.add_step(step_summary(0, broken=[3, 5]))
    reporter.add_round(RoundSummary(step=1, totals=tiny.totals_of(1.0, 1.0)))
    report = reporter.take()
    assert set(report) == {"broken", "cpu_s"}
    assert broken_of(report) == [tiny.broken_video(3), tiny.broken_video(5)]


def test_a_window_without_a_clip_has_a_loss_of_zero_and_no_error(run):
    run.step(0, loss_sum=0.0, clips=0, num_broken=2)
    assert values_of(run.reporter.take())[Metrics.TRAIN_LOSS] == 0


def test_the_loss_of_an_epoch_goes_by_the_number_of_epochs():
    reporter = reporter_of()
    reporter.add_round(RoundSummary(step=4, totals=tiny.totals_of(9.0, 6.0)))
    (point,) = points_of(reporter.take())
    assert (point.key, point.value, point.step) == (Metrics.TRAIN_EPOCH_LOSS, 1.5, 2)


def test_validation_adds_scores_and_its_broken_videos():
    reporter = reporter_of()
    counts = tiny.counts_of(4, top1=1, top5=3, loss_sum=2.0)
    reporter.add_validation(counts, [tiny.broken_video(9)], at=2)
    report = reporter.take()
    assert values_of(report) == {
        TOP1.val_metric: 25.0,
        TOP5.val_metric: 75.0,
        Metrics.VAL_LOSS: 0.5,
        Metrics.VAL_NUM_VIDEOS: 4,
    }
    assert {point.step for point in points_of(report)} == {2}
    assert broken_of(report) == [tiny.broken_video(9)]


def test_a_validation_without_a_video_has_no_scores():
    reporter = reporter_of()
    reporter.add_validation(tiny.counts_of(0), [], at=1)
    assert values_of(reporter.take()) == {Metrics.VAL_NUM_VIDEOS: 0}


def test_a_report_is_plain_values_that_come_back_from_json(run):
    run.step(0, broken=[3])
    report = run.reporter.take()
    again = json.loads(json.dumps(report))
    assert points_of(again) == points_of(report)
    assert broken_of(again) == broken_of(report)
    assert TimeWindow.from_plain(again["window"]) == TimeWindow.from_plain(report["window"])
    assert all(isinstance(point, MetricPoint) for point in points_of(again))


def test_a_report_without_points_and_videos_has_none():
    assert points_of(Report(notes=["x"])) == []
    assert broken_of(Report()) == []


def test_frames_that_stand_in_for_damaged_ones_and_videos_read_again_are_counted_once(run):
    run.step(0, concealed=2)
    run.step(1, concealed=3, retried=1)
    values = values_of(run.reporter.take())
    assert (values[Metrics.TRAIN_CONCEALED], values[Metrics.TRAIN_RETRIED]) == (5, 1)
    run.step(2)
    assert not {Metrics.TRAIN_CONCEALED, Metrics.TRAIN_RETRIED} & values_of(run.reporter.take()).keys()


def test_cpu_time_of_the_process_is_told_once_and_from_its_start(now):
    worker = Run(now, first=False)
    now.s += 20.0
    assert worker.reporter.take()["cpu_s"] == 120.0  # the process had used 100 before
    now.s += 5.0
    assert worker.reporter.take()["cpu_s"] == 5.0


def test_decoding_of_validation_videos_is_part_of_a_workers_cpu_time(now):
    worker = Run(now, first=False)
    worker.reporter.take()
    plans = tiny.recipe_of().plan.micro_batches(Cursor(), worker=0, num_workers=1)
    batches = [replace(tiny.micro_batch_of(plan), cpu_s=1.5) for plan in islice(plans, 2)]
    assert list(worker.reporter.validation_clips(batches)) == batches
    assert [worker.reporter.take()["cpu_s"] for _ in range(2)] == [3.0, 0.0]


def names_of(carried):
    return [json.loads(report)["name"] for report in carried]


def test_a_checkpoint_carries_what_is_not_reported_yet_under_the_name_that_it_will_have(run):
    run.step(0, broken=[3])
    reported = run.reporter.take()
    run.step(1)
    run.reporter.add_validation(tiny.counts_of(4, top1=1, top5=3, loss_sum=2.0), [tiny.broken_video(9)], at=1)
    earlier, pending = map(json.loads, run.reporter.unrecorded())
    assert points_of(earlier) == points_of(reported)
    assert broken_of(earlier) == broken_of(reported)
    later = run.reporter.take()  # as if nobody had looked
    assert values_of(pending) == values_of(later)
    assert {point.step for point in points_of(pending)} == {1, 2}
    assert broken_of(pending) == broken_of(later) == [tiny.broken_video(9)]
    assert (earlier["name"], pending["name"]) == (reported["name"], later["name"])
    assert pending.keys() & {"notes", "progress", "stopped"} == set()


def test_a_checkpoint_carries_reports_of_workers_before_until_they_are_surely_recorded(run):
    first = reporter_of()
    first.take()
    carried = first.unrecorded()
    run.reporter.add_start(1, 2, carried)
    assert names_of(run.reporter.unrecorded())[:2] == names_of(carried)  # killed before it could report at all
    assert run.reporter.take()["earlier"] == carried
    assert "earlier" not in run.reporter.take()
    assert names_of(run.reporter.unrecorded())[:2] == names_of(carried)
    for _ in range(100):
        run.reporter.take()
    assert not set(names_of(run.reporter.unrecorded())) & set(names_of(carried))
    assert len(run.reporter.unrecorded()) < 100


def test_no_two_reports_of_a_run_have_one_name(run):
    again = reporter_of()
    names = [reporter.take()["name"] for reporter in (run.reporter, again) for _ in range(3)]
    assert len(set(names)) == 6
