"""The sweep's answer as one picture, for a place that shows no HTML."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from morphmlp.tuning.report.effects import Effect, effects
from morphmlp.tuning.report.figures import GOLDEN, LOG_FROM, MOST_LABELLED, stairs
from morphmlp.tuning.report.ranking import Cost, RankedPoint, Ranking
from morphmlp.tuning.report.svg import BEHIND, BEST, CLOSE, FRONT, LINES, MUTED, padded, tick_text, ticks
from morphmlp.tuning.report.words import answer

MOST_EFFECTS = 4
_COLOURS = {"best": BEST, "not separable": CLOSE, "behind": BEHIND, "partly finished": "white"}
_WORDS = {
    "best": "best",
    "not separable": "not separable from the best",
    "behind": "behind",
    "partly finished": "not all seeds finished",
}


def picture(ranking: Ranking, *, title: str) -> Figure:
    """Top-1 against costs above, the strongest effects below; the answer as its heading."""
    shown = ranking.shown_costs()
    found = sorted(effects(ranking), key=lambda effect: -(effect.explained or 0))[:MOST_EFFECTS]
    if found and found[0].stage is not None:
        found = sorted(found, key=lambda effect: (effect.field, effect.stage or 0))
    rows = [row for row in (shown[:2], shown[2:], found) if row]
    figure = Figure(figsize=(11, 1.4 + 3.4 * max(1, len(rows))), dpi=130, layout="constrained")
    lines = textwrap.wrap(answer(ranking), 120)
    figure.suptitle("\n".join([title, *lines]), fontsize=11, x=0.01, ha="left")
    for row, place in zip(rows, figure.subfigures(len(rows), 1, squeeze=False)[:, 0] if rows else (), strict=True):
        axes = place.subplots(1, len(row), squeeze=False, sharey=True)[0]
        for own, subject in zip(axes, row, strict=True):
            _style(own)
            if isinstance(subject, Cost):
                _cost(own, ranking, subject)
            elif isinstance(subject, Effect):
                _effect(own, subject)
        axes[0].set_ylabel("test top-1 (%)")
        if isinstance(row[0], Cost) and row is rows[0]:
            axes[0].legend(handles=_keys(ranking), fontsize=7.5, loc="best", framealpha=0.8, edgecolor="none")
    return figure


def _keys(ranking: Ranking) -> list[Line2D]:
    """What the colours mean: the groups that occur, and the front."""
    groups = {point.group for point in ranking.scored}
    keys = []
    for group in (group for group in _COLOURS if group in groups):
        edge = MUTED if group == "partly finished" else _COLOURS[group]
        look = Line2D([], [], color=_COLOURS[group], markeredgecolor=edge, marker="o", linestyle="none")
        look.set_label(_WORDS[group])
        keys.append(look)
    if any(point.fronts for point in ranking.scored):
        keys.append(Line2D([], [], color=FRONT, linestyle="--", marker="o", fillstyle="none", label="on the front"))
    return keys


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)


def _cost(axes: Axes, ranking: Ranking, cost: Cost) -> None:
    few = len(ranking.scored) <= MOST_LABELLED
    known = [(point, value) for point in ranking.scored if (value := cost.shown(point)) is not None and value > 0]
    values = [value for _, value in known]
    steps = stairs(known, cost)
    barred = [point for point, _ in (known if few else steps)]
    heights = [point.score.mean for point, _ in steps if point.score is not None]
    axes.plot([value for _, value in steps], heights, drawstyle="steps-post", color=FRONT, linestyle="--", linewidth=1)
    for point, value in reversed(known):
        if point.score is None:
            continue
        on_front = cost.key in point.fronts
        axes.errorbar(
            value,
            point.score.mean,
            yerr=_error(point) if point in barred else None,
            marker="o",
            markersize=6 if few else 3,
            linestyle="none",
            elinewidth=0.9,
            color=_COLOURS[point.group],
            ecolor=MUTED if point.rank is None else _COLOURS[point.group],
            markeredgecolor=FRONT if on_front else MUTED if point.rank is None else _COLOURS[point.group],
            markeredgewidth=1.5 if few else 0.8,
        )
        if few and point.rank is not None:
            axes.annotate(
                str(point.rank), (value, point.score.mean), xytext=(5, 4), textcoords="offset points", fontsize=7.5
            )
    if values:
        log = max(values) / min(values) > LOG_FROM
        axes.set_xscale("log" if log else "linear")
        low, high = padded(values, log=log)
        places = ticks(low, high, log=log, most=5)
        axes.set_xlim(low, high)
        axes.set_xticks(places, [tick_text(place) for place in places])
        axes.minorticks_off()
    axes.set_xlabel(cost.title)


def _error(point: RankedPoint) -> list[list[float]]:
    assert point.score is not None
    score = point.score
    return [[max(0.0, score.mean - score.low)], [max(0.0, score.high - score.mean)]]


def _effect(axes: Axes, effect: Effect) -> None:
    colour = CLOSE if effect.beyond_noise else MUTED
    known = [(index, level) for index, level in enumerate(effect.levels) if level.mean is not None]
    for index, level in known:
        aside = [index + 0.1 + 0.2 * (place * GOLDEN % 1) for place in range(len(level.scores))]
        axes.plot(aside, level.scores, ".", color="#b4c2ce", markersize=4)
        assert level.mean is not None
        assert level.low is not None
        assert level.high is not None
        axes.plot([index, index], [level.low, level.high], color=colour, linewidth=2)
    axes.plot([index for index, _ in known], [level.mean or 0 for _, level in known], color=colour, marker="o")
    axes.set_xticks(range(len(effect.levels)), [level.label for level in effect.levels], fontsize=8)
    if max(len(level.label) for level in effect.levels) > 6:
        axes.tick_params(axis="x", rotation=40)
    scores = [score for level in effect.levels for score in level.scores]
    room = 0.15 * (max(scores) - min(scores)) + 0.5
    axes.set_ylim(max(0, min(scores) - room), min(100.5, max(scores) + room))
    kind = "" if effect.beyond_noise else ", within the noise"
    axes.set_title(f"{effect.title}: {effect.spread:.1f} points{kind}", fontsize=9)
