"""Files of lines that survive a full disk and a killed process: appended to, queued, and read as JSON."""

import errno
import fcntl
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_READ_BYTES = 1 << 20
_LOG = logging.getLogger(__name__)


class LineFile:
    """Appends complete lines to a file; what the disk refuses is kept and goes before the next line.

    Threads may share it, and several processes append to one file: each locks it for its lines, since one that the disk
    takes in part is cut off again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = _Held(path)
        self._lock = threading.Lock()

    def append(self, line: str) -> None:
        """Add a line, given without its end."""
        with self._lock:
            self._held.lines.append(line.encode() + b"\n")
            try:
                file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                self._held.refused(error)
                return
            try:
                with suppress(OSError):  # where the file system has no locks, lines are still written
                    fcntl.flock(file, fcntl.LOCK_EX)
                self._held.spill(file)
            finally:
                os.close(file)


class WaitingLines:
    """A queue of lines on disk: added at the end, dropped from the front when they have been dealt with.

    A process owns the file from its first use until `close`; until then a second process keeps its own lines in memory
    and gets none. The owner first gets what an earlier one left. Memory holds only what the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = _Held(path)
        self._file: int | None = None
        self._owned_by_another = False
        self._dropped = 0
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Add a line, given without its end."""
        with self._lock:
            self._held.lines.append(line.encode() + b"\n")
            if (file := self._own()) is not None:
                self._held.spill(file)

    def oldest(self) -> list[str]:
        """Lines from the front, about a megabyte; none where none are left or another process owns the file."""
        with self._lock:
            if (file := self._own()) is None:
                return [] if self._owned_by_another else [line.decode() for line in self._held.lines]
            self._held.spill(file)
            return [line.decode() for line in self._on_disk(file) or self._held.lines]

    def drop(self, lines: list[str]) -> None:
        """Forget lines that `oldest` gave."""
        with self._lock:
            file = self._own()
            size = 0 if file is None else os.fstat(file).st_size
            for line in lines:
                if self._dropped < size:
                    self._dropped += len(line.encode())
                else:
                    self._held.lines.popleft()
            if file is not None and self._dropped == size:
                os.ftruncate(file, 0)
                self._dropped = 0

    def empty(self) -> bool:
        """Whether no line is left, as far as this process knows."""
        with self._lock:
            if self._held.lines:
                return False
            file = self._own()
            return file is None or os.fstat(file).st_size == 0

    def hand_over(self) -> None:
        """Write lines held in memory to the file's end, whoever owns it."""
        with self._lock:
            self._spill_all()

    def close(self) -> None:
        """Hand over, and let another process own the file."""
        with self._lock:
            self._spill_all()
            if self._file is not None:
                os.close(self._file)
            self._file, self._dropped = None, 0

    def _spill_all(self) -> None:
        if self._held.lines:
            with suppress(OSError):
                file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                self._held.spill(file)
                os.close(file)

    def _own(self) -> int | None:
        if self._file is not None:
            return self._file
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            self._owned_by_another = False
            self._held.refused(error)
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            self._owned_by_another = True
            return None
        remove_truncated_line(self._path)
        self._file, self._owned_by_another = file, False
        return file

    def _on_disk(self, file: int) -> list[bytes]:
        wanted = _READ_BYTES
        while True:
            read = os.pread(file, wanted, self._dropped)
            complete = read[: read.rfind(b"\n") + 1]
            if complete or len(read) < wanted:
                return complete.splitlines(keepends=True)
            wanted *= 2


class _Held:
    """Lines in memory, on their way to a file."""

    def __init__(self, path: Path) -> None:
        self.lines: deque[bytes] = deque()
        self._path = path
        self._reason: str | None = None

    def spill(self, file: int) -> None:
        """Write the lines in order, each whole or not at all, and keep those that the disk refuses."""
        while self.lines:
            size = os.fstat(file).st_size
            try:
                if os.write(file, self.lines[0]) < len(self.lines[0]):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                os.ftruncate(file, size)
                self.refused(error)
                return
            self.lines.popleft()
            self._reason = None

    def refused(self, error: OSError) -> None:
        """Say why lines stay in memory, once for each reason."""
        if error.strerror != self._reason:
            self._reason = error.strerror
            _LOG.warning("%s: %s; new lines are kept in memory until they can be written", self._path, self._reason)


class JsonLines:
    """Reads lines of JSON objects from a file that others may still append to."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        """Begin at the start of the file, or at its present end; it needn't exist."""
        self._path = path
        self._place = path.stat().st_size if from_end and path.exists() else 0

    def read(self) -> Iterator[dict[str, Any]]:
        """What was appended since the last call.

        A last line without its end isn't read yet. One in the middle was truncated by a killed process, and the next
        one appended to it; it is left out.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._place)
            for text in file:
                if not text.endswith(b"\n"):
                    return
                self._place += len(text)
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                yield line


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """All lines of a file, as `JsonLines` reads them; none where there is no file."""
    return JsonLines(path).read()


def remove_truncated_line(path: Path) -> None:
    """Remove a last line that a crash left without its end, before something is appended; it needn't exist.

    Its writer never learned that it was written. No other process may be writing.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _READ_BYTES)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        file.truncate(end)
