"""Where a run's time went, report by report: every second of every worker group, repeated and skipped steps included.

The windows stand in the run's progress file. MLflow's points don't have it all: of a step that was repeated after a
failure they hold the first time only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from morphmlp.line_file import read_json_lines


@dataclass(frozen=True, kw_only=True)
class TimeWindow:
    """From one report of the first worker to the next; its times, seconds, stand for all workers of the group."""

    epoch: int
    """Counted from 1."""
    step: int
    """Steps taken at its end, over all epochs."""
    steps: int
    """Steps in it; none after a validation, say."""
    workers: int
    clips: float
    """Clips trained on, over all workers."""
    wall_s: float
    start_s: float
    """Of it: until the worker group's first batch was there."""
    wait_s: float
    """Of it: waiting for later batches."""
    compute_s: float
    all_reduce_s: float
    """Of it: exchanging gradients, and waiting for slower workers."""
    decode_cpu_s: float
    """CPU seconds that decoding the steps' videos took, over all workers."""
    worker_cpu_s: float = 0.0
    """CPU seconds of all workers' processes, their start included, and of decoding validation videos."""

    @property
    def other_s(self) -> float:
        """The rest: validation, snapshots for checkpoints, reports."""
        return max(self.wall_s - self.start_s - self.wait_s - self.compute_s - self.all_reduce_s, 0.0)

    def to_plain(self) -> dict[str, float]:
        """As it stands in a report."""
        return asdict(self)

    @classmethod
    def from_plain(cls, numbers: Mapping[str, float]) -> Self:
        """Back from a report."""
        counts = {field.name for field in fields(cls) if field.type is int}
        return cls(**{name: int(value) if name in counts else value for name, value in numbers.items()})  # type: ignore[arg-type]  # by the field's own type


def without_repeats(windows: Sequence[TimeWindow]) -> list[TimeWindow]:
    """The windows that led to the end: those whose steps were taken again after a failure are left out."""
    kept: list[TimeWindow] = []
    for window in windows:
        while kept and kept[-1].step > window.step - window.steps:
            kept.pop()
        kept.append(window)
    return kept


def read_windows(progress: Path) -> list[TimeWindow]:
    """The windows of a run in order, over all its starts, from its progress file (`RunFolder.progress`).

    Without a file there are none.
    """
    return [TimeWindow.from_plain(line["window"]) for line in read_json_lines(progress) if line.get("window")]
