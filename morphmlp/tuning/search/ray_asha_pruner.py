"""Which trials of a sweep stop early: Ray Tune's asynchronous successive halving, asked trial by trial.

Tune's scheduler ends a trial by ending its process. Here it only gives its opinion, so that a trial that is stopped
saves, closes its record and hands its workers back; and it can be told again what was known before a stop.

The trials of a point with its seeds share their fate: else a sweep would end with single seeds of many points, of which
none can be compared with another.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from morphmlp.config.sweep import Asha, NoScheduler
from morphmlp.training.workers.stops import StopReason

EPOCH, SCORE = "epoch", "val_top1"
"""What trials report to Tune: the epoch and its validation top-1, percent."""


class AshaPruner:
    """Decides after each epoch of a trial whether it goes on."""

    stop_reason = StopReason.PRUNED
    """What a trial that shall stop is asked for."""

    def __init__(self, scheduler: Asha | NoScheduler, *, epochs: int, point_of: Callable[[int], str] = str) -> None:
        """Begin without knowledge.

        Args:
            scheduler: The sweep's.
            epochs: Of a whole training; a trial that has come so far isn't stopped any more.
            point_of: The point of a trial's number, the same for all its seeds; by default each has one of its own.
        """
        self._epochs, self._point_of = epochs, point_of
        self._first: dict[tuple[str, int], int] = {}  # by point and epoch: the trial that came there first
        self._given_up: dict[str, int] = {}  # by point: the trial with which it was given up
        self._known: dict[int, Any] = {}
        self._nobody: Any = None  # the place of Tune's controller, which the scheduler doesn't ask
        self._asha: AsyncHyperBandScheduler | None = None
        self.stopped: dict[int, str] = {}
        """Trials that shall stop, by number, with the reason."""
        if isinstance(scheduler, Asha):
            self._asha = AsyncHyperBandScheduler(
                time_attr=EPOCH,
                metric=SCORE,
                mode="max",
                max_t=max(epochs, scheduler.grace_epochs),
                grace_period=scheduler.grace_epochs,
                reduction_factor=scheduler.reduction_factor,
                stop_last_trials=False,
            )
            self._share = 1 / scheduler.reduction_factor

    def take(self, number: int, epoch: int, top1: float) -> str | None:
        """Take in a score; why the trial shall stop, if it shall. The same score again changes nothing.

        The first trial of a point that comes to an epoch is compared with those of the others; the rest follow.
        """
        if self._asha is None or epoch >= self._epochs or number in self.stopped:
            return self.stopped.get(number)
        point = self._point_of(number)
        if (reason := self.given_up(number)) is not None:
            self.stopped[number] = reason
        elif self._first.setdefault((point, epoch), number) == number and self._is_behind(number, epoch, top1):
            self._given_up[point] = number
            self.stopped[number] = (
                f"validation top-1 {top1:.1f} at epoch {epoch} is not among the best {self._share:.0%} so far"
            )
        return self.stopped.get(number)

    def given_up(self, number: int) -> str | None:
        """Why a trial needn't start, or go on, whatever it scores."""
        behind = self._given_up.get(self._point_of(number), number)
        return None if behind == number else "another seed of its point was behind"

    def _is_behind(self, number: int, epoch: int, top1: float) -> bool:
        assert self._asha is not None
        if number not in self._known:
            self._known[number] = SimpleNamespace(trial_id=str(number))
            self._asha.on_trial_add(self._nobody, self._known[number])
        verdict = self._asha.on_trial_result(self._nobody, self._known[number], {EPOCH: epoch, SCORE: top1})
        return bool(verdict == TrialScheduler.STOP)
