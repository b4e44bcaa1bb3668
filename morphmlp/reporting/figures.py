"""Figures of a run: loss, scores, confusion, and where its time went.

Pure functions of recorded points, counts and time windows, drawn with matplotlib's objects, without pyplot's global
state.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from morphmlp.config.values import Unit
from morphmlp.record import MetricPoint, Metrics
from morphmlp.tasks.scores import ScoreName
from morphmlp.training.record.accounting import TimeWindow, without_repeats

_DPI = 150
_BLUE, _ORANGE, _GREY = "#2a6f97", "#c8553d", "#8d99ae"
_MOST_NAMES = 40
"""Classes up to which a confusion matrix names its rows."""
_MOST_NUMBERS = 16
"""Classes up to which it writes its cells."""
_MOST_PAIRS = 24
"""Confused pairs listed next to a matrix without names."""
_LONGEST_NAME = 28
_PARTS = {
    "computing": ("compute_s", "#2a6f97"),
    "all-reduce, and waiting for slower workers": ("all_reduce_s", "#61a5c2"),
    "waiting for data": ("wait_s", "#c8553d"),
    "validation, snapshots, reports": ("other_s", "#c9ced6"),
}
_X: Mapping[Unit, str] = {"epoch": "epoch", "step": "optimiser step"}
_MOST_BARS = 150
_HIGHEST = 2.5
"""Height of the axis in median bars: a validation between few steps would hide all the others."""


def loss_figure(history: Sequence[MetricPoint], *, unit: Unit = "epoch") -> Figure:
    """Training loss by optimiser step with its running median; mean training and validation loss by epoch or step."""
    figure = Figure(figsize=(9, 3.6), dpi=_DPI, layout="constrained")
    by_step, by_round = figure.subplots(1, 2)
    steps, losses = _series(history, Metrics.TRAIN_LOSS)
    _style(by_step, title="Training loss by step", x="optimiser step", y="cross-entropy (nats)")
    if len(steps) > 50:
        by_step.plot(steps, losses, color=_BLUE, alpha=0.25, linewidth=0.8, label="as reported")
        window = max(5, len(steps) // 50)
        medians = [np.median(losses[max(0, end - window) : end]) for end in range(1, len(losses) + 1)]
        by_step.plot(steps, medians, color=_BLUE, label=f"median of {window} reports")
        by_step.legend(frameon=False)
    else:
        by_step.plot(steps, losses, color=_BLUE, marker="o", markersize=3)
    _style(by_round, title=f"Loss by {unit}", x=_X[unit], y="cross-entropy (nats)")
    mean = Metrics.TRAIN_EPOCH_LOSS if unit == "epoch" else Metrics.TRAIN_ROUND_LOSS
    curves = {mean: ("training, augmented", _BLUE), Metrics.VAL_LOSS: ("validation", _ORANGE)}
    _lines(by_round, history, curves)
    return figure


def score_figure(history: Sequence[MetricPoint], names: Sequence[ScoreName], *, unit: Unit = "epoch") -> Figure:
    """Validation scores by epoch or step; the test's primary score as a line across, where there is one.

    The first of the names is the primary score.
    """
    figure = Figure(figsize=(5.5, 3.6), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    _style(axes, title="Validation scores", x=_X[unit], y=names[0].unit)
    if names[0].unit == "%":
        axes.set_ylim(0, 102)
    _, tested = _series(history, names[0].test_metric)
    if len(tested):
        label = f"test {names[0].title}, all views: {tested[-1]:.1f}"
        axes.axhline(tested[-1], color=_GREY, linestyle="--", linewidth=1, label=label)
    # The primary score comes last, so that its line lies on top.
    curves = list(zip(names, (_BLUE, _ORANGE, _GREY), strict=False))[::-1]
    _lines(axes, history, {name.val_metric: (f"{name.title}, one view", color) for name, color in curves})
    return figure


def confusion_figure(matrix: NDArray[np.integer], class_names: Sequence[str], *, items: str = "videos") -> Figure:
    """Share of each true class (row) that was predicted as each class (column), percent.

    Few classes are named and their cells numbered; many stand with their index, and the pairs confused most often are
    listed instead. The matrix counts `items`, `k` true classes by `k` predicted ones.

    Raises:
        ValueError: The matrix isn't `k` by `k`.
    """
    counts = np.asarray(matrix)
    k = len(class_names)
    if counts.shape != (k, k):
        raise ValueError(f"confusion matrix: shape {counts.shape} for {k} class names; it must be ({k}, {k})")
    correct = 100 * float(np.trace(counts)) / max(int(counts.sum()), 1)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = k <= _MOST_NAMES
    side = min(4 + 0.35 * k, 12) if named else 9
    figure = Figure(figsize=(side + (1 if named else 5.5), side), dpi=_DPI, layout="constrained")
    axes = figure.subplots() if named else figure.subplots(1, 2, width_ratios=(side, 3.5))[0]
    # Many classes: errors of a few percent each would vanish on a linear scale.
    norm = Normalize(0, 100) if named else PowerNorm(0.4, 0, 100)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8)
    axes.set(
        title=f"Confusion, {k} classes, {counts.sum():,} {items}, {correct:.1f} % correct",
        xlabel="predicted class",
        ylabel="true class",
    )
    if named:
        _name_classes(axes, class_names)
        if k <= _MOST_NUMBERS:
            for row, column in np.argwhere(shares > 0):
                share = shares[row, column]
                color = "white" if share > 60 else "black"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=9, color=color)
    else:
        _list_worst_pairs(figure.axes[1], counts, class_names)
    return figure


def time_figure(windows: Sequence[TimeWindow]) -> Figure:
    """Seconds of each step by what they went into, over the run, with the changes of the number of workers.

    Of steps that were repeated after a failure only the last time is drawn, and no start.
    """
    figure = Figure(figsize=(9, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    _style(axes, title="Where the time of a step went", x="optimiser step", y="seconds per step")
    windows = without_repeats(windows)
    if bars := _bars(windows):
        _draw_bars(axes, bars)
        _mark_workers(axes, windows)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _series(history: Sequence[MetricPoint], key: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps and values of one metric, in order."""
    points = sorted((point.step, point.value) for point in history if point.key == key)
    return np.array([step for step, _ in points], dtype=np.int64), np.array([value for _, value in points], dtype=float)


