"""A worker's side of the record: step and epoch numbers gathered into the points of a report."""

import json
import math
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field

import torch

from morphmlp.data.quarantine import BrokenVideo, broken_to_plain
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.line_file import LineFile
from morphmlp.record import MetricPoint, Metrics
from morphmlp.tasks.task import Counts
from morphmlp.training.loop.loop import Recipe, RoundSummary, StepSummary, StepTotals
from morphmlp.training.record.accounting import TRAINING_PASSES, TimeWindow, node_busy_s
from morphmlp.training.record.report import Report

_REMEMBERED = 32
"""Reports that a checkpoint carries though they were made before it. The last three may be on their way to Ray's
controller; the others are for a machine that fails before its disk has the lines written last."""


@dataclass(kw_only=True)
class Reporter:
    """Gathers summaries between two reports of a worker; made when the worker is ready to train."""

    recipe: Recipe
    first: bool
    """Whether this worker writes the points."""
    gmacs_per_view: float
    """Billion multiply-accumulates of a forward pass of one view."""
    broken_found: LineFile | None = None
    """Where broken videos are written down at once; what the first worker meets is in its checkpoints."""
    _written: set[BrokenVideo] = field(default_factory=set)
    """Of these, each once: it is met again in every epoch."""
    _steps: list[StepSummary] = field(default_factory=list)
    _broken: list[BrokenVideo] = field(default_factory=list)
    _points: list[MetricPoint] = field(default_factory=list)
    _workers: int = 1
    _place: tuple[int, int] = (1, 0)
    """Epoch, counted from 1, and steps taken, at the last report."""
    _since: float = field(init=False)
    """When the last report was made."""
    _node_cpu_s: float = field(init=False)
    """CPU seconds of the node until then."""
    _begun: bool = False
    """A first batch was there."""
    _start_s: float = 0.0
    _first_wait_s: float = 0.0
    """Of the start: what the first step counts as waiting."""
    _stepless_s: float = 0.0
    """Time of the reports without a step since the last one with steps."""
    _cpu_s: float = 0.0
    """CPU seconds of this process up to the last report; at first none, so that its start counts."""
    _validation_cpu_s: float = 0.0
    """Of decoding validation videos since then."""
    _attempt: str = field(default_factory=lambda: secrets.token_hex(4))
    """This worker's life, in the names of its reports."""
    _taken: int = 0
    """Reports so far."""
    _carried: list[str] = field(default_factory=list)
    """What the checkpoint carried from which this worker continues, until the first report."""
    _latest: deque[list[str]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """What the latest reports told, as a checkpoint carries it."""

    def __post_init__(self) -> None:
        """Begin to account for time."""
        self._since, self._node_cpu_s = time.perf_counter(), node_busy_s()

    def add_start(self, workers: int, step: int, carried: Sequence[str] = ()) -> None:
        """Add the number of workers of a group that continues after so many steps.

        `carried` are the reports of its checkpoint, see `unrecorded`.
        """
        self._carried = list(carried)
        self._workers = workers
        self._place = (step // self.recipe.plan.steps_per_epoch + 1, step)
        self._point(Metrics.TRAIN_WORKERS, workers, step)

    def add_step(self, summary: StepSummary) -> None:
        """Keep a step; its numbers stay on the device until the report."""
        if not self._begun:
            times = summary.times
            self._start_s = time.perf_counter() - self._since - (times.step_s - times.asked_s)
            self._first_wait_s = times.asked_s
            self._begun = True
        self._steps.append(summary)
        self._add_broken(summary.broken)

    def add_round(self, summary: RoundSummary) -> None:
        """Add the round's mean training loss."""
        totals = summary.totals
        loss = float(totals.loss_sum) / max(float(totals.clips), 1)
        length = self.recipe.length
        key = Metrics.TRAIN_EPOCH_LOSS if length.unit == "epoch" else Metrics.TRAIN_ROUND_LOSS
        self._point(key, loss, length.at(summary.step))

    def add_validation(self, counts: Counts, broken: Sequence[BrokenVideo], *, at: int) -> None:
        """Add the scores of a validation that is named by `at`, already summed over workers."""
        self._add_broken(broken)
        if counts.num_videos:
            scores = counts.scores()
            for name in self.recipe.task.scores:
                self._point(name.val_metric, scores[name.key], at)
            self._point(Metrics.VAL_LOSS, counts.loss, at)
        self._point(Metrics.VAL_NUM_VIDEOS, int(counts.num_videos), at)

    def validation_clips(self, batches: Iterable[MicroBatch]) -> Iterator[MicroBatch]:
        """Pass micro-batches on; the CPU time of their decoding stands in the next report."""
        for batch in batches:
            self._validation_cpu_s += batch.cpu_s
            yield batch

    def take(self) -> Report:
        """The report, and a fresh start."""
        report = self._gathered()
        if self.first:
            self._taken += 1
            report["name"] = f"{self._attempt}-{self._taken}"
            self._latest.append([*self._carried, _as_carried(report)])
            if self._carried:
                report["earlier"], self._carried = self._carried, []
        return report

    def unrecorded(self) -> list[str]:
        """The latest reports, as JSON, and what would be reported now: of a checkpoint of this state.

        Whoever continues from it reports them once more, and the record takes those that it lacks: a worker that is
        killed after its checkpoint was written may not have reported what led to it, and what it had may be lost on
        the way. What is reported later has the name that it has here, so that the record takes one of the two.
        """
        other = copy(self)
        other._points, other._latest = list(self._points), deque(self._latest)  # those that `take` changes in place
        other.take()
        return [report for reports in other._latest for report in reports]

    def _add_broken(self, videos: Sequence[BrokenVideo]) -> None:
        self._broken.extend(videos)
        if self.broken_found is not None:
            for video in videos:
                if video not in self._written:
                    self.broken_found.append(json.dumps(broken_to_plain(video)))
                    self._written.add(video)

    def _gathered(self) -> Report:
        report: Report = {"broken": [broken_to_plain(video) for video in self._broken]}
        if self.first:
            window = self._window()
            report["window"] = window.to_plain()
            if self._steps:
                report["progress"] = self._add_window(window)
            elif self._begun:
                self._stepless_s += window.wall_s
            report["points"] = [(p.key, p.value, p.step, p.timestamp_ms) for p in self._points]
        now = time.process_time()
        report["cpu_s"] = now - self._cpu_s + self._validation_cpu_s
        self._cpu_s, self._validation_cpu_s = now, 0.0
        self._steps, self._broken, self._points = [], [], []
        return report

    def _window(self) -> TimeWindow:
        """The time since the last report."""
        steps = self._steps
        if steps:
            self._place = (steps[-1].epoch + 1, steps[-1].step + 1)
        epoch, number = self._place
        totals = self._totals()  # on a GPU this waits for the last step, which belongs to the window
        now = time.perf_counter()
        window = TimeWindow(
            epoch=epoch,
            step=number,
            steps=len(steps),
            workers=self._workers,
            clips=0.0 if totals is None else float(totals.clips.sum()),
            wall_s=now - self._since,
            start_s=self._start_s if self._begun else now - self._since,
            wait_s=sum(step.times.wait_s for step in steps) - self._first_wait_s,
            compute_s=sum(step.times.compute_s for step in steps),
            all_reduce_s=sum(step.times.all_reduce_s for step in steps),
            decode_cpu_s=0.0 if totals is None else float(totals.decode_cpu_s.sum()),
            node_cpu_s=(node_cpu_s := node_busy_s()) - self._node_cpu_s,
        )
        self._since, self._node_cpu_s = now, node_cpu_s
        return window

    def _add_window(self, window: TimeWindow) -> dict[str, float]:
        """Points for the steps since the last report: means, at the last step's number."""
        number, steps, clips = window.step, window.steps, window.clips
        seconds = self._stepless_s + window.wall_s - window.start_s
        per_step = {
            Metrics.TRAIN_STEP_S: sum(step.times.step_s for step in self._steps) - self._first_wait_s,
            Metrics.TRAIN_DATA_WAIT_S: window.wait_s,
            Metrics.TRAIN_COMPUTE_S: window.compute_s,
            Metrics.TRAIN_ALL_REDUCE_S: window.all_reduce_s,
            Metrics.TRAIN_OTHER_S: self._stepless_s + window.other_s,
        }
        loss = self._add_losses(number)
        self._point(Metrics.TRAIN_LR, self._steps[-1].lr, number)
        for key, total in per_step.items():
            self._point(key, total / steps, number)
        if window.start_s:
            self._point(Metrics.TRAIN_START_S, window.start_s, number)
        self._point(Metrics.TRAIN_CLIPS_PER_S, clips / seconds, number)
        self._point(Metrics.TRAIN_GMACS_PER_S, clips / seconds * self.gmacs_per_view * TRAINING_PASSES, number)
        if clips:
            self._point(Metrics.TRAIN_CPU_S_PER_CLIP, window.decode_cpu_s / clips, number)
        self._start_s = self._first_wait_s = self._stepless_s = 0.0
        return {
            "step": number,
            "total_steps": self.recipe.total_steps,
            "epoch": window.epoch,
            "loss": loss,
            "clips_per_s": clips / seconds,
            "data_wait": window.wait_s / seconds,
        }

    def _add_losses(self, number: int) -> float:
        """Points of what the steps found; returns the mean loss, NaN where there is none."""
        if (totals := self._totals()) is None:
            return math.nan
        counts = {
            Metrics.TRAIN_CONCEALED: totals.concealed.sum(),
            Metrics.TRAIN_RETRIED: totals.retried.sum(),
            Metrics.TRAIN_SKIPPED_STEPS: totals.skipped.sum(),
        }
        for key, count in counts.items():
            if count:
                self._point(key, int(count), number)
        taken = totals.skipped == 0
        if not taken.any():
            return math.nan
        # A skipped step counts no clips and no loss.
        loss = float(sum(totals.loss_sum.tolist())) / max(float(totals.clips.sum()), 1)
        grad_norms = torch.stack([step.grad_norm for step in self._steps]).cpu()[taken].tolist()
        self._point(Metrics.TRAIN_LOSS, loss, number)
        self._point(Metrics.TRAIN_GRAD_NORM, sum(grad_norms) / len(grad_norms), number)
        return loss

    def _totals(self) -> StepTotals | None:
        """Columns of the totals of every step kept here, in one transfer from the device; None without a step."""
        if not self._steps:
            return None
        packed = torch.stack([step.totals.pack() for step in self._steps])
        return self._steps[0].totals.unpack(packed.cpu().double())

    def _point(self, key: str, value: float, step: int) -> None:
        self._points.append(MetricPoint.now(key, value, step))


def _as_carried(report: Report) -> str:
    """What the record needs of a report; who follows the run sees progress and notes as they come, or not at all."""
    carried = ("name", "points", "broken", "window", "cpu_s")
    return json.dumps({key: value for key, value in report.items() if key in carried})
