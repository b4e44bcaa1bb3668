"""Which points of a sweep are best, with intervals, so that noise isn't called a winner.

A point's interval holds two errors: the test set is a sample of videos, and another seed trains another network. With
p the mean score (0 to 1) over k seeds on n test videos, the variance of p is

    p (1 - p) (1 / n + theta / k)

The first part doesn't shrink with more seeds, which are all tested on the same videos. `theta` is the spread between
seeds in the same unit, s^2 / (p (1 - p)); it has k - 1 degrees of freedom of its own, and what other points show of it
(a median, so that one unstable point doesn't blur all) counts like up to four more. The interval is Wilson's with so
many videos that it has this variance, widened from the normal to the t distribution in the part of the seeds:
1 / n' = 1 / n + (t / 1.96)^2 theta / k. Where no point has two finished seeds it is Wilson's of the n videos alone.

Differences are judged by Newcombe's method from the two intervals. All of this is for scores in percent:
shares of the test videos, such as top-1, and others whose own interval, as of mIoU by bootstrap, says how many videos
would give a share the same variance, which stand for n. Pure functions of trials.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, median, variance
from typing import Literal, get_args

import numpy as np
from pydantic import JsonValue
from scipy.stats import chi2, t

from morphmlp.tasks.intervals import Z, wilson
from morphmlp.tasks.scores import ScoreName
from morphmlp.tuning.run.trials import SweepResult, Trial
from morphmlp.tuning.space.space import counted

BORROWED_SEEDS = 4
"""What the other points' spread counts for, at most, in seeds of the point itself."""
SHORTEST_HOURS = 0.5
"""Below it, times are shown in minutes."""
UNKNOWN_NOISE = 0.1
"""Relative noise of a measured cost where no point was trained twice."""

Group = Literal["best", "indistinguishable", "behind", "partly finished", "without result"]
"""`indistinguishable`: the interval of its difference from the best contains 0. `partly finished`: some seeds didn't
finish, so it isn't compared, since a scheduler keeps the lucky seeds. `without result`: none did."""

_GROUPS = get_args(Group)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean score over seeds in the test, percent, with its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int
    with_spread: bool
    """Whether the interval holds the spread between seeds; else only the test set's sampling error."""
    higher_is_better: bool = True

    @property
    def gains(self) -> tuple[float, float, float]:
        """Worst end, mean and best end as numbers of which more is better."""
        return (self.low, self.mean, self.high) if self.higher_is_better else (-self.high, -self.mean, -self.low)

    def is_better_than(self, other: "Score") -> bool:
        """Whether the 95 % interval of the difference lies on this score's side (Newcombe 1998, method 10)."""
        worst, mean, _ = self.gains
        _, other_mean, other_best = other.gains
        return mean - other_mean > math.hypot(mean - worst, other_best - other_mean)

    def __str__(self) -> str:
        alone = "" if self.with_spread else ", test set's error alone"
        return f"{self.mean:.1f} (95 % interval {self.low:.1f}-{self.high:.1f}, {counted(self.seeds, 'seed')}{alone})"


@dataclass(frozen=True, kw_only=True)
class RankedPoint:
    """A point with all its seeds; measured costs are means over finished trials."""

    point: Mapping[str, JsonValue]
    title: str
    trials: tuple[Trial, ...]
    """One for each seed."""
    finished: tuple[Trial, ...]
    """Those that were tested."""
    score: Score | None
    group: Group
    rank: int | None
    """From 1, by the mean; none where not all seeds finished."""
    gmacs: float
    params: int
    hours: float | None
    clips_per_s: float | None
    cpu_s: float | None
    """CPU core-seconds of one trial."""
    printed: str | None
    """What the paper prints for its fields; it takes no part in anything here."""
    fronts: tuple[str, ...] = ()
    """Keys of `COSTS`: no point is better at this cost or cheaper at this score, beyond the noise."""

    @property
    def is_complete(self) -> bool:
        """Whether all its seeds finished."""
        return len(self.finished) == len(self.trials)

    @property
    def seeds_text(self) -> str:
        """`2 of 2`: seeds that finished."""
        return f"{len(self.finished)} of {len(self.trials)}"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Something that a point costs; less is better."""

    key: str
    title: str
    """As an axis shows it."""
    shown: Callable[[RankedPoint], float | None]
    """The number as a reader sees it; of clips/s more is better."""
    of_trial: Callable[[Trial], float | None] | None = None
    """What one trial shows, where the cost is measured and therefore noisy."""
    more_is_better: bool = False


COSTS = (
    Cost(key="GMAC", title="GMAC of one view", shown=lambda point: point.gmacs),
    Cost(key="params", title="parameters (million)", shown=lambda point: point.params / 1e6),
    Cost(
        key="clips/s",
        title="training clips per second",
        shown=lambda point: point.clips_per_s,
        of_trial=lambda trial: trial.clips_per_s,
        more_is_better=True,
    ),
    Cost(key="time", title="hours of one trial", shown=lambda point: point.hours, of_trial=lambda trial: trial.wall_s),
)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All points by group, in a group by their mean.

    A point that is indistinguishable from the best may have a worse mean than one that is behind, as its interval is
    wider.
    """

    points: tuple[RankedPoint, ...]
    primary: ScoreName
    """The score by which they are ranked."""

    @property
    def best(self) -> RankedPoint | None:
        """The point of the best mean; one whose seeds all finished, if there is any."""
        return next((point for point in self.points if point.group == "best"), None)

    @property
    def has_printed(self) -> bool:
        """Whether the paper has a number for any point."""
        return any(point.printed for point in self.points)

    @property
    def scored(self) -> tuple[RankedPoint, ...]:
        """Points with a test result."""
        return tuple(point for point in self.points if point.score is not None)

    def of(self, group: Group) -> tuple[RankedPoint, ...]:
        """The points of a group, in order."""
        return tuple(point for point in self.points if point.group == group)

    @property
    def time_unit(self) -> tuple[str, float]:
        """The unit that trials' times are shown in, `hours` or `minutes`, and how many of it an hour has."""
        longest = max((point.hours or 0.0 for point in self.points), default=0.0)
        return ("hours", 1.0) if longest >= SHORTEST_HOURS else ("minutes", 60.0)

    def shown_costs(self) -> tuple[Cost, ...]:
        """Costs in which scored points differ; where all are the same there is nothing to draw."""
        costs = (cost if cost.key != "time" else self._time(cost) for cost in COSTS)
        return tuple(cost for cost in costs if len({_digits(cost.shown(point)) for point in self.scored} - {None}) > 1)

    def _time(self, cost: Cost) -> Cost:
        unit, per_hour = self.time_unit

        def shown(point: RankedPoint) -> float | None:
            return None if point.hours is None else point.hours * per_hour

        return replace(cost, title=f"{unit} of one trial", shown=shown)


