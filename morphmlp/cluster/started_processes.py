"""The processes of a Ray that this command started: which they are, and their end.

They don't hear SIGTERM (see `handlers_kept`), so that they outlast one that reaches every process of a command; by it
Ray ends them.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


class StartedProcesses:
    """What a library starts, and all that this starts in turn."""

    def __init__(self) -> None:
        self._roots: set[psutil.Process] = set()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take note of the processes that are started inside."""
        before = set(psutil.Process().children())
        try:
            yield
        finally:
            self._roots = set(psutil.Process().children()) - before

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Let the library end them inside, at once; whatever of them is there afterwards is killed."""
        groups = self._groups()
        try:
            with _terminating_kills():
                yield
        finally:
            for group in groups:
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)

    def _groups(self) -> set[int]:
        """Their process groups; this command's own isn't among them, should one have stayed in it."""
        found = set()
        for root in self._roots:
            with suppress(psutil.NoSuchProcess):
                for process in (root, *root.children(recursive=True)):
                    with suppress(ProcessLookupError):
                        found.add(os.getpgid(process.pid))
        return found - {os.getpgrp()}


@contextmanager
def _terminating_kills() -> Iterator[None]:
    """Let `Popen.terminate` send SIGKILL: Ray would wait a second for each process that doesn't hear SIGTERM."""
    terminate = subprocess.Popen.terminate
    subprocess.Popen.terminate = subprocess.Popen.kill  # type: ignore[method-assign]
    try:
        yield
    finally:
        subprocess.Popen.terminate = terminate  # type: ignore[method-assign]