def _style(axes: Axes, *, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _lines(axes: Axes, history: Sequence[MetricPoint], metrics: dict[str, tuple[str, str]]) -> None:
    for key, (label, color) in metrics.items():
        places, values = _series(history, key)
        if len(places):
            axes.plot(places, values, color=color, marker="o", markersize=3, label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    names = [_short(name) for name in class_names]
    size = 9 if len(names) <= _MOST_NUMBERS else 7
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)


def _list_worst_pairs(axes: Axes, counts: NDArray[np.integer], class_names: Sequence[str]) -> None:
    """The pairs confused most often, as text."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None)[::-1][:_MOST_PAIRS]
    pairs = [divmod(int(flat), len(class_names)) for flat in order if wrong.flat[flat]]
    lines = [
        f"{wrong[true, predicted]} x  {_short(class_names[true])} ({true})\n"
        f"     as {_short(class_names[predicted])} ({predicted})"
        for true, predicted in pairs
    ]
    axes.axis("off")
    axes.set_title("Confused most often", loc="left")
    axes.text(0, 1, "\n".join(lines), va="top", ha="left", fontsize=8, linespacing=1.35, transform=axes.transAxes)


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


def _draw_bars(axes: Axes, bars: Sequence[Sequence[TimeWindow]]) -> None:
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
        text, color = f"{label}: {share:.0%}", _PARTS[label][1]
        axes.bar(ends - steps, part / steps, steps, bottom, align="edge", color=color, linewidth=0, label=text)
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
            text, place = f" {before.workers} → {window.workers} workers", (before.step, 1)
            at_top = ("data", "axes fraction")
            axes.annotate(text, place, xycoords=at_top, va="top", fontsize=8, rotation=90, ha="right")
        before = window
