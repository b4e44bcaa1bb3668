"""What each swept field does to the score: marginal means of its values, for lists of numbers at each stage.

A marginal mean averages the test score of all points that have a value, whatever their other fields are. Pure
functions of a ranking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from scipy.stats import spearmanr

from morphmlp.tuning.report.ranking import RankedPoint, Ranking, t_quantile
from morphmlp.tuning.space.space import short_names, text_of

MOST_LEVELS = 8
"""Different numbers up to which each is a level; more are put into bins."""
NUM_BINS = 5
PERMUTATIONS = 1000
LONGEST_LIST = 8
TOGETHER = 0.5
"""Rank correlation of two stages' values from which an effect of one may be the other's."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One value of a field, or some neighbouring ones."""

    label: str
    mean: float | None
    """Score, percent, over its points; None where none has a result."""
    low: float | None
    """95 % interval of the mean, from the spread between points of the same value."""
    high: float | None
    points: int
    """Points with a test result."""
    finished: int
    trials: int
    """Trials of its points, of which `finished` were tested."""
    scores: tuple[float, ...]
    """Mean score of each of its points."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a field does, or one stage's number in it."""

    field: str
    """Dotted."""
    name: str
    """The field's short name in words, `chunk lengths`."""
    stage: int | None
    """From 1; None where the field is looked at as a whole."""
    levels: tuple[Level, ...]
    spread: float
    """Highest less lowest marginal mean, percentage points."""
    explained: float | None
    """Share of the points' variance that its values explain, 0 to 1, corrected for their number; None where each
    point has its own value."""
    beyond_noise: bool
    """Whether the same values, given to the points at random, explain as much in less than 5 % of the draws."""

    @property
    def title(self) -> str:
        """`chunk lengths, stage 2`."""
        return self.name if self.stage is None else f"{self.name}, stage {self.stage}"


def effects(ranking: Ranking) -> tuple[Effect, ...]:
    """The effect of every field that takes several values, lists of numbers at each stage; in the fields' order."""
    if len(ranking.scored) < 2:
        return ()
    fields = list(ranking.points[0].point)
    names = [name.replace("_", " ") for name in short_names(fields)]
    found = []
    for field, name in zip(fields, names, strict=True):
        values = [point.point[field] for point in ranking.points]
        columns: list[tuple[int | None, Sequence[JsonValue]]] = [(None, values)]
        if (table := _table(values)) is not None and not _is_one_number(table):
            columns = list(enumerate(table.T.tolist(), start=1))
        for stage, column in columns:
            effect = _effect(ranking.points, column, field=field, name=name, stage=stage)
            found += [effect] if effect is not None else []
    return tuple(found)


def shares(found: Sequence[Effect], importances: Mapping[str, float] | None = None) -> tuple[tuple[str, float], ...]:
    """How much each field matters, greatest first: Optuna's importances by field, else the explained variance."""
    if importances:
        names = [name.replace("_", " ") for name in short_names(list(importances))]
        pairs = list(zip(names, importances.values(), strict=True))
    else:
        pairs = [(effect.title, effect.explained) for effect in found if effect.explained is not None]
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def unvaried_stages(ranking: Ranking, field: str) -> tuple[tuple[int, str], ...]:
    """Stages, from 1, at which a list of numbers is the same in all points, with that number; they have no effect."""
    if (table := _table([point.point[field] for point in ranking.points])) is None:
        return ()
    return tuple((stage, f"{column[0]:g}") for stage, column in enumerate(table.T, start=1) if np.ptp(column) == 0)


def varying_together(ranking: Ranking) -> tuple[str, ...]:
    """A line for each field in which stages go up and down together, so that their effects can't be distinguished."""
    lines = []
    fields = list(ranking.points[0].point) if ranking.points else []
    for field, name in zip(fields, short_names(fields), strict=True):
        table = _table([point.point[field] for point in ranking.scored])
        if table is None or len(table) < 3 or _is_one_number(table):
            continue
        if pairs := [
            f"{one + 1} and {other + 1} ({correlation:+.1f})"
            for one, other in combinations(range(table.shape[1]), 2)
            if abs(correlation := _rank_correlation(table[:, one], table[:, other])) >= TOGETHER
        ]:
            lines.append(
                f"{name.replace('_', ' ')}: stages {', '.join(pairs)} vary together here (rank correlation); "
                "an effect of one may be the other's"
            )
    return tuple(lines)


