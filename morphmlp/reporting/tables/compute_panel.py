"""A data set's scores against arithmetic: published numbers, other networks and what was measured, as one panel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from morphmlp.reporting.hover_svg import Hovers, panel_style, svg_of
from morphmlp.reporting.tables.measured import Measured, cost_of
from morphmlp.reporting.tables.published import Published
from morphmlp.reporting.tables.published_rows import PublishedSegmentation

Kind = Literal["published", "measured", "others"]
COLOURS: dict[Kind, str] = {"published": "#b5462f", "measured": "#2a6f97", "others": "#8496a5"}
"""Drawn in this order from above."""
OURS = "MorphMLP"
SHAPES = {
    **{OURS: "o", "MLP": "s", "attention": "^", "convolution": "D", "mixed": "P", "state space": "X", "Fourier": "*"}
}
"""Marks by how networks mix places."""
MOST_WITH_BARS = 40
"""Measured points up to which each has its interval drawn."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mark."""

    kind: Kind
    family: str
    """A key of `SHAPES`."""
    row: str
    """Its table row's id on the page."""
    gmacs: float
    """Billion multiply-accumulates of an item, over all views."""
    score: float
    """Percent."""
    text: str
    """What one reads about it, some lines."""
    interval: tuple[float, float] | None = None


def points_of(published: Published, runs: Sequence[Measured], dataset: str) -> Iterator[Point]:
    """All numbers on a data set whose arithmetic is known; runs have the rows `DATASET-measured-0` and so on."""
    for place, row in enumerate(published.models(dataset)):
        gmacs = row.printed_gflops
        if isinstance(row, PublishedSegmentation):
            gmacs = cost_of(row.network, 1, row.crop_size, segmentation=row.segmentation).gmacs
        if gmacs is not None:
            yield Point(
                kind="published",
                family="convolution" if row.preset is None else OURS,
                row=f"{dataset}-published-{place}",
                gmacs=gmacs,
                score=row.score,
                text=f"{row.title}\npublished {row.score:g} at {gmacs:.4g} GMAC\n{row.source}",
            )
    groups = [(group.source, row) for group in published.others if group.dataset == dataset for row in group.rows]
    for place, (source, other) in enumerate(groups):
        if other.gflops_total is not None:
            text = f"{other.model} ({other.family})\npublished {other.score:g} at {other.gflops_total:g} GMAC\n{source}"
            text += "" if other.pretrained is None else f"\npretrained on: {other.pretrained}"
            yield Point(
                kind="others",
                family=other.family,
                row=f"{dataset}-others-{place}",
                gmacs=other.gflops_total,
                score=other.score,
                text=text,
            )
    for place, run in enumerate(runs):
        total = run.total_gmacs
        if total is not None:
            yield _measured_point(run, total, f"{dataset}-measured-{place}")


def _measured_point(run: Measured, gmacs: float, row: str) -> Point:
    score = run.scores[0]
    reached, ends = run.metrics[score.test_metric], run.interval(score)
    between = "" if ends is None else f", 95 % {ends[0]:.1f} to {ends[1]:.1f}"
    seen = run.seen if run.params["task"] == "segmentation" else run.views
    lines = [
        run.identity,
        f"{score.title} {reached:.1f}{between}, at {gmacs:.4g} GMAC",
        f"{seen}; {run.num_scored} items, test ids {run.test_copy or 'not recorded'}",
        f"{run.date}, commit {run.commit}",
    ]
    text = "\n".join(lines)
    family = family_of(run)
    return Point(kind="measured", family=family, row=row, gmacs=gmacs, score=reached, interval=ends, text=text)


def family_of(run: Measured) -> str:
    """How a run's network mixes places."""
    return "convolution" if run.params.get("segmentation.backbone") == "resnet50" else OURS


def compute_panel(points: Sequence[Point], *, score: str) -> Markup:
    """The panel as SVG; each mark has attributes `data-kind`, `data-family` and `data-row`, and leads to its row."""
    hovers: Hovers = []
    attributes: list[list[dict[str, str]]] = []
    with panel_style(11):
        figure = Figure(figsize=(8.4, 4.8), layout="constrained")
        axes = figure.subplots()
        for kind, colour in reversed(COLOURS.items()):
            for family, shape in SHAPES.items():
                own = [point for point in points if (point.kind, point.family) == (kind, family)]
                if own:
                    _draw(axes, own, colour, shape, hovers)
                    known = [{"data-kind": kind, "data-family": family, "data-row": point.row} for point in own]
                    attributes += [known] * (len(hovers) - len(attributes))
        _set_axes(axes, points, score)
        return svg_of(figure, hovers, f"{score} against GMAC", attributes=attributes)


def _draw(axes: Axes, own: Sequence[Point], colour: str, shape: str, hovers: Hovers) -> None:
    """Draw the marks of one kind and family, and where they are few their intervals."""
    texts, gmacs = [point.text for point in own], [point.gmacs for point in own]
    if own[0].kind == "measured" and len(own) <= MOST_WITH_BARS:
        ends = [point.interval or (math.nan, math.nan) for point in own]
        low, high = zip(*ends, strict=True)
        hovers.append((axes.vlines(gmacs, low, high, color=colour, linewidth=1, zorder=2), texts))
    marks = axes.scatter(
        gmacs,
        [point.score for point in own],
        s=60 if own[0].kind == "published" else 34,
        marker=shape,
        facecolors=colour,
        edgecolors=colour,
        alpha=0.75,
        linewidths=0.8,
        zorder={"others": 3, "measured": 4, "published": 5}[own[0].kind],
        urls=[f"#{point.row}" for point in own],
        clip_on=False,
    )
    hovers.append((marks, texts))


def _set_axes(axes: Axes, points: Sequence[Point], score: str) -> None:
    values = [point.gmacs for point in points]
    if max(values) > 4 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"GMAC of an item, over all views{', logarithmic' if axes.get_xscale() == 'log' else ''}")
    axes.set_ylabel(f"{score} (%)")
