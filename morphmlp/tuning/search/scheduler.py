"""What a sweep asks its search: which point is next; and its scheduler: whether a validated trial trains on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from morphmlp.config.values import Unit
from morphmlp.tuning.space.space import ImpossiblePoint, Point


class PointSource:
    """Says which point is next; here all are known at the start, and nothing follows from results."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points = iter(points)
        self.impossible: list[ImpossiblePoint] = []
        """Points that were found while the sweep ran and couldn't run."""
        self.notes: list[str] = []
        """Lines for the user, where the search ended early."""

    def next(self) -> Point | None:
        """The next point to try; None where there is none any more."""
        return next(self._points, None)

    def tell(self, point: Point, score: float | None) -> None:
        """Learn what a point came to: its score, the mean over its seeds; None where it failed."""

    def importances(self) -> dict[str, float] | None:
        """How much each field matters, where the search weighs them and has enough results."""
        return None


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """The trial stops for good."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Exploit:
    """A member of a population continues from another one's weights, with changed values."""

    donor: int
    """Number of the trial whose weights it takes."""
    donor_at: int
    """Epochs or steps that the donor had trained at its last report."""
    donor_score: float
    """In that report."""
    values: Mapping[str, JsonValue]
    """The swept fields from now on."""
    unit: Unit = "epoch"
    """What the trials' length is counted in."""

    @property
    def reason(self) -> str:
        """Why it stops here."""
        return f"trial {self.donor} has {self.donor_score:.1f} at {self.unit} {self.donor_at}"


class SweepScheduler:
    """Hears each validation score of a sweep's trials, and decides; this one lets every trial train to its end.

    The same scores in the same order lead to the same decisions, so that a resumed sweep can replay them.
    """

    def on_score(self, number: int, at: int, score: float) -> GiveUp | Exploit | None:
        """Take in a score; what the trial does instead of training on.

        Numbers of trials count from 1; the weights were trained for so many epochs or steps. The score is the task's
        primary one, NaN where training diverged.
        """
        return None

    def given_up(self, number: int) -> str | None:
        """Why a trial needn't start, or train on, whatever it would score."""
        return None
