"""What a trial reports to the sweep's driver: one JSON line per event, in a file of the trial's folder.

A trial has no terminal of its own. It writes here as it would draw on one, and the driver reads what was added. The
file outlives both: a resumed sweep reads from it which trials have ended, and how.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from morphmlp.line_file import JsonLines, remove_truncated_line
from morphmlp.progress import Progress
from morphmlp.tuning.run.trials import TrialEnd

UPDATE_EVERY_S = 1.0


class TrialLog:
    """The trial's side; a `Progress` that also takes scores and the end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_truncated_line(path)
        self._path = path
        self._total = 0
        self._written = 0.0

    def phase(self, title: str, *, total: int, unit: str) -> None:
        """A new piece of work begins."""
        self._total, self._written = total, 0.0
        self._write({"event": "phase", "title": title, "total": total, "unit": unit})

    def update(self, done: int, note: str = "") -> None:
        """So much of it is done; written once a second at most."""
        now = time.monotonic()
        if now - self._written >= UPDATE_EVERY_S or done == self._total:
            self._written = now
            self._write({"event": "update", "done": done, "note": note})

    def line(self, text: str) -> None:
        """Something worth keeping on the screen."""
        self._write({"event": "line", "text": text})

    def validation(self, at: int, score: float) -> None:
        """It was validated after so many epochs or steps, with this primary score."""
        self._write({"event": "epoch", "epoch": at, "score": score, "time": time.time()})

    def ended(self, end: TrialEnd) -> None:
        """The trial ends here."""
        fields = {name: value for name, value in vars(end).items() if value is not None}
        self._write({"event": "end", **fields})

    def again(self) -> None:
        """A trial that had ended is tried once more."""
        self._write({"event": "again"})

    def _write(self, event: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


@dataclass
class TrialView:
    """The driver's side: one trial as far as it has reported."""

    name: str
    """As it stands before the trial's lines, `trial 2 [8 4 4 1]`."""
    path: Path
    end: TrialEnd | None = None
    """How it ended; None while it hasn't."""
    scores: list[tuple[int, float, float]] = field(default_factory=list)
    """Epochs or steps with their validation score, and when it was known (seconds since 1970), in that order; a trial
    that went back to another's weights has some twice."""
    _file: JsonLines = field(init=False, repr=False, compare=False)
    _lines: list[str] = field(default_factory=list, init=False)
    """Read, and not shown yet."""
    _doing: str = field(default="", init=False)
    _phase: tuple[str, int, str] = field(default=("", 0, ""), init=False)
    # Tune's thread reads a trial's end, the main thread everything.
    _reading: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._file = JsonLines(self.path)

    @property
    def state(self) -> str:
        """What it does now; empty before it starts and after it ended."""
        return f"{self.name}: {self._doing}" if self._doing and self.end is None else ""

    @property
    def validations(self) -> dict[int, float]:
        """Validation scores by epochs or steps; the latest where there are several."""
        return {at: score for at, score, _ in self.scores}

    def read(self) -> None:
        """Read what was added to the file; its lines are shown later. Any thread may."""
        with self._reading:
            for event in self._file.read():
                if (line := self._take(event)) is not None:
                    self._lines.append(line)

    def read_silently(self) -> None:
        """Read what an earlier command has shown."""
        self.read()
        self._lines.clear()

    def show(self, progress: Progress) -> None:
        """Read what was added to the file, and show lines that are worth keeping."""
        if self.end is None:
            self.read()
        while self._lines:
            progress.line(f"{self.name}: {self._lines.pop(0)}")

    def _take(self, event: dict[str, Any]) -> str | None:
        """Take one event in; the line that is worth keeping, if it has one."""
        match event.pop("event"):
            case "phase":
                self._phase = (event["title"], event["total"], event["unit"])
                self._doing = event["title"]
            case "update":
                title, total, unit = self._phase
                note = f", {event['note']}" if event["note"] else ""
                self._doing = f"{title} {event['done']}/{total} {unit}{note}"
            case "line":
                self._doing = self._doing or "starting"
                return str(event["text"])
            case "epoch":
                self.scores.append((event["epoch"], event["score"], event["time"]))
            case "end":
                self.end = TrialEnd(**event)
                return None if self.end.error is None else f"{self.end.state.replace('_', ' ')}: {self.end.error}"
            case "again":
                self.end, self._doing = None, ""
        return None


def show_all(views: Sequence[TrialView], progress: Progress) -> None:
    """Show what all trials reported, and move the sweep's own progress."""
    for view in views:
        view.show(progress)
    progress.update(sum(view.end is not None for view in views), "; ".join(view.state for view in views if view.state))
