"""The panels of a sweep's report, each drawn once: with matplotlib, as SVG for the page and as PNG for other places.

Marks of a page's panel have hover texts, and those of points lead to their row of the table.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from morphmlp.reporting.hover_svg import MUTED, Hovers, panel_style, svg_of
from morphmlp.tuning.report.effects import Effect, Level
from morphmlp.tuning.report.ranking import Cost, Group, RankedPoint, Ranking
from morphmlp.tuning.report.summary import GROUP_TITLES, answer, number

DOTS, FRONT = "#b4c2ce", "#c98a1b"
COLOURS: Mapping[Group, str] = {
    "best": "#b5462f",
    "indistinguishable": "#2a6f97",
    "behind": "#9fb3c0",
    "partly finished": "#5f6c7b",
}
"""Points of the last group are drawn hollow."""
MOST_EFFECTS = 4
"""Effects in the picture."""
MOST_LABELLED = 30
"""Points up to which each has its rank written next to it, and its interval drawn."""
LOG_FROM = 8.0
"""Ratio of greatest and smallest cost from which the axis is logarithmic."""
_GOLDEN = 0.6180339887
"""Multiples of it spread evenly between whole numbers: dots lie next to each other, the same way each time."""


def cost_panel(ranking: Ranking, cost: Cost, rows: Mapping[int, str]) -> Markup:
    """The score of all points against what they cost, as SVG.

    `rows` has what a point's mark leads to, by the point's `id`.
    """
    with panel_style(11):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.subplots()
        hovers = _draw_cost(axes, ranking, cost, rows)
        axes.set_ylabel(_score_label(ranking))
        return svg_of(figure, hovers, f"test {ranking.primary.title} against {cost.title}")


def effect_panel(ranking: Ranking, effect: Effect, *, span: tuple[float, float], strongest: bool) -> Markup:
    """The score of the points by a field's value with the marginal means, as SVG; `span` is its axis."""
    size, characters = ((6.4, 4.2), 60) if effect.stage is None else ((4.6, 4), 42)
    colour = COLOURS["best" if strongest else "indistinguishable"]
    with panel_style(11):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        hovers = _draw_effect(axes, ranking, effect, span=span, colour=colour, characters=characters)
        axes.set_ylabel(_score_label(ranking))
        axes.set_xlabel(effect.title)
        return svg_of(figure, hovers, f"{ranking.primary.title} by {effect.title}")


def shares_panel(pairs: Sequence[tuple[str, float]]) -> Markup:
    """How much each field matters, as bars with numbers in an SVG."""
    with panel_style(11):
        figure = Figure(figsize=(6.4, 0.3 + 0.3 * len(pairs)), layout="constrained")
        axes = figure.subplots()
        names, values = [_short(name, 40, most_lines=1) for name, _ in pairs], [value for _, value in pairs]
        bars = axes.barh(range(len(pairs)), values, height=0.6, color=COLOURS["indistinguishable"])
        axes.bar_label(bars, labels=[f"{100 * value:.0f} %" for value in values], padding=4, color=MUTED)
        axes.set_yticks(range(len(pairs)), names)
        axes.set(ylim=(len(pairs) - 0.4, -0.6), xlim=(0, 1.15 * max([*values, 1e-9])), xticks=())
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return svg_of(figure, [], "how much each field matters")


