"""Who of a population exploits whom, and with which values it continues.

After Jaderberg et al., Population Based Training of Neural Networks, 2017: truncation selection, asynchronous. Knows no
trial and no checkpoint; all chance comes from counter-based keys, so that the same reports in the same order always
lead to the same decisions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from morphmlp.config.sweep import PopulationSearch, Range, SweepConfig
from morphmlp.data.stream.plan import random_generator
from morphmlp.tuning.space.space import ImpossiblePoint, Point, drawn

FACTORS = (0.8, 1.2)
"""A number of a range is multiplied by one of the two; the published ones."""
RESAMPLE_CHANCE = 0.25
"""Chance that a field is drawn anew instead."""
EXPLORE_TRIES = 100
"""Changes that are drawn before a member goes on with its donor's values, where none was possible."""


@dataclass(frozen=True, kw_only=True)
class Exploit:
    """A member goes on with another one's weights, under changed values."""

    member: int
    """Who changes: its number, from 1."""
    donor: int
    """Whose weights it takes."""
    donor_epoch: int
    """Epochs that the donor had trained at its last report."""
    donor_top1: float
    """Percent, in that report."""
    values: Mapping[str, JsonValue]
    """The swept fields from now on."""


@dataclass(frozen=True, kw_only=True)
class _Report:
    epoch: int
    top1: float
    """Minus infinity where it diverged."""


class Population:
    """The members' values and last reports. Members are numbered from 1, in the order of their first points."""

    def __init__(
        self,
        sweep: SweepConfig,
        points: Sequence[Point],
        *,
        epochs: int,
        make_point: Callable[[Mapping[str, JsonValue]], Point | ImpossiblePoint],
    ) -> None:
        """Begin; `decide`, told the known reports in their order, brings the state back after a stop.

        Args:
            sweep: The sweep; its search is a population's.
            points: The first one of each member, as `expand` finds them.
            epochs: Of a whole training.
            make_point: A point of these values (`Planner.point`).
        """
        assert isinstance(sweep.search, PopulationSearch)
        self._search, self._space = sweep.search, sweep.space
        self._first, self._epochs, self._make_point = tuple(points), epochs, make_point
        self._values = {member: dict(point.values) for member, point in enumerate(points, 1)}
        self._changes = dict.fromkeys(self._values, 0)
        self._reports: dict[int, _Report] = {}

    def first_points(self) -> tuple[Point, ...]:
        """What the members begin with."""
        return self._first

    def values(self, member: int) -> Mapping[str, JsonValue]:
        """What a member trains with now.

        After a replay, one whose files still hold other values hasn't carried out its last exploit.
        """
        return dict(self._values[member])

    def decide(self, member: int, epoch: int, top1: float | None) -> Exploit | None:
        """Take in a member's report, and say whether it exploits another.

        What is returned counts as done: the member has the new values, and isn't compared until it reports again.

        Args:
            member: Its number, from 1.
            epoch: Epochs that its weights were trained.
            top1: Of its validation, percent; None where its training diverged.
        """
        diverged = top1 is None or math.isnan(top1)
        self._reports[member] = _Report(epoch=epoch, top1=-math.inf if top1 is None or diverged else top1)
        if epoch >= self._epochs or not (diverged or epoch % self._search.every_epochs == 0):
            return None
        ranked = sorted(self._reports, key=lambda known: (self._reports[known].top1, known))
        share = math.floor(len(ranked) * self._search.quantile + 1e-9)
        if not diverged and member not in ranked[:share]:
            return None
        donors = [donor for donor in ranked[len(ranked) - share :] if self._is_donor(donor, member)]
        if not donors:
            return None
        key = (self._search.seed, "population", member, epoch, self._changes[member])
        donor = donors[int(random_generator(*key, "donor").integers(len(donors)))]
        self._values[member] = self._explored(self._values[donor], key)
        self._changes[member] += 1
        del self._reports[member]
        given = self._reports[donor]
        return Exploit(
            member=member,
            donor=donor,
            donor_epoch=given.epoch,
            donor_top1=given.top1,
            values=dict(self._values[member]),
        )

    def _is_donor(self, donor: int, member: int) -> bool:
        """Better, and not at its end: from there nothing could be learnt any more."""
        given = self._reports[donor]
        return given.top1 > self._reports[member].top1 and given.epoch < self._epochs

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