def _effect(
    points: Sequence[RankedPoint], values: Sequence[JsonValue], *, field: str, name: str, stage: int | None
) -> Effect | None:
    labels, numbers = _levels(values)
    scored = np.array([point.score is not None for point in points])
    scores = np.array([point.score.mean for point in points if point.score is not None])
    own = numbers[scored]
    if len(labels) < 2 or len(set(own.tolist())) < 2:
        return None
    members = [
        [point for point, number in zip(points, numbers, strict=True) if number == n] for n in range(len(labels))
    ]
    counts = np.bincount(own, minlength=len(labels))
    means = np.bincount(own, weights=scores)[np.unique(own)] / counts[np.unique(own)]
    freedom = len(scores) - int((counts > 0).sum())
    within = _within(own, scores)
    around = float(((scores - scores.mean()) ** 2).sum())
    deviation = np.sqrt(within / freedom) if freedom else None
    explained = None
    if freedom:
        explained = max(0.0, 1 - (within / freedom) / (around / (len(scores) - 1))) if around > 0 else 0.0
    return Effect(
        field=field,
        name=name,
        stage=stage,
        levels=tuple(
            _level(label, own_points, None if deviation is None else float(t_quantile(freedom) * deviation))
            for label, own_points in zip(labels, members, strict=True)
        ),
        spread=float(means.max() - means.min()),
        explained=explained,
        beyond_noise=freedom > 0 and _chance(own, scores, within) < 0.05,
    )


def _level(label: str, points: Sequence[RankedPoint], scale: float | None) -> Level:
    scores = [point.score for point in points if point.score is not None]
    mean = float(np.mean([score.mean for score in scores])) if scores else None
    low = high = None
    if mean is not None:
        if scale is not None:
            low, high = mean - scale / np.sqrt(len(scores)), mean + scale / np.sqrt(len(scores))
        else:  # each value has one point: its own interval
            low, high = scores[0].low, scores[0].high
        low, high = max(0.0, float(low)), min(100.0, float(high))
    return Level(
        label=label,
        mean=mean,
        low=low,
        high=high,
        points=len(scores),
        finished=sum(len(point.finished) for point in points),
        trials=sum(len(point.trials) for point in points),
        scores=tuple(score.mean for score in scores),
    )


def _levels(values: Sequence[JsonValue]) -> tuple[list[str], NDArray[np.int64]]:
    """The levels' labels in order, and the number of each value's level."""
    if all(_is_number(value) for value in values):
        numbers = np.array([float(value) for value in values])  # type: ignore[arg-type]  # all are numbers
        distinct = np.unique(numbers)
        if len(distinct) > MOST_LEVELS:
            edges = np.unique(np.quantile(numbers, np.linspace(0, 1, NUM_BINS + 1)))
            bins = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
            kept = np.unique(bins)
            labels = [f"{numbers[bins == b].min():.3g} to {numbers[bins == b].max():.3g}" for b in kept]
            return labels, np.searchsorted(kept, bins)
        return [f"{number:g}" for number in distinct], np.searchsorted(distinct, numbers)
    texts = [text_of(value) for value in values]
    table = _table(values)
    ordered = values if table is None else [values[row] for row in np.lexsort(table.T[::-1])]
    order = list(dict.fromkeys(text_of(value) for value in ordered))
    return order, np.array([order.index(text) for text in texts])


def _chance(levels: NDArray[np.int64], scores: NDArray[np.float64], within: float) -> float:
    """Share of random permutations of the scores in which levels explain as much as they do here."""
    rng = np.random.Generator(np.random.Philox(0))
    as_clear = sum(_within(levels, rng.permutation(scores)) <= within * (1 + 1e-9) for _ in range(PERMUTATIONS))
    return (as_clear + 1) / (PERMUTATIONS + 1)


def _within(levels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Sum of squared distances of the scores from their levels' means."""
    means = np.bincount(levels, weights=scores) / np.maximum(np.bincount(levels), 1)
    return float(((scores - means[levels]) ** 2).sum())


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's, 0 where one of them never varies."""
    if len(set(one)) == 1 or len(set(other)) == 1:
        return 0.0
    return float(spearmanr(one, other).statistic)


def _table(values: Sequence[JsonValue]) -> NDArray[np.float64] | None:
    """Lists of equally many numbers, a row each; None where the values are something else."""
    lists = [value for value in values if isinstance(value, list) and all(map(_is_number, value))]
    lengths = set(map(len, lists))
    if len(lists) < len(values) or len(lengths) != 1 or not 0 < max(lengths) <= LONGEST_LIST:
        return None
    return np.array(lists, dtype=float)


def _is_one_number(table: NDArray[np.float64]) -> bool:
    """Whether lists vary as a whole: each stage that varies determines the others."""
    whole = len(np.unique(table, axis=0))
    counts = [len(np.unique(column)) for column in table.T]
    return sum(count > 1 for count in counts) > 1 and all(count in (1, whole) for count in counts)


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
