"""What a user sees while long work runs: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Never, Protocol, Self

from tqdm import tqdm

from morphmlp.errors import MorphMLPError
from morphmlp.line_file import LineFile

_LINE_EVERY_S = 5.0
_LOGGED_EVERY_S = 60.0


class Progress(Protocol):
    """Receives the state of one long piece of work."""

    def phase(self, title: str, *, total: int, unit: str) -> None:
        """A new piece of work begins."""

    def update(self, done: int, note: str = "") -> None:
        """So much of it is done (absolute, not an increment)."""

    def line(self, text: str) -> None:
        """Something worth keeping on the screen."""


class TerminalProgress:
    """Progress on standard error; standard output is left to results.

    Lines carry the time of day. One that says nothing new isn't printed again while nothing moves.
    """

    def __init__(self) -> None:
        self._title, self._unit, self._total, self._note = "", "", 0, ""
        self._bar: tqdm[Never] | None = None
        self._last_line = 0.0
        self._said: object = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        """Usable as a context, so that a bar never outlives an error."""
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def phase(self, title: str, *, total: int, unit: str) -> None:
        """Begin a bar, or lines."""
        self._close()
        self._title, self._unit, self._total = title, unit, total
        self._last_line, self._began = 0.0, time.monotonic()
        if sys.stderr.isatty():
            self._bar = tqdm(total=total or None, desc=title, unit=unit, dynamic_ncols=True, file=sys.stderr)

    def update(self, done: int, note: str = "") -> None:
        """Move the bar, or print a line when the last one is old enough."""
        if self._bar is not None:
            self._bar.n = done
            self._bar.set_postfix_str(note)
            return
        now = time.monotonic()
        if (now - self._last_line >= _LINE_EVERY_S or done == self._total) and self._is_new((self._title, done, note)):
            self._last_line = now
            of = f"/{self._total}" if self._total else ""  # of how many isn't always known
            text = f"{self._title}: {done}{of} {self._unit}, {now - self._began:.0f} s"
            self._print(f"{text}, {note}" if note else text)

    def line(self, text: str) -> None:
        """Print above the bar."""
        if self._is_new(text):
            self._print(text)

    def _is_new(self, said: object) -> bool:
        last, self._said = self._said, said
        return said != last

    def _print(self, text: str) -> None:
        now = time.strftime("%H:%M:%S")
        for line in text.splitlines():
            if self._bar is not None:
                self._bar.write(f"{now} {line}", file=sys.stderr)
            else:
                print(f"{now} {line}", file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LoggedProgress:
    """Passes everything on, and keeps it in a file: the log of the work, whatever becomes of the terminal.

    Of a phase's updates it gets one a minute. What its disk refuses waits in memory and goes before the next line.
    """

    def __init__(self, progress: Progress, path: Path) -> None:
        """Add to a file; lines wait until its folder is there."""
        self._progress = progress
        self._folder = path.parent
        self._file = LineFile(path)
        self._waiting: list[str] = []
        self._title, self._unit, self._total = "", "", 0
        self._kept = 0.0

    def phase(self, title: str, *, total: int, unit: str) -> None:
        """Pass on; its first update is kept."""
        self._title, self._unit, self._total, self._kept = title, unit, total, -_LOGGED_EVERY_S
        self._progress.phase(title, total=total, unit=unit)

    def update(self, done: int, note: str = "") -> None:
        """Pass on, and keep where the last kept one is old enough or the phase is through."""
        now = time.monotonic()
        if now - self._kept >= _LOGGED_EVERY_S or done == self._total:
            self._kept = now
            self.keep(f"{self._title}: {done}/{self._total} {self._unit}{', ' if note else ''}{note}")
        self._progress.update(done, note)

    def line(self, text: str) -> None:
        """Keep, and pass on."""
        self.keep(text)
        self._progress.line(text)

    def keep(self, text: str) -> None:
        """Write to the file alone, with the time."""
        self._waiting += [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}" for line in text.splitlines()]
        if self._folder.is_dir():
            for line in self._waiting:
                self._file.append(line)
            self._waiting.clear()

    @contextmanager
    def last_words(self) -> Iterator[None]:
        """Keep why the work ended early; of a defect the traceback."""
        try:
            yield
        except BaseException as error:
            ours = isinstance(error, MorphMLPError | KeyboardInterrupt)
            self.keep(f"ended: {error}" if ours else traceback.format_exc())
            raise
