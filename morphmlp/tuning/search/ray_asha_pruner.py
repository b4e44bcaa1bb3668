"""Which trials of a sweep stop early: Ray Tune's asynchronous successive halving, asked trial by trial.

Tune's scheduler ends a trial by ending its process. Here it only gives its opinion, so that a trial that is stopped
saves, closes its record and hands its workers back; and a resumed sweep can replay what was known before.

The trials of a point with its seeds share their fate: else a sweep would end with single seeds of many points, of which
none can be compared with another.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from morphmlp.config.sweep import Asha
from morphmlp.config.values import Unit
from morphmlp.tasks.scores import ScoreName
from morphmlp.tuning.search.scheduler import GiveUp, SweepScheduler

_AT, _SCORE = "at", "score"


class AshaPruner(SweepScheduler):
    """Decides after each validation of a trial whether it trains on."""

    def __init__(
        self,
        scheduler: Asha,
        score: ScoreName,
        *,
        whole: int,
        unit: Unit = "epoch",
        first_at: int = 1,
        point_of: Callable[[int], str] = str,
    ) -> None:
        """Begin without knowledge.

        `whole` is a whole training's length in epochs or steps; a trial that has come so far isn't stopped any more.
        `first_at` is what a trial gets where the length is in steps and the scheduler doesn't say. `point_of` gives the
        point of a trial's number, the same for all its seeds; by default each trial has one of its own.
        """
        self._score, self._whole, self._unit, self._point_of = score, whole, unit, point_of
        grace = scheduler.grace_epochs if unit == "epoch" else scheduler.grace_steps or first_at
        self._share = 1 / scheduler.reduction_factor
        self._first: dict[tuple[str, int], int] = {}  # by point and epochs or steps: the trial that came there first
        self._given_up: dict[str, int] = {}  # by point: the trial with which it was given up
        self._known: dict[int, Any] = {}
        self._nobody: Any = None  # the place of Tune's controller, which the scheduler doesn't ask
        self._asha = AsyncHyperBandScheduler(
            time_attr=_AT,
            metric=_SCORE,
            mode="max" if score.higher_is_better else "min",
            max_t=max(whole, grace),
            grace_period=grace,
            reduction_factor=scheduler.reduction_factor,
            stop_last_trials=False,
        )
        self.stopped: dict[int, str] = {}
        """Trials that stop, by number, with the reason."""

    def on_score(self, number: int, at: int, score: float) -> GiveUp | None:
        """Take in a score; the trial's end, if it is behind. The same score again changes nothing.

        The first trial of a point that comes so far is compared with those of the others; the rest follow.
        """
        if at < self._whole and number not in self.stopped:
            point = self._point_of(number)
            if (reason := self.given_up(number)) is not None:
                self.stopped[number] = reason
            elif self._first.setdefault((point, at), number) == number and self._is_behind(number, at, score):
                self._given_up[point] = number
                self.stopped[number] = (
                    f"validation {self._score.title} {score:.1f} at {self._unit} {at} is not among the best "
                    f"{self._share:.0%} so far"
                )
        return GiveUp(reason=self.stopped[number]) if number in self.stopped else None

    def given_up(self, number: int) -> str | None:
        """Why a trial needn't start, or train on, whatever it scores."""
        behind = self._given_up.get(self._point_of(number), number)
        return None if behind == number else "another seed of its point was behind"

    def _is_behind(self, number: int, at: int, score: float) -> bool:
        if number not in self._known:
            self._known[number] = SimpleNamespace(trial_id=str(number))
            self._asha.on_trial_add(self._nobody, self._known[number])
        verdict = self._asha.on_trial_result(self._nobody, self._known[number], {_AT: at, _SCORE: score})
        return bool(verdict == TrialScheduler.STOP)
