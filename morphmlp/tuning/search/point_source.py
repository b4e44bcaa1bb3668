"""Where a sweep's points come from: all known at the start, or proposed one after the other from results."""

from collections.abc import Iterable
from typing import Protocol

from morphmlp.tuning.space.space import Point


class PointSource(Protocol):
    """Proposes points."""

    def next(self) -> Point | None:
        """The next point to try; None where there is none any more."""
        ...

    def tell(self, point: Point, top1: float | None) -> None:
        """Learn what a point came to: top-1, percent, over its seeds; None where it failed."""
        ...


class ListedPoints:
    """Points that are all known at the start."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points = iter(points)

    def next(self) -> Point | None:
        """The next of them."""
        return next(self._points, None)

    def tell(self, point: Point, top1: float | None) -> None:
        """Nothing follows from results."""
