"""Figures of an evaluation: how far its confidence is right, what more views give, how classes differ.

Drawn with matplotlib's objects, without pyplot's global state.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from morphmlp.evaluation.views import CLOSE, cheapest
from morphmlp.reporting.evaluation.words import setting_in_words

_DPI = 150
_BLUE, _ORANGE, _GREY, _MUTED = "#2a6f97", "#c8553d", "#8d99ae", "#5f6c7b"
_LINES = "#e3e8ee"
_COLOURS = (_BLUE, _ORANGE, _GREY)


def reliability_figure(bins: pd.DataFrame, *, ece: float) -> Figure:
    """The share of right videos by confidence, with its intervals, and below how many videos have which confidence.

    `bins` are those of `Answers.reliability`.
    """
    figure = Figure(figsize=(5.6, 5.8), dpi=_DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    there = bins[bins["videos"] > 0]
    upper.plot([0, 100], [0, 100], color=_GREY, linestyle="--", linewidth=1, label="as often right as it is sure")
    below, above = 100 * (there["right"] - there["low"]), 100 * (there["high"] - there["right"])
    upper.errorbar(
        100 * there["confidence"],
        100 * there["right"],
        yerr=np.stack([below, above]),
        color=_BLUE,
        marker="o",
        markersize=5,
        linewidth=1.2,
        capsize=2,
        label="right, 95 % interval",
    )
    _style(upper, title=f"Calibration: ECE {ece:.2f} % over {len(bins)} bins", y="right (% of a bin's videos)")
    upper.set(xlim=(0, 100), ylim=(0, 102))
    upper.legend(frameon=False, loc="upper left")
    width = 100 / len(bins)
    lower.bar(100 * bins["above"], bins["videos"], width=0.94 * width, align="edge", color=_BLUE)
    _style(lower, y="videos")
    lower.set_xlabel("confidence: probability of the first guess (%)")
    return figure


def views_figure(curve: pd.DataFrame) -> Figure:
    """Top-1 by number of views, a line for each number of crops; the cheapest setting near the best is marked."""
    figure = Figure(figsize=(6.4, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for (crops, own), colour in zip(curve.groupby("crops"), _COLOURS, strict=False):
        axes.fill_between(own["views"], own["low"], own["high"], color=colour, alpha=0.12, linewidth=0)
        label = f"{crops} crop{'' if crops == 1 else 's'}"
        axes.plot(own["views"], own["top1"], color=colour, marker="o", markersize=4, label=label)
    chosen = curve.to_dict("records")[cheapest(curve)]
    axes.axhline(curve["top1"].max() - CLOSE, color=_MUTED, linestyle=":", linewidth=1)
    axes.plot(
        chosen["views"], chosen["top1"], marker="o", markersize=11, fillstyle="none", color="#b5462f", linewidth=0
    )
    axes.annotate(
        f"{setting_in_words(chosen)}: {chosen['top1']:.2f}",
        (chosen["views"], chosen["top1"]),
        xytext=(-12, 10) if chosen["views"] > curve["views"].max() / 2 else (10, -16),
        ha="right" if chosen["views"] > curve["views"].max() / 2 else "left",
        textcoords="offset points",
        fontsize=9,
    )
    if curve["views"].max() >= 8:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.12)
    _style(axes, title="Top-1 by number of views", y="top-1 (%), 95 % interval shaded")
    axes.set_xlabel("views of a video: clips x crops")
    axes.legend(frameon=False, loc="lower right")
    return figure


def classes_figure(classes: pd.DataFrame, *, mean: float) -> Figure:
    """Accuracy of all classes from worst to best with their intervals; the ends are named.

    `classes` is a table of `class_table`; those without videos aren't drawn.
    """
    there = classes[classes["videos"] > 0].sort_values("accuracy", kind="stable", ignore_index=True)
    places = np.arange(len(there))
    if len(there) <= 40:
        figure = Figure(figsize=(7, 1.4 + 0.22 * len(there)), dpi=_DPI, layout="constrained")
        axes = figure.subplots()
        ends = np.stack([there["accuracy"] - there["low"], there["high"] - there["accuracy"]])
        axes.errorbar(there["accuracy"], places, xerr=ends, fmt="o", color=_BLUE, markersize=4, linewidth=1)
        axes.set_yticks(places, [_short(name) for name in there["class"]], fontsize=8)
        axes.axvline(mean, color=_GREY, linestyle="--", linewidth=1)
        _style(axes, title="Accuracy by class")
        axes.set(xlim=(-1, 101), xlabel=f"accuracy (%), 95 % interval; dashed: mean {mean:.1f}")
        return figure
    figure = Figure(figsize=(9, 4), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(places, there["low"], there["high"], color=_BLUE, alpha=0.15, linewidth=0)
    axes.plot(places, there["accuracy"], color=_BLUE, linewidth=1.4)
    axes.axhline(mean, color=_GREY, linestyle="--", linewidth=1)
    _name_ends(axes, there["class"].tolist())
    _style(axes, title=f"Accuracy of {len(there)} classes, worst first", y=f"accuracy (%); dashed: mean {mean:.1f}")
    axes.set(xlim=(0, len(there) - 1), ylim=(0, 102), xlabel="class, by its accuracy; shaded: 95 % intervals")
    return figure


def _name_ends(axes: Axes, names: Sequence[str]) -> None:
    worst, best = ("\n".join([head, *map(_short, of)]) for head, of in (("worst:", names[:5]), ("best:", names[-5:])))
    axes.text(0.02, 0.97, worst, transform=axes.transAxes, ha="left", va="top", fontsize=8, color=_MUTED)
    axes.text(0.98, 0.04, best, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=_MUTED)


def _style(axes: Axes, *, title: str = "", y: str = "") -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_LINES, linewidth=0.6)
    axes.set_axisbelow(True)


def _short(name: str, longest: int = 32) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
