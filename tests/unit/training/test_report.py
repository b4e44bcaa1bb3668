"""What a worker reports: means over a window, each broken video once, plain values only."""

import json
import time

import pytest
import tiny_training as tiny
import torch

from morphmlp.metrics import ScoreCounts
from morphmlp.record import MetricPoint, Metrics
from morphmlp.training.loop import EpochSummary, StepSummary
from morphmlp.training.report import Report, Reporter, broken_of, points_of


def step_summary(
    step, *, loss_sum=6.0, clips=4, num_broken=0, broken=(), step_s=0.5, data_wait_s=0.1, retried=0, concealed=0
):
    return StepSummary(
        step=step,
        epoch=step // 2,
        lr=0.1 * (step + 1),
        step_s=step_s,
        data_wait_s=data_wait_s,
        broken=tuple(map(tiny.broken_video, broken)),
        concealed=concealed,
        retried=retried,
        totals=torch.tensor([loss_sum, float(clips), float(num_broken)]),
        grad_norm=torch.tensor(float(step + 1)),
    )


def reporter_of(first=True):
    return Reporter(recipe=tiny.recipe_of(), first=first)


def values_of(report):
    return {point.key: point.value for point in points_of(report)}


def test_points_of_a_window_are_means_weighted_by_clips():
    reporter = reporter_of()
    reporter.add_step(step_summary(0, loss_sum=6.0, clips=4, step_s=0.5, data_wait_s=0.1))
    reporter.add_step(step_summary(1, loss_sum=2.0, clips=1, step_s=1.5, data_wait_s=0.3))
    assert values_of(reporter.take()) == pytest.approx(
        {
            Metrics.TRAIN_LOSS: 8 / 5,
            Metrics.TRAIN_LR: 0.2,
            Metrics.TRAIN_GRAD_NORM: 1.5,
            Metrics.TRAIN_STEP_S: 1.0,
            Metrics.TRAIN_DATA_WAIT_S: 0.2,
            Metrics.TRAIN_CLIPS_PER_S: 2.5,
        }
    )


def test_points_carry_the_number_of_steps_taken_and_the_time():
    reporter = reporter_of()
    reporter.add_step(step_summary(4))
    points = points_of(reporter.take())
    assert {point.step for point in points} == {5}
    assert all(abs(point.timestamp_ms - time.time() * 1000) < 60_000 for point in points)


def test_progress_tells_where_the_run_is():
    reporter = reporter_of()
    reporter.add_step(step_summary(2))
    assert reporter.take()["progress"] == pytest.approx(
        {"step": 3, "total_steps": 6, "epoch": 2, "loss": 1.5, "clips_per_s": 8.0, "data_wait": 0.2}
    )


def test_the_next_report_starts_afresh():
    reporter = reporter_of()
    reporter.add_step(step_summary(0, broken=[3]))
    reporter.take()
    assert reporter.take() == {"broken": [], "concealed": 0, "retried": 0, "points": []}
    assert reporter.broken_videos() == 0


def test_only_the_first_worker_reports_points_and_progress_and_each_its_broken_videos():
    reporter = reporter_of(first=False)
    reporter.add_step(step_summary(0, broken=[3, 5]))
    reporter.add_epoch(EpochSummary(epoch=0, step=1, totals=torch.tensor([1.0, 1.0, 0.0])))
    report = reporter.take()
    assert set(report) == {"broken", "concealed", "retried"}
    assert broken_of(report) == [tiny.broken_video(3), tiny.broken_video(5)]


def test_broken_videos_of_all_workers_are_counted():
    reporter = reporter_of()
    reporter.add_step(step_summary(0, num_broken=2, broken=[1]))
    reporter.add_step(step_summary(1, num_broken=3))
    assert reporter.broken_videos() == 5


def test_a_window_without_a_clip_has_a_loss_of_zero_and_no_error():
    reporter = reporter_of()
    reporter.add_step(step_summary(0, loss_sum=0.0, clips=0, num_broken=2))
    assert values_of(reporter.take())[Metrics.TRAIN_LOSS] == 0


def test_the_loss_of_an_epoch_goes_by_the_number_of_epochs():
    reporter = reporter_of()
    reporter.add_epoch(EpochSummary(epoch=1, step=4, totals=torch.tensor([9.0, 6.0, 0.0])))
    (point,) = points_of(reporter.take())
    assert (point.key, point.value, point.step) == (Metrics.TRAIN_EPOCH_LOSS, 1.5, 2)


def test_validation_adds_scores_and_its_broken_videos():
    reporter = reporter_of()
    counts = ScoreCounts(num_videos=4, top1_hits=1, top5_hits=3, loss_sum=2.0)
    reporter.add_validation(counts, [tiny.broken_video(9)], epoch=2)
    report = reporter.take()
    assert values_of(report) == {
        Metrics.VAL_TOP1: 25.0,
        Metrics.VAL_TOP5: 75.0,
        Metrics.VAL_LOSS: 0.5,
        Metrics.VAL_NUM_VIDEOS: 4,
    }
    assert {point.step for point in points_of(report)} == {2}
    assert broken_of(report) == [tiny.broken_video(9)]


def test_a_validation_without_a_video_has_no_scores():
    reporter = reporter_of()
    reporter.add_validation(ScoreCounts(), [], epoch=1)
    assert values_of(reporter.take()) == {Metrics.VAL_NUM_VIDEOS: 0}


def test_a_report_is_plain_values_that_come_back_from_json():
    reporter = reporter_of()
    reporter.add_step(step_summary(0, broken=[3]))
    report = reporter.take()
    again = json.loads(json.dumps(report))
    assert points_of(again) == points_of(report)
    assert broken_of(again) == broken_of(report)
    assert all(isinstance(point, MetricPoint) for point in points_of(again))


def test_a_report_without_points_and_videos_has_none():
    assert points_of(Report(notes=["x"])) == []
    assert broken_of(Report()) == []


def test_frames_that_stand_in_for_damaged_ones_are_reported_once():
    reporter = reporter_of()
    reporter.add_step(step_summary(0, concealed=2))
    reporter.add_step(step_summary(1, concealed=3))
    assert reporter.take()["concealed"] == 5
    assert reporter.take()["concealed"] == 0


@pytest.mark.parametrize("loss_sum", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_found_with_its_step(loss_sum):
    reporter = reporter_of()
    reporter.add_step(step_summary(0))
    assert reporter.first_not_finite() is None
    reporter.add_step(step_summary(1, loss_sum=loss_sum))
    assert reporter.first_not_finite() == 2