def ranked(result: SweepResult) -> Ranking:
    """The points of a sweep in the order of their scores."""
    primary = result.primary
    grouped: dict[str, list[Trial]] = {}
    for trial in result.trials:
        grouped.setdefault(json.dumps(dict(trial.point), sort_keys=True), []).append(trial)
    points = [_point(own) for own in grouped.values()]
    spreads = {index: spread for index, point in enumerate(points) if (spread := _spread(point.finished)) is not None}
    for index, point in enumerate(points):
        others = [spread for other, spread in spreads.items() if other != index]
        points[index] = replace(point, score=_score(point.finished, others, primary))
    points.sort(key=lambda point: _order(point, primary))
    complete = [point for point in points if point.is_complete and point.score is not None]
    if not complete:  # nothing better is known than the points of which most seeds finished
        most = max((len(point.finished) for point in points), default=0)
        complete = [point for point in points if point.score is not None and len(point.finished) == most]
    named = [_named(point, complete) for point in points]
    named.sort(key=lambda point: (_GROUPS.index(point.group), point.rank or 0))
    compared = [point for point in named if point.rank is not None]
    fronts = {cost.key: _front(compared, cost) for cost in COSTS}
    on_front = [tuple(key for key, members in fronts.items() if id(point) in members) for point in named]
    return Ranking(
        points=tuple(replace(point, fronts=keys) for point, keys in zip(named, on_front, strict=True)), primary=primary
    )


def interval(
    scores: Sequence[float],
    num_videos: float,
    others: Sequence[tuple[int, float]] = (),
    *,
    higher_is_better: bool = True,
) -> Score:
    """Mean and 95 % interval of a point's score, as this module describes.

    `scores` are percent, of each seed; `others` are degrees of freedom and theta of the other points.
    """
    count, share = len(scores), fmean(scores) / 100
    own = (count - 1, variance(scores) / 1e4 / _unit(share, num_videos)) if count > 1 else (0, 0.0)
    borrowed = (min(BORROWED_SEEDS, sum(freedom for freedom, _ in others)), _typical(others))
    freedom = own[0] + borrowed[0]
    videos = float(num_videos)
    if freedom:
        theta = (own[0] * own[1] + borrowed[0] * borrowed[1]) / freedom
        videos = 1 / (1 / num_videos + (t_quantile(freedom) / Z) ** 2 * theta / count)
    low, high = wilson(share, videos)
    return Score(
        mean=100 * share,
        low=100 * float(low),
        high=100 * float(high),
        seeds=count,
        with_spread=freedom > 0,
        higher_is_better=higher_is_better,
    )


@cache
def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return float(t.ppf(0.975, freedom))


def _unit(share: float, num_videos: float) -> float:
    """One video's variance p (1 - p), of a share that is kept off 0 and 1 by four more videos, half of them right."""
    kept_off = (share * num_videos + 2) / (num_videos + 4)
    return kept_off * (1 - kept_off)


def _typical(spreads: Sequence[tuple[int, float]]) -> float:
    """Median of thetas, each divided by the median of chi-squared over its degrees of freedom, which is below 1."""
    return median(theta * freedom / _chi2_median(freedom) for freedom, theta in spreads) if spreads else 0.0


@cache
def _chi2_median(freedom: int) -> float:
    return float(chi2.median(freedom))


