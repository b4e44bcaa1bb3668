"""From the points of clips a second to a run's pace: trend, time of a step, paid hours, time left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Self

from morphmlp.record import MetricPoint
from morphmlp.reporting.status.recorded import RecordedPlan, is_real

GAP_S = 900.0
"""More time than this between two reports, beyond what their steps took, and the command wasn't at work meanwhile."""
_NOW_POINTS, _BEFORE_POINTS = 3, 20
"""Points whose speed is the run's now, and those before them that it's held against."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """From one report with steps to the next."""

    begin_ms: int
    end_ms: int
    steps: int
    last_step: int
    busy_s: float
    """What the steps took, validation after them included, and starts left out."""

    @property
    def held_s(self) -> float:
        """For how long the run held its machines."""
        between_s = max(self.end_ms - self.begin_ms, 0) / 1000
        return between_s if between_s <= self.busy_s + GAP_S else self.busy_s


@dataclass(frozen=True)
class Pace:
    """A run's stretches in order, over all its starts; steps that were repeated count once, as in the record."""

    stretches: Sequence[Stretch]
    speeds: Sequence[float]
    """Clips a second at each of them."""

    @classmethod
    def of(cls, plan: RecordedPlan | None, speeds: Sequence[MetricPoint], *, begin_ms: int) -> Self:
        """By the points of clips a second, in the order of their steps; those that make no sense are left out."""
        found, kept, step = list[Stretch](), list[float](), 0
        for point in speeds:
            if plan is None or not is_real(point) or point.value == 0 or point.step <= step:
                continue
            busy_s = (point.step - step) * plan.clips_per_step / point.value
            stretch = Stretch(
                begin_ms=begin_ms,
                end_ms=point.timestamp_ms,
                steps=point.step - step,
                last_step=point.step,
                busy_s=busy_s,
            )
            found.append(stretch)
            kept.append(point.value)
            begin_ms, step = point.timestamp_ms, point.step
        return cls(found, kept)

    @property
    def trend(self) -> float | None:
        """By how much the last reports are faster than those before them, as a share; slower is below 0."""
        now, before = self.speeds[-_NOW_POINTS:], self.speeds[-_NOW_POINTS - _BEFORE_POINTS : -_NOW_POINTS]
        return mean(now) / median(before) - 1 if len(before) >= _NOW_POINTS else None

    def step_s(self, steps: int) -> float | None:
        """Mean seconds of a step over the last `steps` or more, with what lies between steps."""
        busy_s, counted = 0.0, 0
        for stretch in reversed(self.stretches):
            if counted >= steps:
                break
            busy_s, counted = busy_s + stretch.busy_s, counted + stretch.steps
        return busy_s / counted if counted else None

    def usual_s(self, where: Callable[[int], bool]) -> float | None:
        """Seconds from one report to the next, by those whose steps are like that of the next one; the median."""
        like = [stretch.busy_s for stretch in self.stretches[-500:] if where(stretch.last_step)]
        return median(like) if like else None

    def held(self, starts: Sequence[MetricPoint]) -> list[tuple[float, int]]:
        """Seconds for which machines were held, and the number of workers then."""
        found, workers, following = [], 1, list(starts)
        for stretch in self.stretches:
            while following and following[0].step < stretch.last_step:
                workers = int(following.pop(0).value)
            found.append((stretch.held_s, workers))
        return found
