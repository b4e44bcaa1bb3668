"""Files of lines that survive a full disk and a killed process: appended to, queued, and read as JSON."""

import errno
import fcntl
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self._held: deque[bytes] = deque()
        """Lines on their way to the file."""
        self._refusal: str | None = None
        self._lock = threading.Lock()

    def append(self, line: str) -> None:
        """Add a line, given without its end."""
        with self._lock:
            self._held.append(line.encode() + b"\n")
            self._spill()

    def _spill(self) -> None:
        """Write the lines in order, each whole or not at all, and keep those that the disk refuses."""
        if not self._held:
            return
        with self._opened() as file:
            while file is not None and self._held:
                size = os.fstat(file).st_size
                try:
                    if os.write(file, self._held[0]) < len(self._held[0]):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError as error:
                    os.ftruncate(file, size)
                    self._refused(error)
                    return
                self._held.popleft()
                self._refusal = None

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The file, locked; None where it can't be opened."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            self._refused(error)
            yield None
            return
        try:
            with suppress(OSError):  # where the file system has no locks, lines are still written
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _refused(self, error: OSError) -> None:
        """Say why lines stay in memory, once for each reason."""
        if error.strerror != self._refusal:
            self._refusal = error.strerror
            _LOG.warning("%s: %s; new lines are kept in memory until they can be written", self._path, self._refusal)


class WaitingLines(LineFile):
    """A queue of lines on disk: any process appends, and its owner drops from the front what it has dealt with.

    A process owns the queue from the first time that it gets lines until `close`, or its end; meanwhile others get
    none. It gets everybody's, first what an earlier owner left. `<path>.lock` is locked by the owner.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._owned: int | None = None
        """The open file whose lock makes this process the owner."""
        self._dropped = 0
        """Bytes at the file's begin."""
        if path.exists():
            with self._opened() as file:
                if file is not None:
                    remove_truncated_line(path)

    def oldest(self) -> list[str]:
        """Lines from the front, about a megabyte; none where none are left or another process owns the queue."""
        with self._lock:
            if not self._own():
                return []
            self._spill()
            with self._opened() as file:
                found = [] if file is None else self._on_disk(file)
            return [line.decode() for line in found or self._held]

    def drop(self, lines: list[str]) -> None:
        """Forget lines that `oldest` gave."""
        with self._lock, self._opened() as file:
            for text in map(str.encode, lines):
                if file is not None and os.pread(file, len(text), self._dropped) == text:
                    self._dropped += len(text)
                elif self._held and self._held[0] == text:
                    self._held.popleft()
            if file is not None and self._dropped == os.fstat(file).st_size:
                os.ftruncate(file, 0)
                self._dropped = 0

    def empty(self) -> bool:
        """Whether no line is left, this process's or another's."""
        with self._lock:
            self._spill()
            return not self._held and not (self._path.exists() and self._path.stat().st_size)

    def close(self) -> None:
        """Let another process own the queue."""
        with self._lock:
            self._spill()
            if self._owned is not None:
                os.close(self._owned)
            self._owned, self._dropped = None, 0

    def _own(self) -> bool:
        """Whether no other process owns the queue; a disk that takes no lock keeps nobody from sending."""
        if self._owned is not None:
            return True
        try:
            file = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            self._refused(error)
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._owned = file
        return True

    def _on_disk(self, file: int) -> list[bytes]:
        wanted = _READ_BYTES
        while True:
            read = os.pread(file, wanted, self._dropped)
            complete = read[: read.rfind(b"\n") + 1]
            if complete or len(read) < wanted:
                return complete.splitlines(keepends=True)
            wanted *= 2


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
