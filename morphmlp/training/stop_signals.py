"""Ctrl-C and SIGTERM of a command that trains: the first asks the workers to save and stop, the second ends at once.

Signals arrive in the main thread, between any two instructions; so the handler only takes a note while workers run,
and what follows from it is up to the loop that follows them.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
"""The signals taken care of, as the user knows them."""


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command at once."""

    def __init__(self, signum: int) -> None:
        """Keep the signal, for the exit code."""
        super().__init__(NAMES.get(signum, str(signum)))
        self.signum = signum


class StopSignals:
    """What has been asked of this process by signals; without `installed` nothing ever is."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._waits = False

    @property
    def received(self) -> int | None:
        """The first signal that came while there were workers to wait for."""
        return self._received

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take care of the signals; only the main thread may."""
        before = {signum: signal.signal(signum, self._take) for signum in NAMES}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def workers_can_save(self) -> Iterator[None]:
        """From here on a first signal is only noted in `received`: the caller sees to it."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def _take(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if not self._waits or self._received is not None:
            raise Interrupted(signum)
        self._received = signum
