"""What happened to a run from outside its plan: failed workers, restarts, resizes."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from morphmlp.line_file import LineFile, read_json_lines, remove_truncated_line
from morphmlp.record import MetricPoint, Metrics, Tags

if TYPE_CHECKING:
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
    ingest_lost: bool = False
    """Nodes that decode were missing."""


class RunEvents:
    """The events of a run in order, one JSON line each in its folder; they continue those of an earlier command."""

    def __init__(self, path: Path) -> None:
        remove_truncated_line(path)
        self._path, self._file, self._count = path, LineFile(path), 0

    def add(self, text: str, *, ingest_lost: bool = False) -> RunEvent:
        """Write an event down, with the time."""
        before = read_events(self._path)  # another process may have added some
        self._count = max(self._count, len(before)) + 1  # more than the file has where the disk is full
        now = datetime.now(UTC).isoformat(timespec="seconds")
        event = RunEvent(self._count, now, text, tuple(map(_line, reversed(before[-_KEPT:]))), ingest_lost)
        mark = {"ingest_lost": True} if ingest_lost else {}
        self._file.append(json.dumps({"number": event.number, "time": event.time, "event": text, **mark}))
        return event


def _line(event: RunEvent) -> str:
    return " ".join(f"{event.time} {event.text}".split())[:_LONGEST]


def read_events(path: Path) -> list[RunEvent]:
    """The events so far; a run without a file had none."""
    return [
        RunEvent(entry["number"], entry["time"], entry["event"], ingest_lost=entry.get("ingest_lost", False))
        for entry in read_json_lines(path)
    ]


def record_event(writer: "BufferedWriter | RunWriter", event: RunEvent) -> None:
    """Show an event in MLflow: a point of `run/events`; count and last event in one tag, earlier ones in another."""
    writer.metrics([MetricPoint.now(Metrics.RUN_EVENTS, event.number, event.number)])
    last = f"{event.number}; last {event.time}: {event.text}"
    writer.tags({Tags.EVENTS: last, **({Tags.EARLIER_EVENTS: "\n".join(event.earlier)} if event.earlier else {})})
