"""Pictures of the sweep's page: top-1 against costs, what fields do, which stage cares, how trials ended."""

from collections.abc import Callable, Iterator, Sequence

from morphmlp.tuning.report.effects import Effect, Level
from morphmlp.tuning.report.ranking import Cost, RankedPoint, Ranking
from morphmlp.tuning.report.svg import (
    BEHIND,
    BEST,
    CLOSE,
    FRONT,
    INK,
    MUTED,
    STATES,
    line,
    mark,
    number,
    padded,
    path,
    scale,
    svg,
    text,
    tick_text,
    ticks,
)
from morphmlp.tuning.run.trials import Trial

Place = Callable[[float], float]
MOST_LABELLED = 30
"""Points up to which each has its rank written beside it, and its interval drawn."""
LOG_FROM = 8.0
"""Ratio of greatest and smallest cost from which the axis is logarithmic."""
GLYPHS_PER_ROW = 64
LONGEST_LABEL = 22
GOLDEN = 0.6180339887
"""Multiples of it spread evenly between whole numbers."""


def point_words(point: RankedPoint) -> str:
    """A point in full, for a hover text."""
    rank = "" if point.rank is None else f"{point.rank}. "
    score = "no test result" if point.score is None else f"top-1 {point.score}"
    costs = [f"{number(point.gmacs)} GMAC", f"{number(point.params / 1e6)} M parameters"]
    if point.clips_per_s is not None:
        costs.append(f"{number(point.clips_per_s)} clips/s")
    if point.hours is not None:
        costs.append(f"{number(point.hours)} hours")
    return f"{rank}{point.title}\n{score}, {point.group}, {point.seeds_text} seeds finished\n{', '.join(costs)}"


def cost_panel(ranking: Ranking, cost: Cost) -> str:
    """Top-1 of all points against what they cost, with the front as a staircase."""
    width, height, left, right, top, bottom = 480, 330, 46, 18, 26, 46
    known = [(point, value) for point in ranking.scored if (value := cost.shown(point)) is not None and value > 0]
    xs = [value for _, value in known]
    log = max(xs) / min(xs) > LOG_FROM
    few = len(known) <= MOST_LABELLED
    steps = stairs(known, cost)
    barred = [point for point, _ in known] if few else [point for point, _ in steps]
    ends = [end for point in barred if point.score is not None for end in (point.score.low, point.score.high)]
    ends += [point.score.mean for point, _ in known if point.score is not None]
    y_low, y_high = padded(ends, share=0.04)
    y_low, y_high = max(0.0, y_low), min(100.5, y_high)
    x_low, x_high = padded(xs, log=log)
    x = scale(x_low, x_high, left, width - right, log=log)
    y = scale(y_low, y_high, height - bottom, top)
    parts = [
        *_grid_y(y, y_low, min(100.0, y_high), left, width - right),
        line(left, height - bottom, width - right, height - bottom, colour=MUTED),
    ]
    for tick in ticks(x_low, x_high, log=log):
        parts.append(line(x(tick), height - bottom, x(tick), height - bottom + 4, colour=MUTED))
        parts.append(text(x(tick), height - bottom + 18, tick_text(tick), anchor="middle", size=11, colour=MUTED))
    kind = ", logarithmic" if log else ""
    parts.append(text(8, 12, "test top-1 (%)", size=11, colour=MUTED))
    parts.append(text((left + width - right) / 2, height - 8, f"{cost.title}{kind}", anchor="middle"))
    parts.append(path(_staircase(steps, x, y), colour=FRONT, dash="5 3"))
    order = sorted(known, key=lambda pair: (pair[0].rank is not None, -(pair[0].rank or 0)))
    for point, value in order:
        parts += _cost_mark(point, x(value), y, on_front=cost.key in point.fronts, small=not few, bar=point in barred)
    parts += _rank_labels(known if few else steps, x, y)
    return svg(width, height, parts, label=f"test top-1 against {cost.title}")


def effect_rows(effect: Effect) -> str:
    """Marginal means of a field's values, one row each."""
    width, row, left, right, top = 480, 24, 150, 130, 26
    height = top + row * len(effect.levels) + 26
    low, high = _range(effect.levels)
    x = scale(low, high, left, width - right)
    bottom = height - 24
    parts = [text(width - right + 10, 14, "points  finished trials", size=10.5, colour=MUTED)]
    for tick in ticks(low, high, most=4):
        parts.append(line(x(tick), top - 6, x(tick), bottom))
        parts.append(text(x(tick), bottom + 14, tick_text(tick), anchor="middle", size=11, colour=MUTED))
    for index, level in enumerate(effect.levels):
        y = top + row * index + row / 2
        parts.append(text(left - 10, y + 4, _short(level.label), anchor="end"))
        parts.append(text(width - right + 10, y + 4, f"{level.points}", size=11, colour=MUTED))
        parts.append(text(width - right + 50, y + 4, f"{level.finished} of {level.trials}", size=11, colour=MUTED))
        if level.mean is not None and level.low is not None and level.high is not None:
            parts.append(line(x(level.low), y, x(level.high), y, colour=CLOSE, width=2))
            parts.append(mark("circle", x(level.mean), y, 4.5, CLOSE, title=_level_words(level)))
        else:
            parts.append(text(left + 4, y + 4, "no result", size=11, colour=MUTED))
    return svg(width, height, parts, label=f"marginal means of {effect.title}")


