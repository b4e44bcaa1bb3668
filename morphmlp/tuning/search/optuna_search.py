"""Points that Optuna proposes from the results so far, inside the model's shape rules and the budget.

Its journal is a file, so that a sweep resumes after any stop with what it had learnt. One process works with it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import JsonValue

from morphmlp.config.sweep import OptunaSearch, Range
from morphmlp.line_file import remove_truncated_line
from morphmlp.tasks.scores import ScoreName
from morphmlp.tuning.search.scheduler import PointSource
from morphmlp.tuning.space.space import ImpossiblePoint, Planner, Point

IMPOSSIBLE_IN_A_ROW = 200
"""Proposals after which the search ends, none of which was possible and new."""
GUIDED_IN_A_ROW = 20
"""So many of them come from the estimator, the others from chance: it may insist on what is known."""
RANDOM_POINTS = 10
"""Results from which on the estimator proposes."""
IMPOSSIBLE_PER_RESULT = 3
"""Impossible proposals that the estimator learns from, for each result; with more it would take some for good ones."""
TRIALS_TO_WEIGH = 8
"""Results from which on the fields' importances mean something."""
_STUDY = "sweep"


class OptunaPoints(PointSource):
    """Asks Optuna's tree-structured Parzen estimator for points, and tells it what they came to."""

    def __init__(
        self,
        search: OptunaSearch,
        space: Mapping[str, tuple[JsonValue, ...] | Range],
        score: ScoreName,
        planner: Planner,
        journal: Path,
    ) -> None:
        """Continue a journal, with which no other process may work, or begin one; points are compared by `score`."""
        super().__init__(())
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # A killed process may have left its lock, for which Optuna waits, and a line that it didn't end.
        Path(f"{journal}.lock").unlink(missing_ok=True)
        remove_truncated_line(journal)
        # Draws differ from start to start: the same seed again would propose the first points again.
        seed = search.seed + (len(journal.read_bytes().splitlines()) if journal.exists() else 0)
        self._guided: BaseSampler = TPESampler(n_startup_trials=RANDOM_POINTS, seed=seed)
        self._by_chance: BaseSampler = RandomSampler(seed=seed + 1)
        self._planner, self._num_points = planner, search.num_points
        self._ranges = space
        self._space = {name: _distribution(values) for name, values in space.items()}
        self._study = optuna.create_study(
            study_name=_STUDY,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            sampler=self._guided,
            direction="maximize" if score.higher_is_better else "minimize",
            load_if_exists=True,
        )
        self._numbers: dict[str, int] = {}
        self._waiting: list[Point] = []
        self._learnt = self._take_up(self._study.get_trials(deepcopy=False))

    def next(self) -> Point | None:
        """A point that had been proposed before a stop, or a new one; None where there are enough, or no more."""
        if self._waiting:
            return self._waiting.pop(0)
        if len(self._numbers) >= self._num_points:
            return None
        for attempt in range(IMPOSSIBLE_IN_A_ROW):
            self._study.sampler = self._guided if attempt < GUIDED_IN_A_ROW else self._by_chance
            trial = self._study.ask(self._space)
            point = self._planner.point(self._values(trial.params))
            if isinstance(point, ImpossiblePoint):
                self._refuse(trial.number, point)
            elif point.key in self._numbers:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._numbers[point.key] = trial.number
                return point
        if not self.notes:
            self.notes.append(
                f"search.num_points: is {self._num_points}, but only {len(self._numbers)} points were found; "
                f"{IMPOSSIBLE_IN_A_ROW} proposals in a row were impossible or known"
            )
        return None

    def tell(self, point: Point, score: float | None) -> None:
        """Learn what a point came to; a second time changes nothing, unless it had failed at first."""
        if (number := self._numbers.get(point.key)) is None:
            return
        known = self._study.get_trials(deepcopy=False)[number]
        if not known.state.is_finished():
            # To the estimator a failed point is a bad one.
            self._study.tell(number, score, state=TrialState.PRUNED if score is None else TrialState.COMPLETE)
        elif score is not None and known.state != TrialState.COMPLETE:
            self._numbers[point.key] = len(self._study.get_trials(deepcopy=False))
            self._study.add_trial(create_trial(value=score, params=known.params, distributions=known.distributions))

    def importances(self) -> dict[str, float] | None:
        """Share of each field in what separates good results from others (PED-ANOVA); None from too few results."""
        done = self._results()
        if len(done) < TRIALS_TO_WEIGH or len({trial.value for trial in done}) == 1:
            return None
        found = optuna.importance.get_param_importances(self._study)
        return {name: float(share) for name, share in found.items()}

    def _take_up(self, known: list[FrozenTrial]) -> int:
        """Sort out what the journal holds; returns the impossible proposals that the estimator learns from."""
        learnt = 0
        for trial in known:
            complete = trial.params.keys() >= self._space.keys()
            point = self._planner.point(self._values(trial.params)) if complete else None
            if not isinstance(point, Point):
                learnt += trial.state == TrialState.PRUNED
                if not trial.state.is_finished():  # a stop came before it was refused
                    self._study.tell(trial.number, state=TrialState.FAIL)
            elif point.key not in self._numbers:
                self._numbers[point.key] = trial.number
                if not trial.state.is_finished():
                    self._waiting.append(point)
            elif trial.state == TrialState.COMPLETE:  # it had failed at first
                self._numbers[point.key] = trial.number
            elif not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)
        return learnt

    def _refuse(self, number: int, point: ImpossiblePoint) -> None:
        """Let the estimator know that a proposal is impossible.

        One that it never hears of stays attractive to it: it seeks values that are rare among bad results.
        """
        if point not in self.impossible:
            self.impossible.append(point)
        results = len(self._results())
        if results >= RANDOM_POINTS and self._learnt < IMPOSSIBLE_PER_RESULT * results:
            self._learnt += 1
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, state=TrialState.FAIL)

    def _results(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _values(self, params: Mapping[str, object]) -> dict[str, JsonValue]:
        """The fields' values; of lists Optuna holds the JSON text, of ranges with an end the index."""
        return {name: _value(values, params[name]) for name, values in self._ranges.items()}


def _distribution(values: tuple[JsonValue, ...] | Range) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution([json.dumps(value) for value in values])
    if values.count is not None:
        return IntDistribution(0, values.count - 1)
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(float(values.low), float(values.high), log=values.log)


def _value(values: tuple[JsonValue, ...] | Range, param: object) -> JsonValue:
    if not isinstance(values, Range):
        value: JsonValue = json.loads(str(param))
        return value
    assert isinstance(param, int | float)
    return param if values.count is None else values.number(int(param))
