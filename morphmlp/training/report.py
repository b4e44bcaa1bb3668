"""What a worker tells the record: step and epoch numbers gathered into points, and broken videos.

Reports are plain values, since they travel between processes and stand in Ray's checkpoint index.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from morphmlp.data.quarantine import BrokenVideo, broken_from_plain, broken_to_plain
from morphmlp.metrics import ScoreCounts
from morphmlp.record import MetricPoint, Metrics
from morphmlp.training.loop import EpochSummary, Recipe, StepSummary

QUARANTINE = "quarantine"
"""Reason to stop: more broken videos than the configuration allows."""


class Report(TypedDict, total=False):
    """One report of one worker. `points` and `progress` come from the first worker only."""

    points: list[tuple[str, float, int, int]]
    """Fields of `MetricPoint`."""
    broken: list[dict[str, str | int | None]]
    """Fields of `BrokenVideo`, its time as text."""
    concealed: int
    """Frames that stand in for damaged ones, since the worker's last report."""
    retried: int
    """Videos that only a second decoder could read, since then."""
    progress: dict[str, float]
    """`step`, `total_steps`, and numbers worth seeing."""
    notes: list[str]
    """Lines for the user."""
    facts: dict[str, str]
    """Tags of the run that only the training nodes know."""
    stopped: str
    """Why the run can't go on; every worker stops after this report."""


def points_of(report: Report) -> list[MetricPoint]:
    """The metric points of a report."""
    return [MetricPoint(*point) for point in report.get("points", [])]


def broken_of(report: Report) -> list[BrokenVideo]:
    """The broken videos of a report."""
    return [broken_from_plain(video) for video in report.get("broken", [])]


@dataclass(kw_only=True)
class Reporter:
    """Gathers summaries between two reports of a worker."""

    recipe: Recipe
    first: bool
    """Whether this worker writes the points."""
    _steps: list[StepSummary] = field(default_factory=list)
    _broken: list[BrokenVideo] = field(default_factory=list)
    _points: list[MetricPoint] = field(default_factory=list)

    def add_step(self, summary: StepSummary) -> None:
        """Keep a step; its numbers stay on the device until the report."""
        self._steps.append(summary)
        self._broken.extend(summary.broken)

    def add_epoch(self, summary: EpochSummary) -> None:
        """Add the epoch's mean training loss."""
        loss_sum, clips, _ = summary.totals.tolist()
        self._point(Metrics.TRAIN_EPOCH_LOSS, loss_sum / max(clips, 1), summary.epoch + 1)

    def add_validation(self, counts: ScoreCounts, broken: Sequence[BrokenVideo], *, epoch: int) -> None:
        """Add the scores of an epoch, already summed over workers."""
        self._broken.extend(broken)
        if counts.num_videos:
            self._point(Metrics.VAL_TOP1, counts.top1, epoch)
            self._point(Metrics.VAL_TOP5, counts.top5, epoch)
            self._point(Metrics.VAL_LOSS, counts.loss, epoch)
        self._point(Metrics.VAL_NUM_VIDEOS, counts.num_videos, epoch)

    def broken_videos(self) -> float:
        """Broken videos over all workers among the steps kept here."""
        return sum(float(step.totals[2]) for step in self._steps)

    def first_not_finite(self) -> int | None:
        """The first step kept here whose loss isn't a number; the loss is over all workers, so they agree."""
        return next((step.step + 1 for step in self._steps if not math.isfinite(float(step.totals[0]))), None)

    def take(self) -> Report:
        """The report, and a fresh start."""
        report: Report = {
            "broken": [broken_to_plain(video) for video in self._broken],
            "concealed": sum(step.concealed for step in self._steps),
            "retried": sum(step.retried for step in self._steps),
        }
        if self.first:
            if self._steps:
                report["progress"] = self._add_window()
            report["points"] = [(p.key, p.value, p.step, p.timestamp_ms) for p in self._points]
        self._steps, self._broken, self._points = [], [], []
        return report

    def _add_window(self) -> dict[str, float]:
        """Points for the steps since the last report: means, at the last step's number."""
        steps = self._steps
        last = steps[-1]
        number = last.step + 1
        clips = sum(float(step.totals[1]) for step in steps)
        loss = sum(float(step.totals[0]) for step in steps) / max(clips, 1)
        seconds = sum(step.step_s for step in steps)
        wait = sum(step.data_wait_s for step in steps)
        self._point(Metrics.TRAIN_LOSS, loss, number)
        self._point(Metrics.TRAIN_LR, last.lr, number)
        self._point(Metrics.TRAIN_GRAD_NORM, sum(float(step.grad_norm) for step in steps) / len(steps), number)
        self._point(Metrics.TRAIN_STEP_S, seconds / len(steps), number)
        self._point(Metrics.TRAIN_DATA_WAIT_S, wait / len(steps), number)
        self._point(Metrics.TRAIN_CLIPS_PER_S, clips / seconds, number)
        return {
            "step": number,
            "total_steps": self.recipe.total_steps,
            "epoch": last.epoch + 1,
            "loss": loss,
            "clips_per_s": clips / seconds,
            "data_wait": wait / seconds,
        }

    def _point(self, key: str, value: float, step: int) -> None:
        self._points.append(MetricPoint(key, value, step, int(time.time() * 1000)))