def picture(ranking: Ranking, effects: Sequence[Effect], *, title: str) -> bytes:
    """The sweep's answer as one PNG, for places that show no HTML: costs above, the strongest effects below."""
    costs = ranking.shown_costs()
    strongest = sorted(effects, key=lambda effect: -(effect.explained or 0))[:MOST_EFFECTS]
    strongest.sort(key=lambda effect: (effect.field, effect.stage or 0))
    rows: list[Sequence[Cost | Effect]] = [row for row in (costs[:2], costs[2:], strongest) if row]
    with panel_style(8):
        figure = Figure(figsize=(11, 1.4 + 3.4 * max(1, len(rows))), dpi=130, layout="constrained")
        figure.suptitle("\n".join([title, *textwrap.wrap(answer(ranking), 120)]), fontsize=11, x=0.01, ha="left")
        places = figure.subfigures(len(rows), 1, squeeze=False)[:, 0] if rows else ()
        for row, place in zip(rows, places, strict=True):
            for axes, subject in zip(place.subplots(1, len(row), squeeze=False)[0], row, strict=True):
                if isinstance(subject, Cost):
                    _draw_cost(axes, ranking, subject, {})
                else:
                    own = [effect for effect in effects if effect.field == subject.field]
                    colour = COLOURS["indistinguishable"] if subject.beyond_noise else MUTED
                    _draw_effect(
                        axes, ranking, subject, span=common_span(own), colour=colour, characters=140 // len(row)
                    )
                    axes.set_title(f"{subject.title}\n{effect_size(ranking, subject)}", fontsize="medium")
                axes.set_ylabel(_score_label(ranking) if subject is row[0] else "")
            if costs and row is rows[0]:
                handles, labels = place.axes[0].get_legend_handles_labels()
                place.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        return file.getvalue()


def common_span(effects: Sequence[Effect]) -> tuple[float, float]:
    """The common axis of a field's stages: all points, and of wide intervals a part, as one looks at the means."""
    values = [score for effect in effects for level in effect.levels for score in level.scores]
    ends = [end for effect in effects for level in effect.levels for end in (level.low, level.high) if end is not None]
    size = max(values) - min(values) or 1.0
    low, high = (
        max(min([*values, *ends]), min(values) - 0.4 * size),
        min(max([*values, *ends]), max(values) + 0.4 * size),
    )
    return low - 0.04 * size, high + 0.04 * size


def effect_size(ranking: Ranking, effect: Effect) -> str:
    """`4.0 percentage points, within the noise`."""
    unit = "percentage points" if ranking.primary.unit == "%" else ranking.primary.unit
    return f"{effect.spread:.1f} {unit}, {'beyond' if effect.beyond_noise else 'within'} the noise"


def _stairs(known: Sequence[tuple[RankedPoint, float]], cost: Cost) -> list[tuple[RankedPoint, float]]:
    """Points of the front from the cheapest on, each with a better mean than all before."""
    found: list[tuple[RankedPoint, float]] = []
    best = float("-inf")
    on_front = [pair for pair in known if cost.key in pair[0].fronts]
    for point, value in sorted(on_front, key=lambda pair: -pair[1] if cost.more_is_better else pair[1]):
        if point.score is not None and point.score.gains[1] > best:
            best = point.score.gains[1]
            found.append((point, value))
    return found


def _draw_cost(axes: Axes, ranking: Ranking, cost: Cost, rows: Mapping[int, str]) -> Hovers:
    known = [(point, value) for point in ranking.scored if (value := cost.shown(point)) is not None and value > 0]
    few = len(known) <= MOST_LABELLED
    steps = _stairs(known, cost)
    hovers: Hovers = []
    axes.plot(*_places(steps), drawstyle="steps-post", color=FRONT, linestyle="--", linewidth=1, zorder=1)
    for place, (group, colour) in enumerate(COLOURS.items()):
        own = [(point, value) for point, value in known if point.group == group]
        if not own:
            continue
        barred = [pair for pair in own if few or pair in steps]
        ends = np.array([(p.score.low, p.score.high) for p, _ in barred if p.score is not None]).reshape(-1, 2)
        axes.vlines([value for _, value in barred], *ends.T, color=colour, linewidth=1, zorder=2)
        x, y = _places(own)
        marks = axes.scatter(
            x,
            y,
            s=(48 if few else 14) * (1.6 if group == "best" else 1),
            facecolors="white" if group == "partly finished" else colour,
            edgecolors=colour,
            linewidths=1,
            label=GROUP_TITLES[group],
            zorder=9 - place,  # the best above all
            urls=[rows.get(id(point)) for point, _ in own],
            clip_on=False,
        )
        hovers.append((marks, [_point_text(point, cost, value) for point, value in own]))
    front = [(point, value) for point, value in known if cost.key in point.fronts]
    x, y = _places(front)
    axes.scatter(x, y, s=130 if few else 36, color=FRONT, label="on the front", zorder=3)
    values = [value for _, value in known]
    if max(values) / min(values) > LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_xlabel(f"{cost.title}{', logarithmic' if axes.get_xscale() == 'log' else ''}")
    _write_ranks(axes, known if few else steps)
    return hovers


