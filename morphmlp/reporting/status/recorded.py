"""A run's parameters, tags and latest metrics as typed values; what is missing or makes no sense is None."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from morphmlp.data.stream.plan import TrainPlan
from morphmlp.record import MetricPoint, Metrics, RunSummary, Tags
from morphmlp.tasks.scores import SCORES
from morphmlp.training.loop.length import Length

_EVENTS = re.compile(r"(\d+); last (\S+): (.*)", re.DOTALL)
_STEP_PARTS = (
    Metrics.TRAIN_DATA_WAIT_S,
    Metrics.TRAIN_COMPUTE_S,
    Metrics.TRAIN_ALL_REDUCE_S,
    Metrics.TRAIN_OTHER_S,
)


@dataclass(frozen=True, kw_only=True)
class RecordedPlan:
    """How long a run's training is, from its parameters and the number of its videos."""

    length: Length
    clips_per_step: int
    """Clips of a step, over all workers."""
    report_every: int
    """Steps between two reports."""

    @classmethod
    def of(cls, run: RunSummary) -> Self | None:
        """The plan of a training; None where its record doesn't say."""
        epochs, steps = whole(run.params, "train.epochs"), whole(run.params, "train.steps")
        size = whole(run.params, "train.global_batch_size")
        videos = re.match(r"([1-9]\d*):", run.tags.get(Tags.DATA_TRAIN, ""))
        if videos is None or size is None or (epochs is None) == (steps is None):
            return None
        plan = TrainPlan(num_videos=int(videos[1]), global_batch_size=size, micro_batch_size=size, seed=0)
        each_steps = whole(run.params, "execution.validate_every_steps") or plan.steps_per_epoch
        each_epochs = whole(run.params, "execution.validate_every_epochs") or 1
        return cls(
            length=Length(
                steps_per_epoch=plan.steps_per_epoch,
                unit="step" if epochs is None else "epoch",
                whole=epochs or steps or 0,
                max_steps=whole(run.params, "train.max_steps"),
                validate_every=each_steps if epochs is None else each_epochs,
            ),
            clips_per_step=plan.videos_per_step * (whole(run.params, "augment.repeats") or 1),
            report_every=whole(run.params, "execution.report_every_steps") or 20,
        )

    def epoch(self, step: int) -> int:
        """The epoch that step `step` belongs to, counted from 1."""
        return max(-(-step // self.length.steps_per_epoch), 1)

    @property
    def epochs(self) -> int:
        """Epochs that the training begins."""
        return self.epoch(self.length.total_steps)

    def next_report(self, step: int) -> int:
        """The step at which the report after that of `step` comes."""
        every, length = self.report_every, self.length
        around = length.validate_every if length.unit == "step" else length.steps_per_epoch
        return min((step // every + 1) * every, (step // around + 1) * around, length.total_steps)

    def is_validated(self, step: int) -> bool:
        """Whether the report of this step comes after a validation."""
        return self.length.ends_round(step) and self.length.is_validated(step)


def whole(params: Mapping[str, str], name: str) -> int | None:
    """A parameter that is a whole number above 0."""
    try:
        value = json.loads(params.get(name, "null"))
    except ValueError:
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def price(params: Mapping[str, str], name: str) -> float | None:
    """A parameter that is a number from 0 on."""
    try:
        value = json.loads(params.get(name, "null"))
    except ValueError:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value >= 0 else None


def number(run: RunSummary, key: str) -> float | None:
    """The latest value of a metric that can't be below 0."""
    point = run.latest.get(key)
    return point.value if point is not None and is_real(point) else None


def is_real(point: MetricPoint) -> bool:
    """Whether a point is a finite number from 0 on; MLflow keeps an infinity as the largest number."""
    return 0 <= point.value < 1e100


def step_of(run: RunSummary) -> int | None:
    """Steps taken up to the last report."""
    point = run.latest.get(Metrics.TRAIN_CLIPS_PER_S)
    return None if point is None else point.step


def wait_share(run: RunSummary) -> float | None:
    """Share of the time of the last report's steps that went into waiting for data, 0 to 1."""
    parts = [number(run, key) for key in _STEP_PARTS]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or parts[0] is None or not sum(known):
        return None
    return parts[0] / sum(known)


def workers_asked(params: Mapping[str, str]) -> tuple[int, int] | None:
    """Fewest and most workers of `cluster.num_workers`; None where the cluster's GPUs decide."""
    least, most = (whole(params, f"cluster.num_workers.{end}") for end in ("min", "max"))
    if least is not None and most is not None:
        return least, most
    fixed = whole(params, "cluster.num_workers")
    return None if fixed is None else (fixed, fixed)


def score(run: RunSummary) -> str | None:
    """The test's primary score, or the last validation's, in words."""
    for name in SCORES.get(run.params.get("task", ""), ())[:1]:
        for key, where in ((name.test_metric, "test"), (name.val_metric, "val")):
            if (value := number(run, key)) is not None:
                return f"{name.title} {value:.1f} ({where})"
    return None


def events(tags: Mapping[str, str]) -> tuple[int, tuple[tuple[str, str], ...]]:
    """How many events a run had, and time (UTC, ISO 8601) and text of the last ones, newest first."""
    found = _EVENTS.fullmatch(tags.get(Tags.EVENTS, ""))
    if found is None:
        return 0, ()
    before = (line.partition(" ") for line in tags.get(Tags.EARLIER_EVENTS, "").splitlines())
    return int(found[1]), ((found[2], found[3]), *((time, text) for time, _, text in before if text))


def time_ms(text: str) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time that names its zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else int(time.timestamp() * 1000)
