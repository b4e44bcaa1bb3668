"""What happened to a run from outside its plan: failed workers, restarts, resizes."""

import json
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from morphmlp.line_file import LineFile, read_json_lines, remove_truncated_line
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tracking import BufferedWriter, RunWriter

_KEPT, _LONGEST = 19, 400
"""Earlier events in the record, and letters of each: what a tag holds."""


@dataclass(frozen=True)
class RunEvent:
    """One event; `number` counts from 1."""

    number: int
    time: str
    """UTC, ISO 8601."""
    text: str
    earlier: tuple[str, ...] = ()
    """Time and text of the events before it, newest first; not all of many."""


class RunEvents:
    """The events of a run in order, one JSON line each in its folder; they continue those of an earlier command."""

    def __init__(self, path: Path) -> None:
        remove_truncated_line(path)
        self._file = LineFile(path)
        before = read_events(path)
        self._count = len(before)
        self._earlier = deque((_line(event) for event in reversed(before[-_KEPT:])), maxlen=_KEPT)

    def add(self, text: str) -> RunEvent:
        """Write an event down, with the time."""
        self._count += 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        event = RunEvent(self._count, now, text, tuple(self._earlier))
        self._earlier.appendleft(_line(event))
        self._file.append(json.dumps({"number": event.number, "time": event.time, "event": text}))
        return event


def _line(event: RunEvent) -> str:
    return " ".join(f"{event.time} {event.text}".split())[:_LONGEST]


def read_events(path: Path) -> list[RunEvent]:
    """The events so far; a run without a file had none."""
    return [RunEvent(entry["number"], entry["time"], entry["event"]) for entry in read_json_lines(path)]


def record_event(writer: BufferedWriter | RunWriter, event: RunEvent) -> None:
    """Show an event in MLflow: a point of `run/events`; count and last event in one tag, earlier ones in another."""
    writer.metrics([MetricPoint(Metrics.RUN_EVENTS, event.number, event.number, int(time.time() * 1000))])
    last = f"{event.number}; last {event.time}: {event.text}"
    writer.tags({Tags.EVENTS: last, **({Tags.EARLIER_EVENTS: "\n".join(event.earlier)} if event.earlier else {})})
