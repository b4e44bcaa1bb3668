"""What a worker reports to the record, as who takes it in reads it: points, broken videos, the time since the last one.

Reports are plain values, since they travel between processes and stand in Ray's checkpoint index.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from morphmlp.data.quarantine import BrokenVideo, broken_from_plain
from morphmlp.line_file import read_json_lines
from morphmlp.record import MetricPoint


class Report(TypedDict, total=False):
    """One report of one worker. `points`, `progress`, `window`, `name` and `earlier` come from the first one only."""

    name: str
    """No other report of the run has it, but the same one in a checkpoint (see `Reporter.unrecorded`)."""
    earlier: list[str]
    """Reports, as JSON, that the record may lack: the checkpoint carried them from which this worker continues."""
    points: list[tuple[str, float, int, int]]
    """Fields of `MetricPoint`."""
    broken: list[dict[str, str | int | None]]
    """Fields of `BrokenVideo`, its time as text."""
    cpu_s: float
    """CPU core-seconds since then: of the worker's process, its start included, and of decoding its validation
    videos. Training videos' are in the window."""
    progress: dict[str, float]
    """`step`, `total_steps`, and numbers worth seeing."""
    window: dict[str, float]
    """Fields of `TimeWindow`: where the time since the last report went. Their `worker_cpu_s` is 0: only who has the
    reports of all workers knows it, see `window_of`."""
    notes: list[str]
    """Lines for the user."""
    facts: dict[str, str]
    """Tags of the run that only the training nodes know."""
    stopped: dict[str, str | int]
    """Fields of `Stop`: why every worker stops after this report."""


def points_of(report: Report) -> list[MetricPoint]:
    """The metric points of a report."""
    return [MetricPoint(*point) for point in report.get("points", [])]


def read_points(progress: Path) -> list[MetricPoint]:
    """The points of a run so far, over all its starts, from its progress file; of a step taken again the first one's.

    Without a file there are none.
    """
    found: dict[tuple[str, int], MetricPoint] = {}
    for line in read_json_lines(progress):
        for point in (MetricPoint(*fields) for fields in line.get("points") or ()):
            found.setdefault((point.key, point.step), point)
    return list(found.values())


def broken_of(report: Report) -> list[BrokenVideo]:
    """The broken videos of a report."""
    return [broken_from_plain(video) for video in report.get("broken", [])]


def window_of(reports: Sequence[Report]) -> dict[str, float] | None:
    """The window of one report of every worker, with the CPU time of all; None where the first has none."""
    if (window := reports[0].get("window")) is None:
        return None
    return {**window, "worker_cpu_s": sum(report.get("cpu_s", 0.0) for report in reports)}
