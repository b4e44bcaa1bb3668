"""A data set on one page: lengths, sizes, rates, codecs, classes, and what's broken.

A pure function of a verification's table; drawn with matplotlib's objects, without pyplot's global state.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from morphmlp.preparation.findings import (
    Reason,
    broken_reasons,
    broken_videos,
    damaged_videos,
    total_length_text,
    total_size_text,
)

_DPI = 150
_BLUE, _ORANGE, _GREY = "#2a6f97", "#c8553d", "#8d99ae"
_MOST_BARS = 8
_MOST_REASONS = 5
_MOST_NAMED_CLASSES = 30
_MOST_LEVEL_NAMES = 6
_LONGEST_NAME = 26
_LONGEST_REASON = 76
_MOST_BINS, _FEWEST_BINS = 40, 8
_TAILS_FROM_VIDEOS = 1000
_TAIL_PERCENT = 0.2
"""So much of a large distribution may lie outside a histogram at either end; how many do is written on it."""
_LOG_FROM_RATIO = 30.0
"""Values that differ by more than this factor get a logarithmic axis."""
_LOG_COUNTS_FROM = 0.6
"""A single bar that holds more than this share would hide the others: counts are then drawn on a logarithmic axis."""


def overview_figure(
    found: pa.Table, labels: npt.NDArray[np.integer] | None, class_names: Sequence[str], *, title: str
) -> Figure:
    """Draw the data set: rows of `morphmlp.preparation.ray_verify.VERIFIED`, and the class id of each, or None."""
    figure = Figure(figsize=(12, 9), dpi=_DPI, layout=ConstrainedLayoutEngine(hspace=0.06, wspace=0.03))
    grid = figure.add_gridspec(3, 6, height_ratios=(1, 1, 1.15))
    usable = found.filter(pc.equal(found["error"], ""))
    stored = pc.coalesce(found["stored_bytes"], found["size_bytes"])
    figure.suptitle(
        f"{title}: {found.num_rows:,} videos of {len(class_names)} classes, {total_length_text(found)}, "
        f"{total_size_text(found)}",
        fontsize=14,
        fontweight="bold",
    )
    _histogram(figure.add_subplot(grid[0, 0:2]), _values(usable, "duration_s"), title="Length", unit="s")
    megabytes = stored.drop_null().to_numpy() / 1e6
    _histogram(figure.add_subplot(grid[0, 2:4]), megabytes, title="File size", unit="MB")
    rates = [f"{rate:.4g}" for rate in _values(usable, "fps")]
    _most_frequent(figure.add_subplot(grid[0, 4:6]), rates, title="Frame rate (frames per second)")
    sizes = [
        f"{width} x {height}" for width, height in zip(_values(usable, "width"), _values(usable, "height"), strict=True)
    ]
    _most_frequent(figure.add_subplot(grid[1, 0:2]), sizes, title="Resolution (width x height)")
    _most_frequent(figure.add_subplot(grid[1, 2:3]), usable["codec"].drop_null().to_pylist(), title="Codec")
    _broken(figure.add_subplot(grid[1, 3:6]), found)
    classes = figure.add_subplot(grid[2, :])
    if labels is None:
        _style(classes, "Classes", grid="y")
        _say(classes, "each pixel has its own: a label map lies with every image")
    else:
        _classes(classes, np.bincount(labels, minlength=len(class_names)), class_names)
    return figure


def _values(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    values: npt.NDArray[np.generic] = table[name].drop_null().to_numpy()
    return values


def _style(axes: Axes, title: str, *, grid: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e5e5e5", linewidth=0.6)  # type: ignore[arg-type, unused-ignore]  # stubs by version
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _histogram(axes: Axes, values: npt.NDArray[np.generic], *, title: str, unit: str) -> None:
    """Videos by a quantity; its median is marked, and tails that would squeeze the rest are counted next to it."""
    _style(axes, f"{title} ({unit})", grid="y")
    axes.set_ylabel("videos", fontsize=9)
    if not len(values):
        _say(axes, "no video can be used")
        return
    numbers = values.astype(float)
    tail = _TAIL_PERCENT if len(numbers) >= _TAILS_FROM_VIDEOS else 0
    low, high = np.percentile(numbers, [tail, 100 - tail])
    logarithmic = low > 0 and high / low > _LOG_FROM_RATIO
    beyond = int((numbers < low).sum() + (numbers > high).sum())
    if high - low < 1e-3 * max(abs(high), 1e-9):  # all alike
        low, high = 0.9 * low, 1.1 * high + 1e-9
    bins = int(np.clip(2 * np.sqrt(len(numbers)), _FEWEST_BINS, _MOST_BINS))
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    counts, _ = np.histogram(numbers, edges)
    axes.hist(numbers, bins=edges.tolist(), color=_BLUE)
    _whole_counts(axes)
    if counts.max() > _LOG_COUNTS_FROM * counts.sum() and np.count_nonzero(counts) > 1:
        axes.set_yscale("log")
        axes.set_ylim(0.5, 2 * counts.max())
        axes.set_ylabel("videos (logarithmic)", fontsize=9)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(float(np.median(numbers)), color=_ORANGE, linewidth=1)
    text = f"median {np.median(numbers):.3g}, from {numbers.min():.3g} to {numbers.max():.3g}"
    axes.set_xlabel(f"{text}; {beyond:,} not drawn" if beyond else text, fontsize=8)


def _most_frequent(axes: Axes, values: Sequence[str], *, title: str) -> None:
    """Videos by a name, the most frequent first, the rest in one bar."""
    _style(axes, title, grid="x")
    if not len(values):
        _say(axes, "no video can be used")
        return
    names, counts = np.unique(np.asarray(values), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [(str(names[place]), int(counts[place])) for place in order[:_MOST_BARS]]
    if len(order) > _MOST_BARS:
        shown.append((f"{len(order) - _MOST_BARS:,} others", int(counts[order[_MOST_BARS:]].sum())))
    bars = axes.barh(range(len(shown)), [count for _, count in shown], color=_BLUE, height=0.65)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    # A single bar would fill the whole height.
    axes.set_ylim(max(len(shown), 4) - 0.5, -0.5)
    axes.set_xlim(0, 1.25 * max(count for _, count in shown))
    axes.xaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)


def _broken(axes: Axes, found: pa.Table) -> None:
    """Why videos can't be used; each reason above its bar, for it's longer than a name."""
    broken, damaged = broken_videos(found).num_rows, damaged_videos(found).num_rows
    share = 100 * broken / max(found.num_rows, 1)
    title = f"Can't be used: {broken:,} ({share:.2g} %); usable with damaged frames: {damaged:,}"
    _style(axes, title, grid="x")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    if not (reasons := broken_reasons(found)):
        _say(axes, "every video can be used")
        return
    shown = list(reasons[:_MOST_REASONS])
    if rest := reasons[_MOST_REASONS:]:
        count = sum(reason.videos for reason in rest)
        shown.append(Reason(text=f"{len(rest)} other reasons", videos=count, example=""))
    places = np.arange(len(shown))
    axes.barh(places, [reason.videos for reason in shown], color=_ORANGE, height=0.3)
    for place, reason in zip(places, shown, strict=True):
        text = f"{reason.videos:,}  {_short(reason.text, _LONGEST_REASON)}"
        axes.annotate(text, (0, place - 0.2), xytext=(0, 1), textcoords="offset points", va="bottom", fontsize=8)
    axes.set_ylim(max(len(shown), 4) - 0.5, -0.8)
    axes.set_xlim(0, 1.02 * shown[0].videos if len(shown) == 1 else 1.02 * max(reason.videos for reason in shown))


def _classes(axes: Axes, counts: npt.NDArray[np.integer], class_names: Sequence[str]) -> None:
    """Videos of each class: named bars for few classes, a falling curve with its ends named for many."""
    few, many = int(counts.min()), int(counts.max())
    title = f"Videos per class: median {np.median(counts):,.0f}, from {few:,} to {many:,}"
    if empty := int((counts == 0).sum()):
        title += f"; {empty} classes have none"
    _style(axes, title, grid="y")
    axes.set_ylabel("videos", fontsize=9)
    order = np.argsort(-counts, kind="stable")
    if len(counts) <= _MOST_NAMED_CLASSES:
        axes.bar(range(len(counts)), counts, color=_BLUE, width=0.7)
        names = [_short(name, _LONGEST_NAME) for name in class_names]
        if len(names) > _MOST_LEVEL_NAMES:
            axes.set_xticks(range(len(counts)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
        else:
            axes.set_xticks(range(len(counts)), names, fontsize=9)
    else:
        axes.fill_between(np.arange(len(counts)), counts[order], step="mid", color=_BLUE, linewidth=0)
        axes.set_xlabel("classes, from the most videos to the fewest", fontsize=9)
        axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        _name_ends(axes, counts, order, class_names)
    axes.set_ylim(0, 1.12 * max(many, 1))
    _whole_counts(axes)


def _name_ends(
    axes: Axes, counts: npt.NDArray[np.integer], order: npt.NDArray[np.integer], class_names: Sequence[str]
) -> None:
    """Name the largest and the smallest classes in the curve's free corner."""

    def listed(places: Sequence[int]) -> str:
        return "\n".join(f"{counts[place]:,}  {_short(class_names[place], _LONGEST_NAME)}" for place in places)

    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 3}
    text = f"most videos\n{listed(order[:4].tolist())}"
    axes.text(0.06, 0.06, text, transform=axes.transAxes, va="bottom", fontsize=8, bbox=box)
    text = f"fewest videos\n{listed(order[::-1][:4].tolist())}"
    axes.text(0.94, 0.06, text, transform=axes.transAxes, va="bottom", ha="right", fontsize=8, bbox=box)


def _whole_counts(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_GREY, fontsize=9)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