def stage_panel(effect: Effect, *, span: tuple[float, float], strongest: bool) -> str:
    """One stage: top-1 of the points by the stage's number, and the marginal means."""
    width, height, left, right, top, bottom = 280, 250, 36, 10, 12, 56
    colour = BEST if strongest else CLOSE
    y = scale(span[0], span[1], height - bottom, top)
    step = (width - left - right) / len(effect.levels)
    parts = [
        *_grid_y(y, span[0], min(100.0, span[1]), left, width - right),
        line(left, height - bottom, width - right, height - bottom, colour=MUTED),
    ]
    means = []
    for index, level in enumerate(effect.levels):
        x = left + step * (index + 0.5)
        parts.append(text(x, height - bottom + 16, level.label, anchor="middle", size=11 if step > 40 else 9))
        parts.append(text(x, height - bottom + 30, _finished(level), anchor="middle", size=9.5, colour=MUTED))
        radius = 2.6 if len(level.scores) <= 20 else 1.6
        for place, score in enumerate(level.scores):
            aside = (place * GOLDEN % 1 - 0.5) * min(step * 0.5, 18)
            parts.append(mark("circle", x + aside, y(score), radius, "#d3dce4", ring="#b4c2ce"))
        if level.mean is not None and level.low is not None and level.high is not None:
            lower, upper = (min(max(end, span[0]), span[1]) for end in (level.low, level.high))
            parts.append(line(x, y(lower), x, y(upper), colour=colour, width=2))
            means.append((x, y(level.mean), level))
    parts.append(path([(x, place) for x, place, _ in means], colour=colour, width=2))
    parts += [mark("circle", x, place, 4.5, colour, title=_level_words(level)) for x, place, level in means]
    axis = f"{effect.name} in stage {effect.stage}; below: finished trials"
    parts.append(text((left + width - right) / 2, height - 8, axis, anchor="middle", size=10, colour=MUTED))
    return svg(width, height, parts, label=f"top-1 by {effect.title}")


def stage_span(effects: Sequence[Effect]) -> tuple[float, float]:
    """The common top-1 axis of stage pictures."""
    values = [score for effect in effects for level in effect.levels for score in level.scores]
    low, high = padded(values, share=0.12)
    ends = [end for effect in effects for level in effect.levels for end in (level.low, level.high) if end is not None]
    room = (high - low) / 4  # wide intervals are cut: the means are what one looks at
    lowest, highest = min([low, *ends]), max([high, *ends])
    return max(0.0, low - room, lowest), min(100.5, high + room, highest)


def share_bars(pairs: Sequence[tuple[str, float]]) -> str:
    """How much each field matters, as bars with numbers."""
    width, row, left = 480, 24, 190
    most = max([value for _, value in pairs] + [1e-9])
    parts = []
    for index, (name, value) in enumerate(pairs):
        y = row * index + row / 2
        length = max(1.0, (width - left - 60) * value / most)
        parts.append(text(left - 10, y + 4, _short(name, 30), anchor="end"))
        parts.append(f'<rect x="{left}" y="{y - 7:.1f}" width="{length:.1f}" height="14" fill="{CLOSE}" rx="2"/>')
        parts.append(text(left + length + 6, y + 4, f"{100 * value:.0f} %", size=11, colour=MUTED))
    return svg(width, row * len(pairs), parts, label="how much each field matters")


def interval_bar(point: RankedPoint, low: float, high: float) -> str:
    """A table cell's interval, on an axis from `low` to `high`."""
    width, height = 150, 16
    if point.score is None:
        return ""
    x = scale(low, high, 4, width - 4)
    colour = _colour(point)
    return svg(
        width,
        height,
        [
            line(4, 8, width - 4, 8),
            line(x(point.score.low), 8, x(point.score.high), 8, colour=colour, width=4),
            mark("circle", x(point.score.mean), 8, 4, colour, filled=point.rank is not None, title=str(point.score)),
        ],
        label=str(point.score),
        fluid=False,
    )


