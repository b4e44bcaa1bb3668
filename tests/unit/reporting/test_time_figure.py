"""Where a run's time went, drawn: parts on each other, worker changes marked, nothing hidden in silence."""

import io
from dataclasses import replace

import numpy as np
import pytest

from morphmlp.reporting.figures import time_figure
from morphmlp.training.record.accounting import TimeWindow

WINDOW = TimeWindow(
    epoch=1,
    step=10,
    steps=10,
    workers=2,
    clips=80.0,
    wall_s=20.0,
    start_s=2.0,
    wait_s=3.0,
    compute_s=10.0,
    all_reduce_s=4.0,
    decode_cpu_s=1.0,
)


def windows_of(count, **changes):
    return [replace(WINDOW, step=10 * (number + 1), **changes) for number in range(count)]


def drawn(figure):
    """The figure's only axes, once it has been drawn: warnings of fonts and layouts only come then."""
    figure.savefig(io.BytesIO(), format="png")
    [axes] = figure.axes
    return axes


def texts(axes):
    return [text.get_text().strip() for text in axes.texts]


def test_the_parts_of_a_step_stand_on_each_other_without_the_start():
    axes = drawn(time_figure(windows_of(3)))
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [pytest.approx([part] * 3) for part in (1.0, 0.4, 0.3, 0.1)]
    tops = [bars[0].get_y() + bars[0].get_height() for bars in axes.containers]
    assert tops == pytest.approx([1.0, 1.4, 1.7, 1.8])
    assert [bars.get_label() for bars in axes.containers] == [
        "computing: 56%",
        "all-reduce, and waiting for slower workers: 22%",
        "waiting for data: 17%",
        "validation, snapshots, reports: 6%",
    ]
    assert axes.get_xlim() == (0, 30)


def test_changes_of_the_number_of_workers_are_marked():
    windows = windows_of(4)
    windows[2:] = [replace(window, workers=1) for window in windows[2:]]
    axes = drawn(time_figure(windows))
    assert texts(axes) == ["2 → 1 workers"]
    assert [line.get_xdata()[0] for line in axes.lines] == [20]


def test_repeated_steps_are_drawn_once():
    axes = drawn(time_figure([*windows_of(3), *windows_of(3, compute_s=8.0)[1:]]))
    assert [bar.get_height() for bar in axes.containers[0]] == pytest.approx([1.0, 0.8, 0.8])


def test_a_validation_belongs_to_the_steps_before_it_and_does_not_flatten_them():
    windows = windows_of(9)
    windows.insert(5, replace(windows[4], steps=0, wall_s=500.0, start_s=0.0, wait_s=0.0, compute_s=0, all_reduce_s=0))
    axes = drawn(time_figure(windows))
    assert axes.containers[3][4].get_height() == pytest.approx(50.1)
    assert axes.get_ylim()[1] == pytest.approx(2.5 * 1.8)
    assert axes.get_title().endswith("(bars cut: 1 of 9, up to 51.8 s)")


def test_a_long_run_is_drawn_with_few_bars_that_hold_all_its_steps():
    axes = drawn(time_figure(windows_of(1000)))
    bars = axes.containers[0]
    assert 100 <= len(bars) <= 150
    assert sum(bar.get_width() for bar in bars) == 10_000
    assert np.allclose([bar.get_height() for bar in bars], 1.0)


def test_a_run_without_steps_has_empty_axes():
    assert not drawn(time_figure([])).containers
    assert not drawn(time_figure([replace(WINDOW, steps=0)])).containers
