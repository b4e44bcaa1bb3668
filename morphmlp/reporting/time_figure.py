"""The figure of where a run's time went. A pure function of time windows; knows no store."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from morphmlp.training.record.time_windows import TimeWindow, without_repeats

_DPI = 150
_PARTS = {
    "computing": ("compute_s", "#2a6f97"),
    "all-reduce, and waiting for slower workers": ("all_reduce_s", "#61a5c2"),
    "waiting for data": ("wait_s", "#c8553d"),
    "validation, snapshots, reports": ("other_s", "#c9ced6"),
}
_MOST_BARS = 150
_HIGHEST = 2.5
"""Height of the axis over the median bar: a validation between few steps would hide all the others."""


def time_figure(windows: Sequence[TimeWindow]) -> Figure:
    """Seconds of each step by what they went into, over the run, with the changes of the number of workers.

    Of steps that were repeated after a failure only the last time is drawn, and no start.
    """
    figure = Figure(figsize=(9, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set(title="Where the time of a step went", xlabel="optimiser step", ylabel="seconds per step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    windows = without_repeats(windows)
    bars = _bars(windows)
    if bars:
        _draw(axes, bars)
        _mark_workers(axes, windows)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _bars(windows: Sequence[TimeWindow]) -> list[list[TimeWindow]]:
    """Neighbouring windows together, so that a bar can be seen; each has steps."""
    with_steps: list[list[TimeWindow]] = []
    for window in windows:
        if window.steps:
            with_steps.append([window])
        elif with_steps:
            with_steps[-1].append(window)
    at_once = -(-len(with_steps) // _MOST_BARS) or 1
    groups = [with_steps[start : start + at_once] for start in range(0, len(with_steps), at_once)]
    return [[window for windows in group for window in windows] for group in groups]


def _draw(axes: Axes, bars: Sequence[Sequence[TimeWindow]]) -> None:
    steps = np.array([sum(window.steps for window in bar) for bar in bars])
    ends = np.array([bar[-1].step for bar in bars])
    seconds = {
        label: np.array([sum(getattr(window, name) for window in bar) for bar in bars])
        for label, (name, _) in _PARTS.items()
    }
    total_s = sum(part.sum() for part in seconds.values())
    bottom = np.zeros(len(bars))
    for label, part in seconds.items():
        share = part.sum() / total_s if total_s else 0.0
        axes.bar(
            ends - steps,
            part / steps,
            width=steps,
            bottom=bottom,
            align="edge",
            color=_PARTS[label][1],
            linewidth=0,
            label=f"{label}: {share:.0%}",
        )
        bottom += part / steps
    axes.set_xlim((ends - steps)[0], ends[-1])
    top = _HIGHEST * float(np.median(bottom))
    if bottom.max() > top > 0:
        axes.set_ylim(0, top)
        cut = int((bottom > top).sum())
        axes.set_title(f"{axes.get_title()} (bars cut: {cut} of {len(bars)}, up to {bottom.max():.3g} s)")


def _mark_workers(axes: Axes, windows: Sequence[TimeWindow]) -> None:
    before: TimeWindow | None = None
    for window in windows:
        if before is not None and window.workers != before.workers:
            axes.axvline(before.step, color="#333333", linestyle="--", linewidth=1)
            axes.annotate(
                f" {before.workers} → {window.workers} workers",
                (before.step, 1),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize=8,
                rotation=90,
                ha="right",
            )
        before = window