def trial_glyphs(trials: Sequence[Trial]) -> str:
    """A small mark for each trial of one state, with a hover text."""
    look = STATES[trials[0].state]
    columns = min(GLYPHS_PER_ROW, len(trials))
    rows = -(-len(trials) // GLYPHS_PER_ROW)
    parts = []
    for index, trial in enumerate(trials):
        y, x = divmod(index, GLYPHS_PER_ROW)
        reason = "" if trial.error is None else f"\n{trial.error}"
        words = f"trial {trial.number}: {trial.title}, seed {trial.seed}\n{look.words}, {trial.epochs} epochs{reason}"
        parts.append(mark(look.shape, 7 + 13 * x, 7 + 13 * y, 4, look.colour, title=words))
    label = f"{len(trials)} trials {look.words}"
    return svg(13 * columns + 1, 13 * rows + 1, parts, label=label, fluid=False)


def state_glyph(trial: Trial) -> str:
    """A state's mark alone."""
    look = STATES[trial.state]
    return svg(14, 14, [mark(look.shape, 7, 7, 4.5, look.colour)], label=look.words, fluid=False)


def legend(ranking: Ranking) -> str:
    """What the colours of the cost panels mean."""
    entries = [("best", BEST, True, ""), ("not separable from the best", CLOSE, True, ""), ("behind", BEHIND, True, "")]
    if ranking.of("partly finished"):
        entries.append(("not all seeds finished", MUTED, False, ""))
    entries.append(("on the front", BEHIND, True, FRONT))
    marks = [
        svg(14, 14, [mark("circle", 7, 7, 4.5, colour, filled=filled, ring=ring)], label=name, fluid=False)
        for name, colour, filled, ring in entries
    ]
    names = [name for name, *_ in entries]
    return "".join(f'<span class="key">{drawn}{name}</span>' for drawn, name in zip(marks, names, strict=True))


def _colour(point: RankedPoint) -> str:
    return {"best": BEST, "not separable": CLOSE, "behind": BEHIND}.get(point.group, MUTED)


def _grid_y(y: Place, low: float, high: float, left: float, right: float) -> Iterator[str]:
    for tick in ticks(low, high, most=5):
        yield line(left, y(tick), right, y(tick))
        yield text(left - 6, y(tick) + 4, tick_text(tick), anchor="end", size=11, colour=MUTED)


def _cost_mark(point: RankedPoint, x: float, y: Place, *, on_front: bool, small: bool, bar: bool) -> Iterator[str]:
    assert point.score is not None
    colour = _colour(point)
    if bar:
        yield line(x, y(point.score.low), x, y(point.score.high), colour=colour, width=1.2)
    radius = (2.4 if small else 4.2) + (1.4 if point.group == "best" or (small and on_front) else 0)
    ring = FRONT if on_front else ""
    filled = point.rank is not None
    yield mark("circle", x, y(point.score.mean), radius, colour, title=point_words(point), filled=filled, ring=ring)


def _rank_labels(known: Sequence[tuple[RankedPoint, float]], x: Place, y: Place) -> Iterator[str]:
    """Ranks beside the marks, best first, where there is room."""
    taken: list[tuple[float, float]] = []
    for point, value in sorted(known, key=lambda pair: pair[0].rank or 0):
        if point.rank is None or point.score is None:
            continue
        places = [(x(value) + dx, y(point.score.mean) + dy) for dx, dy in ((7, -5), (7, 12), (-14, -5), (-14, 12))]
        free = [p for p in places if all(abs(p[0] - q[0]) > 13 or abs(p[1] - q[1]) > 10 for q in taken)]
        if free:
            taken.append(free[0])
            yield text(*free[0], point.rank, size=10, colour=INK)


def stairs(known: Sequence[tuple[RankedPoint, float]], cost: Cost) -> list[tuple[RankedPoint, float]]:
    """Points of the front from the cheapest on, each with a higher mean than all before."""
    found: list[tuple[RankedPoint, float]] = []
    highest = float("-inf")
    on_front = [pair for pair in known if cost.key in pair[0].fronts]
    for point, value in sorted(on_front, key=lambda pair: -pair[1] if cost.more_is_better else pair[1]):
        if point.score is not None and point.score.mean > highest:
            highest = point.score.mean
            found.append((point, value))
    return found


def _staircase(steps: Sequence[tuple[RankedPoint, float]], x: Place, y: Place) -> list[tuple[float, float]]:
    places: list[tuple[float, float]] = []
    for point, value in steps:
        if point.score is not None:
            places += [(x(value), places[-1][1])] if places else []
            places.append((x(value), y(point.score.mean)))
    return places


def _finished(level: Level) -> str:
    """How many of a value's trials finished; of many the share."""
    return f"{level.finished}/{level.trials}" if level.trials < 20 else f"{100 * level.finished / level.trials:.0f} %"


def _range(levels: Sequence[Level]) -> tuple[float, float]:
    ends = [end for level in levels for end in (level.low, level.high) if end is not None]
    return padded(ends, share=0.05)


def _level_words(level: Level) -> str:
    return (
        f"{level.label}: mean top-1 {level.mean:.1f} (95 % interval {level.low:.1f}-{level.high:.1f}) over "
        f"{level.points} points; {level.finished} of {level.trials} trials finished"
    )


def _short(label: str, longest: int = LONGEST_LABEL) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1]}…"
