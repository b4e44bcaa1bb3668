"""What a trial tells the sweep's driver: one JSON line per event, in a file of the trial's folder.

A trial has no terminal of its own. It writes here as it would draw on one, and the driver reads what was added.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from morphmlp.errors import MorphMLPError
from morphmlp.progress import Progress

UPDATE_EVERY_S = 1.0
LONGEST_REASON = 300


class TrialLog:
    """The trial's side; a `Progress` that also takes the outcome."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._total = 0
        self._written = 0.0

    def phase(self, title: str, *, total: int, unit: str) -> None:
        """A new piece of work begins."""
        self._total, self._written = total, 0.0
        self._write({"event": "phase", "title": title, "total": total, "unit": unit})

    def update(self, done: int, note: str = "") -> None:
        """So much of it is done; told once a second at most."""
        now = time.monotonic()
        if now - self._written >= UPDATE_EVERY_S or done == self._total:
            self._written = now
            self._write({"event": "update", "done": done, "note": note})

    def line(self, text: str) -> None:
        """Something worth keeping on the screen."""
        self._write({"event": "line", "text": text})

    def finished(self, result: Mapping[str, JsonValue]) -> None:
        """The trial is done; its result."""
        self._write({"event": "finished", "result": dict(result)})

    def failed(self, error: BaseException) -> None:
        """The trial ends here; why."""
        self._write({"event": "failed", "reason": reason_of(error)})

    def _write(self, event: Mapping[str, JsonValue]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


@dataclass
class TrialView:
    """The driver's side: one trial as far as it has told."""

    name: str
    """As it stands before the trial's lines, `trial 2/6 [8 4 4 1]`."""
    path: Path
    result: dict[str, JsonValue] | None = None
    """What a finished trial found."""
    reason: str | None = None
    """Why a trial failed."""
    _place: int = field(default=0, init=False)
    _doing: str = field(default="", init=False)
    _phase: tuple[str, int, str] = field(default=("", 0, ""), init=False)

    @property
    def ended(self) -> bool:
        """Whether it told its outcome."""
        return self.result is not None or self.reason is not None

    @property
    def state(self) -> str:
        """What it does now; empty before it starts and after it ended."""
        return f"{self.name}: {self._doing}" if self._doing and not self.ended else ""

    def follow(self, progress: Progress) -> None:
        """Take in what was added to the file, and show lines that are worth keeping."""
        for event in self._added():
            match event["event"]:
                case "phase":
                    self._phase = (event["title"], event["total"], event["unit"])
                    self._doing = event["title"]
                case "update":
                    title, total, unit = self._phase
                    note = f", {event['note']}" if event["note"] else ""
                    self._doing = f"{title} {event['done']}/{total} {unit}{note}"
                case "line":
                    self._doing = self._doing or "starting"
                    progress.line(f"{self.name}: {event['text']}")
                case "finished":
                    self.result = event["result"]
                case "failed":
                    self.reason = event["reason"]
                    progress.line(f"{self.name}: failed: {self.reason}")

    def _added(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            file.seek(self._place)
            while (text := file.readline()).endswith("\n"):
                self._place = file.tell()
                yield json.loads(text)


def follow_all(views: Sequence[TrialView], progress: Progress) -> None:
    """Take in what all trials told, and move the sweep's own progress."""
    for view in views:
        if not view.ended:
            view.follow(progress)
    progress.update(sum(view.ended for view in views), "; ".join(view.state for view in views if view.state))


def reason_of(error: BaseException) -> str:
    """An error as one line; the project's own speak for themselves, others are led by their type."""
    lines = str(error).strip().splitlines() or [""]
    own = isinstance(error, MorphMLPError)
    text = "; ".join(lines) if own else f"{type(error).__name__}: {lines[-1]}"
    return text[:LONGEST_REASON].rstrip(": ")
