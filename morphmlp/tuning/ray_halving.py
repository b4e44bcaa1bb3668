"""Which trials of a sweep stop early: Ray Tune's asynchronous successive halving, asked trial by trial.

Tune's scheduler ends a trial by ending its process. Here it only gives its opinion, so that a trial that is stopped
saves, closes its record and hands its workers back; and it can be told again what was known before a stop.
"""

from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from morphmlp.config.sweep import Asha, NoScheduler
from morphmlp.tuning.trial_log import BEHIND

EPOCH, SCORE = "epoch", "val_top1"
"""What trials report to Tune: the epoch and its validation top-1, percent."""


class Halving:
    """Decides after each epoch of a trial whether it goes on."""

    request = BEHIND
    """What a trial that shall stop is asked for."""

    def __init__(self, scheduler: Asha | NoScheduler, *, epochs: int) -> None:
        """Begin without knowledge.

        Args:
            scheduler: The sweep's.
            epochs: Of a whole training; a trial that has come so far isn't stopped any more.
        """
        self._epochs = epochs
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
        """Take in a score; why the trial shall stop, if it shall. The same score again changes nothing."""
        if self._asha is None or epoch >= self._epochs or number in self.stopped:
            return self.stopped.get(number)
        if number not in self._known:
            self._known[number] = SimpleNamespace(trial_id=str(number))
            self._asha.on_trial_add(self._nobody, self._known[number])
        verdict = self._asha.on_trial_result(self._nobody, self._known[number], {EPOCH: epoch, SCORE: top1})
        if verdict == TrialScheduler.STOP:
            self.stopped[number] = (
                f"validation top-1 {top1:.1f} at epoch {epoch} is not among the best {self._share:.0%} so far"
            )
        return self.stopped.get(number)
