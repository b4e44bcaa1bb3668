"""What a sweep asks its scheduler: whether a trial that has just been validated trains on as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """The trial stops for good."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Exploit:
    """A member of a population continues from another one's weights, with changed values."""

    donor: int
    """Number of the trial whose weights it takes."""
    donor_epoch: int
    """Epochs that the donor had trained at its last report."""
    donor_score: float
    """In that report."""
    values: Mapping[str, JsonValue]
    """The swept fields from now on."""

    @property
    def reason(self) -> str:
        """Why it stops here."""
        return f"trial {self.donor} has {self.donor_score:.1f} at epoch {self.donor_epoch}"


class SweepScheduler(Protocol):
    """Hears each validation score of a sweep's trials, and decides.

    The same scores in the same order lead to the same decisions, so that a resumed sweep can replay them.
    """

    def on_score(self, number: int, epoch: int, score: float) -> GiveUp | Exploit | None:
        """Take in a score; what the trial does instead of training on.

        Args:
            number: The trial's, from 1.
            epoch: Epochs that its weights were trained.
            score: The task's primary score; NaN where training diverged.
        """
        ...

    def given_up(self, number: int) -> str | None:
        """Why a trial needn't start, whatever it would score."""
        ...


class NoPruning:
    """Every trial trains to its end."""

    def on_score(self, number: int, epoch: int, score: float) -> None:
        """No score stops a trial."""

    def given_up(self, number: int) -> None:
        """No trial is given up."""
