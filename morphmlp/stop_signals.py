"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal) to a command: they end it, or ask those who can save to save first.

Signals arrive in the main thread, between any two instructions; so the handler only takes a note while there is
something to wait for, and what follows from it is up to the loop that waits.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
"""The signals taken care of, as the user knows them."""


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command at once."""

    def __init__(self, signum: int) -> None:
        super().__init__(NAMES.get(signum, str(signum)))
        self.signum = signum


def signal_of(stop: BaseException) -> int:
    """The signal behind an exception; Python's own `KeyboardInterrupt` is Ctrl-C."""
    return int(getattr(stop, "signum", signal.SIGINT))


class StopSignals:
    """What has been asked of this process by signals; without `installed` nothing ever is."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._waits = False

    @property
    def received(self) -> int | None:
        """The first signal that came while there was somebody who could save."""
        return self._received

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take care of the signals, in the main thread; elsewhere nothing changes.

        A SIGHUP that is ignored, as under `nohup`, stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        taken = [
            signum for signum in NAMES if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN
        ]
        before = {signum: signal.signal(signum, self._take) for signum in taken}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def saving_first(self) -> Iterator[None]:
        """From here on a first signal is only noted in `received`; the caller acts on it."""
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


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Undo what a library does to the handlers; what it starts is deaf to SIGHUP, which a terminal sends to all.

    Raises:
        Interrupted: SIGTERM met the library's own handler, which exits with its number (as Ray's does).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in NAMES}
    # Blocked, not ignored: one that comes until then is delivered afterwards. New processes inherit it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    except SystemExit as stop:
        if stop.code != signal.SIGTERM:
            raise
        raise Interrupted(signal.SIGTERM) from None
    finally:
        for signum, handler in before.items():
            if handler is not None:
                signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal in while something is brought to its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in NAMES}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
