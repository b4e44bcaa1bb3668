import io
import math
from functools import partial

import numpy as np
import pytest

from morphmlp.record import MetricPoint, Metrics
from morphmlp.reporting.figures import confusion_figure, loss_figure, score_figure
from morphmlp.tasks.scores import TOP1, TOP5

NAMES = (TOP1, TOP5)


def png(figure):
    """The figure, drawn: warnings of fonts and layouts only come then."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return buffer.getvalue()


def history(key, values):
    return [MetricPoint(key, value, step, 0) for step, value in enumerate(values)]


def labels(axes):
    return axes.get_legend_handles_labels()[1]


def test_a_long_loss_curve_shows_reports_and_their_median():
    points = history(Metrics.TRAIN_LOSS, [2.0 - step / 200 for step in range(200)])
    by_step, by_epoch = (figure := loss_figure(points)).axes
    assert labels(by_step) == ["as reported", "median of 5 reports"]
    raw, median = (line.get_ydata() for line in by_step.lines)
    assert median[50] == np.median(raw[46:51])
    assert not by_epoch.lines
    png(figure)


def test_losses_by_epoch_share_axes_that_name_their_unit():
    points = history(Metrics.TRAIN_EPOCH_LOSS, [2.0, 1.0]) + history(Metrics.VAL_LOSS, [2.1, 1.2])
    axes = loss_figure(points).axes[1]
    assert labels(axes) == ["training, augmented", "validation"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "cross-entropy (nats)")


def test_validations_of_a_length_in_steps_are_drawn_by_step():
    points = history(Metrics.TRAIN_ROUND_LOSS, [2.0, 1.0]) + history(Metrics.VAL_LOSS, [2.1, 1.2])
    axes = loss_figure(points, unit="step").axes[1]
    assert (axes.get_title(), axes.get_xlabel()) == ("Loss by step", "optimiser step")
    assert labels(axes) == ["training, augmented", "validation"]
    [scores] = score_figure(history(TOP1.val_metric, [1.0]), NAMES, unit="step").axes
    assert scores.get_xlabel() == "optimiser step"


def test_points_are_drawn_in_the_order_of_their_steps():
    points = history(TOP1.val_metric, [10.0, 20.0, 30.0])[::-1]
    [line] = score_figure(points, NAMES).axes[0].lines
    assert line.get_xdata().tolist() == [0, 1, 2]


def test_the_score_figure_draws_the_test_across():
    points = history(TOP1.val_metric, [10.0]) + history(TOP5.val_metric, [50.0]) + history(TOP1.test_metric, [61.25])
    figure = score_figure(points, NAMES)
    assert "test top-1, all views: 61.2" in labels(figure.axes[0])
    assert figure.axes[0].get_ylim() == (0, 102)
    png(figure)


@pytest.mark.parametrize("draw", [loss_figure, partial(score_figure, names=NAMES)])
def test_a_run_without_points_or_with_nan_still_draws(draw):
    png(draw([]))
    png(draw(history(Metrics.TRAIN_LOSS, [1.0, math.nan]) + history(TOP1.val_metric, [math.nan])))


def test_few_classes_are_named_and_numbered():
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ["left", "right"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["left", "right"]
    assert sorted(text.get_text() for text in axes.texts) == ["25", "75"]
    assert axes.get_title() == "Confusion, 2 classes, 4 videos, 75.0 % correct"
    png(figure)


def test_many_classes_list_the_pairs_confused_most():
    counts = np.eye(400, dtype=int) * 10
    counts[7, 11] = 5
    figure = confusion_figure(counts, [f"class {i}" for i in range(400)])
    [text] = figure.axes[1].texts
    assert text.get_text().startswith("5 x  class 7 (7)\n     as class 11 (11)")
    assert text.get_text().count(" as ") == 1
    png(figure)


def test_a_matrix_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for 3 class names; it must be \(3, 3\)"):
        confusion_figure(np.zeros((2, 3), dtype=int), ["a", "b", "c"])
