"""Points that Optuna proposes from the results so far, inside the model's shape rules and the budget.

Its journal is a file, so that a sweep goes on after any stop with what it had learnt.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from morphmlp.config.sweep import OptunaSearch, Range, SweepConfig
from morphmlp.tuning.space import ImpossiblePoint, Planner, Point

IMPOSSIBLE_IN_A_ROW = 200
"""Proposals after which the search ends, none of which was possible and new."""
TRIALS_TO_WEIGH = 8
"""Results from which on the fields' importances mean something."""
_STUDY = "sweep"


class OptunaPoints:
    """Asks Optuna's tree-structured Parzen estimator for points, and tells it what they came to."""

    def __init__(self, sweep: SweepConfig, planner: Planner, journal: Path) -> None:
        """Go on with a journal, or begin one.

        Args:
            sweep: The sweep; its search is Optuna's.
            planner: Says which points are possible.
            journal: File for what is known.
        """
        assert isinstance(sweep.search, OptunaSearch)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._planner, self._wanted = planner, sweep.search.num_points
        self._space = {name: _distribution(values) for name, values in sweep.space.items()}
        self._lists = {name for name, values in sweep.space.items() if not isinstance(values, Range)}
        self._study = optuna.create_study(
            study_name=_STUDY,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            # Draws differ from start to start: the same seed again would propose the first points again.
            sampler=optuna.samplers.TPESampler(seed=sweep.search.seed + _count(journal)),
            direction="maximize",
            load_if_exists=True,
        )
        known = self._study.get_trials(deepcopy=False)
        self._waiting = [trial for trial in known if trial.state == TrialState.RUNNING]
        self._numbers: dict[str, int] = {}
        self.impossible: list[ImpossiblePoint] = []
        """Proposals that couldn't run, since this object was made."""
        for trial in known:
            point = self._planner.point(self._values(trial.params))
            if trial.state != TrialState.FAIL and isinstance(point, Point):
                self._numbers[_key(point)] = trial.number

    def next(self) -> Point | None:
        """A point that had been proposed before a stop, or a new one; None where there are enough."""
        while self._waiting:
            point = self._planner.point(self._values(self._waiting.pop(0).params))
            if isinstance(point, Point):
                return point
        if len(self._numbers) >= self._wanted:
            return None
        for _ in range(IMPOSSIBLE_IN_A_ROW):
            trial = self._study.ask(self._space)
            point = self._planner.point(self._values(trial.params))
            if isinstance(point, ImpossiblePoint):
                self.impossible.append(point)
            if isinstance(point, ImpossiblePoint) or _key(point) in self._numbers:
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            self._numbers[_key(point)] = trial.number
            return point
        return None

    def tell(self, point: Point, top1: float | None) -> None:
        """Learn what a point came to; a second time changes nothing."""
        number = self._numbers.get(_key(point))
        if number is None or self._trial(number).state.is_finished():
            return
        if top1 is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, top1)

    def importances(self) -> dict[str, float] | None:
        """Share of the results' variance that each field explains (fANOVA); None from too few results."""
        done = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
        if len(done) < TRIALS_TO_WEIGH or len({trial.value for trial in done}) == 1:
            return None
        found = optuna.importance.get_param_importances(self._study)
        return {name: float(share) for name, share in found.items()}

    def _trial(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _values(self, params: Mapping[str, object]) -> dict[str, JsonValue]:
        """The fields' values; of lists Optuna holds the JSON text."""
        return {
            name: json.loads(str(params[name])) if name in self._lists else params[name]  # type: ignore[misc]
            for name in self._space
        }


def _distribution(values: tuple[JsonValue, ...] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution([json.dumps(value) for value in values])
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    step = None if values.step is None else float(values.step)
    return FloatDistribution(float(values.low), float(values.high), log=values.log, step=step)


def _key(point: Point) -> str:
    return json.dumps(dict(point.values), sort_keys=True)


def _count(journal: Path) -> int:
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0