def _spread(finished: Sequence[Trial]) -> tuple[int, float] | None:
    """Degrees of freedom and theta of a point's own seeds."""
    scores = _values(finished, lambda trial: trial.score)
    if len(scores) < 2:
        return None
    return len(scores) - 1, variance(scores) / 1e4 / _unit(fmean(scores) / 100, _num_videos(finished))


def _score(finished: Sequence[Trial], others: Sequence[tuple[int, float]], primary: ScoreName) -> Score | None:
    if not (scores := _values(finished, lambda trial: trial.score)):
        return None
    return interval(scores, _num_videos(finished), others, higher_is_better=primary.higher_is_better)


def _num_videos(finished: Sequence[Trial]) -> float:
    return min(map(_videos_behind, finished))


def _videos_behind(trial: Trial) -> float:
    """Test videos of a trial; of a score with an interval of its own so many as would give a share its variance."""
    videos = trial.num_videos or 1
    if trial.score_interval is None or trial.score is None:
        return videos
    low, high = trial.score_interval
    variance = ((high - low) / 200 / Z) ** 2
    return _unit(trial.score / 100, videos) / variance if variance else videos


def _values(trials: Sequence[Trial], value: Callable[[Trial], float | None]) -> list[float]:
    return [found for trial in trials if (found := value(trial)) is not None]


def _mean(trials: Sequence[Trial], value: Callable[[Trial], float | None]) -> float | None:
    return fmean(values) if (values := _values(trials, value)) else None


def _point(trials: Sequence[Trial]) -> RankedPoint:
    first = trials[0]
    finished = tuple(t for t in trials if t.state == "finished" and t.score is not None and t.num_videos)
    wall_s = _mean(finished, lambda trial: trial.wall_s)
    return RankedPoint(
        point=first.point,
        title=first.title,
        trials=tuple(sorted(trials, key=lambda trial: trial.seed)),
        finished=finished,
        score=None,
        group="without result",
        rank=None,
        gmacs=first.gmacs,
        params=first.params,
        hours=None if wall_s is None else wall_s / 3600,
        clips_per_s=_mean(finished, lambda trial: trial.clips_per_s),
        cpu_s=_mean(finished, lambda trial: trial.cpu_s),
        printed=first.printed,
    )


def _order(point: RankedPoint, primary: ScoreName) -> tuple[float, ...]:
    """By the mean; points without one by how far they came, and by their last validation."""
    if point.score is not None:
        return (0, -point.score.gains[1])
    validated = [
        primary.gain(value) for value in _values(point.trials, lambda trial: trial.val_score) if math.isfinite(value)
    ]
    return (1, -max(trial.epochs for trial in point.trials), -max(validated, default=-math.inf))


def _named(point: RankedPoint, complete: Sequence[RankedPoint]) -> RankedPoint:
    """The point with its group and rank."""
    if point.score is None:
        return point
    rank = next((rank for rank, other in enumerate(complete, start=1) if other is point), None)
    if rank is None:
        return replace(point, group="partly finished")
    best = complete[0].score
    behind = best is not None and best.is_better_than(point.score)
    return replace(point, rank=rank, group="best" if rank == 1 else "behind" if behind else "indistinguishable")


def _front(points: Sequence[RankedPoint], cost: Cost) -> set[int]:
    """Identities of the points that no other dominates; empty where all cost the same."""
    known = [
        (point, point.score.gains, value if not cost.more_is_better else 1 / value)
        for point in points
        if point.score is not None and (value := cost.shown(point)) is not None and value > 0
    ]
    if len({_digits(value) for _, _, value in known}) < 2:
        return set()
    costs = np.array([value for _, _, value in known])
    worst, mean, best = np.array([gains for _, gains, _ in known]).T
    seeds = np.array([len(point.finished) for point, _, _ in known])
    # In all matrices the row is a point that may dominate the column's.
    margin = _noise(points, cost) * costs * np.sqrt(1 / seeds[:, None] + 1 / seeds)
    no_worse = (mean[:, None] >= mean) & (costs[:, None] <= costs + margin)
    is_better = mean[:, None] - mean > np.hypot((mean - worst)[:, None], best - mean)
    dominated = (no_worse & (is_better | (costs[:, None] < costs - margin))).any(axis=0)
    return {id(point) for (point, _, _), out in zip(known, dominated, strict=True) if not out}


def _noise(points: Sequence[RankedPoint], cost: Cost) -> float:
    """Twice the relative noise of one trial's cost: a difference beyond it counts."""
    if cost.of_trial is None:
        return 0.0
    replicas = [values for point in points if len(values := _values(point.finished, cost.of_trial)) > 1]
    if not replicas:
        return 2 * UNKNOWN_NOISE
    freedom = sum(len(values) - 1 for values in replicas)
    squares = sum((len(values) - 1) * variance(values) / fmean(values) ** 2 for values in replicas if fmean(values) > 0)
    return 2 * math.sqrt(squares / freedom)


def _digits(value: float | None) -> str | None:
    """A cost in the digits that a reader sees."""
    return None if value is None else f"{value:.3g}"
