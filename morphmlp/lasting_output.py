"""Standard output and error that outlast their readers: what a long command prints decides nothing about its work."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class _LastingStream:
    """A text stream that drops what can't be written: the pipe's reader or the terminal is gone, the disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = False
        """Whether anything was dropped."""

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
        except OSError:
            self.lost = True
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self._stream.flush()
        except OSError:
            self.lost = True

    def close_up(self) -> None:
        """Let the process end well: what still waits in the stream would fail its last flush, and change its code."""
        self.flush()
        if self.lost:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Protect standard output and error; ones that were closed before the command began lead nowhere."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    before = sys.stdout, sys.stderr
    streams = [
        _LastingStream(stream if stream is not None else os.fdopen(descriptor, "w", closefd=False))
        for descriptor, stream in zip((1, 2), before, strict=True)
    ]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.close_up()