def _places(pairs: Sequence[tuple[RankedPoint, float]]) -> NDArray[np.float64]:
    """Costs and scores of points, `[2 points]`."""
    places = [(value, point.score.mean) for point, value in pairs if point.score is not None]
    return np.array(places, dtype=float).reshape(-1, 2).T


def _write_ranks(axes: Axes, pairs: Sequence[tuple[RankedPoint, float]]) -> None:
    """Ranks next to the marks, best first, where there is room."""
    axes.autoscale_view()
    taken: list[NDArray[np.float64]] = []
    for point, value in sorted(pairs, key=lambda pair: pair[0].rank or 0):
        if point.rank is None or point.score is None:
            continue
        mark = axes.transData.transform((value, point.score.mean)) * 72 / axes.figure.dpi
        for offset in ((5, 3), (5, -10), (-11, 3), (-11, -10)):
            if all(np.abs((mark + offset - other) / (11, 9)).max() > 1 for other in taken):
                taken.append(mark + offset)
                axes.annotate(
                    str(point.rank), (value, point.score.mean), offset, textcoords="offset points", fontsize="small"
                )
                break


def _draw_effect(
    axes: Axes, ranking: Ranking, effect: Effect, *, span: tuple[float, float], colour: str, characters: int
) -> Hovers:
    """Draw the points by their values, and the marginal means with intervals; `characters` fit below the axis."""
    places = [place for place, level in enumerate(effect.levels) if level.mean is not None]
    known = [effect.levels[place] for place in places]
    for place, level in zip(places, known, strict=True):
        aside = place + 0.4 * ((np.arange(len(level.scores)) * _GOLDEN) % 1 - 0.5)
        axes.scatter(aside, level.scores, s=14 if len(level.scores) <= 20 else 5, color=DOTS, zorder=1)
    means, low, high = np.array([(level.mean, level.low, level.high) for level in known], dtype=float).T
    axes.vlines(places, low, high, color=colour, linewidth=2)
    axes.plot(places, means, color=colour, linewidth=2)
    marks = axes.scatter(places, means, s=45, color=colour, zorder=3)
    width = max(5, characters // len(effect.levels) - 1)
    labels = [f"{_short(level.label, width)}\n{_finished_share(level)}" for level in effect.levels]
    axes.set_xticks(range(len(labels)), labels)
    axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=span)
    return [(marks, [_level_text(ranking, level) for level in known])]


def _score_label(ranking: Ranking) -> str:
    return f"test {ranking.primary.title} ({ranking.primary.unit})"


def _finished_share(level: Level) -> str:
    """How many of a value's trials finished; of many the share."""
    return f"{level.finished}/{level.trials}" if level.trials < 20 else f"{100 * level.finished / level.trials:.0f} %"


def _point_text(point: RankedPoint, cost: Cost, value: float) -> str:
    rank = "" if point.rank is None else f"{point.rank}. "
    return f"{rank}{point.title}\n{point.score}\n{cost.title}: {number(value)}"


def _level_text(ranking: Ranking, level: Level) -> str:
    interval = f"95 % interval {level.low:.1f}-{level.high:.1f}"
    return (
        f"{level.label}: mean {ranking.primary.title} {level.mean:.1f} ({interval}) over {level.points} points\n"
        f"{level.finished} of {level.trials} trials finished"
    )


def _short(label: str, width: int, *, most_lines: int = 3) -> str:
    """A label in few lines of so many characters; numbers are never broken."""
    lines = textwrap.wrap(label, width, max_lines=most_lines, placeholder=" …", break_long_words=False)
    return "\n".join(lines)
