"""Who of a population exploits whom, and with which values it continues.

After Jaderberg et al., Population Based Training of Neural Networks, 2017: truncation selection, asynchronous. All
chance comes from counter-based keys, so that the same reports in the same order always lead to the same decisions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from morphmlp.config.sweep import PopulationSearch, Range
from morphmlp.config.values import Unit
from morphmlp.data.stream.plan import random_generator
from morphmlp.tasks.scores import ScoreName
from morphmlp.tuning.search.scheduler import Exploit, SweepScheduler
from morphmlp.tuning.space.space import ImpossiblePoint, Point, drawn

FACTORS = (0.8, 1.2)
"""A number of a range is multiplied by one of the two; the published ones."""
RESAMPLE_CHANCE = 0.25
"""Chance that a field is drawn anew instead."""
EXPLORE_TRIES = 100
"""Changes that are drawn before a member continues with its donor's values, where none was possible."""


@dataclass(frozen=True, kw_only=True)
class _Report:
    at: int
    """Epochs or steps."""
    score: float
    rank: float
    """Higher is better, whatever the score; minus infinity where it diverged."""


class Population(SweepScheduler):
    """The members' values and last reports. Members are numbered from 1, in the order of their first points."""

    def __init__(
        self,
        search: PopulationSearch,
        space: Mapping[str, Sequence[JsonValue] | Range],
        points: Sequence[Point],
        *,
        score: ScoreName,
        whole: int,
        unit: Unit = "epoch",
        make_point: Callable[[Mapping[str, JsonValue]], Point | ImpossiblePoint],
    ) -> None:
        """Begin; the known reports in their order bring the state back after a stop.

        `points` are the members' first ones, and `whole` is a whole training's length in epochs or steps.
        """
        self._search, self._space = search, space
        self._sign, self._whole, self._unit = 1 if score.higher_is_better else -1, whole, unit
        self._every = search.every_epochs if unit == "epoch" else search.every_steps or 1
        self._make_point = make_point
        self._values = {member: dict(point.values) for member, point in enumerate(points, 1)}
        self._changes = dict.fromkeys(self._values, 0)
        self._reports: dict[int, _Report] = {}

    def values(self, member: int) -> Mapping[str, JsonValue]:
        """What a member trains with now."""
        return dict(self._values[member])

    def on_score(self, number: int, at: int, score: float) -> Exploit | None:
        """Take in a member's report, and say whether it exploits another.

        What is returned counts as done: the member has the new values, and isn't compared until it reports again.
        """
        diverged = math.isnan(score)
        rank = -math.inf if diverged else self._sign * score
        self._reports[number] = _Report(at=at, score=score, rank=rank)
        if at >= self._whole or not (diverged or at % self._every == 0):
            return None
        ranked = sorted(self._reports, key=lambda known: (self._reports[known].rank, known))
        share = math.floor(len(ranked) * self._search.quantile + 1e-9)
        if not diverged and number not in ranked[:share]:
            return None
        donors = [donor for donor in ranked[len(ranked) - share :] if self._is_donor(donor, number)]
        if not donors:
            return None
        key = (self._search.seed, "population", number, at, self._changes[number])
        donor = donors[int(random_generator(*key, "donor").integers(len(donors)))]
        self._values[number] = self._explored(self._values[donor], key)
        self._changes[number] += 1
        del self._reports[number]
        given = self._reports[donor]
        values = dict(self._values[number])
        return Exploit(donor=donor, donor_at=given.at, donor_score=given.score, values=values, unit=self._unit)

    def _is_donor(self, donor: int, member: int) -> bool:
        """Better, and not at its end: from there nothing could be learnt any more."""
        given = self._reports[donor]
        return given.rank > self._reports[member].rank and given.at < self._whole

    def _explored(self, values: Mapping[str, JsonValue], key: tuple[int | str, ...]) -> dict[str, JsonValue]:
        for attempt in range(EXPLORE_TRIES):
            rng = random_generator(*key, "explore", attempt)
            changed = {name: _changed(choices, values[name], rng) for name, choices in self._space.items()}
            point = self._make_point(changed)
            if isinstance(point, Point):
                return dict(point.values)
        return dict(values)


def _changed(choices: Sequence[JsonValue] | Range, value: JsonValue, rng: np.random.Generator) -> JsonValue:
    """A value close by, or with some chance any."""
    if rng.random() < RESAMPLE_CHANCE:
        return drawn(choices, rng)
    up = bool(rng.random() < 0.5)
    listed = choices.listed() if isinstance(choices, Range) else choices
    if listed is not None:
        index = listed.index(value) + (1 if up else -1)
        return listed[min(max(index, 0), len(listed) - 1)]
    assert isinstance(choices, Range)
    assert isinstance(value, int | float)
    number = min(max(value * FACTORS[up], choices.low), choices.high)
    return round(number) if choices.is_whole else float(number)
