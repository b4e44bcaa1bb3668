"""What happened to a run from outside its plan: failed workers, restarts, resizes."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from morphmlp.line_file import LineFile, read_json_lines, remove_truncated_line
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tracking import BufferedWriter, RunWriter


@dataclass(frozen=True)
class RunEvent:
    """One event; `number` counts from 1."""

    number: int
    time: str
    """UTC, ISO 8601."""
    text: str


class RunEvents:
    """The events of a run in order, one JSON line each in its folder; they continue those of an earlier command."""

    def __init__(self, path: Path) -> None:
        remove_truncated_line(path)
        self._file = LineFile(path)
        self._count = len(read_events(path))

    def add(self, text: str) -> RunEvent:
        """Write an event down, with the time."""
        self._count += 1
        event = RunEvent(self._count, datetime.now(UTC).isoformat(timespec="seconds"), text)
        self._file.append(json.dumps({"number": event.number, "time": event.time, "event": text}))
        return event


def read_events(path: Path) -> list[RunEvent]:
    """The events so far; a run without a file had none."""
    return [RunEvent(entry["number"], entry["time"], entry["event"]) for entry in read_json_lines(path)]


def record_event(writer: BufferedWriter | RunWriter, event: RunEvent) -> None:
    """Show an event in MLflow: a point of `run/events`; count and last event in the tag `morphmlp.events`."""
    writer.metrics([MetricPoint(Metrics.RUN_EVENTS, event.number, event.number, int(time.time() * 1000))])
    writer.tags({Tags.EVENTS: f"{event.number}; last {event.time}: {event.text}"})
