"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal) to a command: they end it, or ask those who can save to save first.

Whoever stops a command often sends more than one: `timeout` signals the group of processes, and make passes the same
signal on. What comes within a second is one wish.

Signals arrive in the main thread, between any two instructions; so the handler only takes a note while there is
something to wait for, and what follows from it is up to the loop that waits.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import ClassVar

NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
"""The signals taken care of, as the user knows them."""
SAME_WISH_S = 1.0
"""A signal that comes so soon after the one before isn't a second wish."""


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

    _taken_at: ClassVar[float] = -math.inf
    """When the last signal came that was a wish of its own; one of all objects, since each command has several."""

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
        if not isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), StopSignals):
            StopSignals._taken_at = -math.inf  # a command begins
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
        """From here on a first signal is only noted in `received`; the caller acts on it, and a second one ends."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def _take(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if not StopSignals.is_wish():
            return
        if not self._waits or self._received is not None:
            raise Interrupted(signum)
        self._received = signum

    @staticmethod
    def is_wish() -> bool:
        """Whether a signal that comes now is one of its own, from which on the next second counts."""
        now = time.monotonic()
        if now - StopSignals._taken_at < SAME_WISH_S:
            return False
        StopSignals._taken_at = now
        return True


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Undo what a library does to the handlers, and keep from what it starts the signals that are for the command.

    Its processes are deaf to SIGHUP, which a terminal sends to all, and to SIGTERM, which systemd and Slurm send to
    all: they would be gone before anybody has saved. Each has a process group of its own, since `timeout` and a
    terminal signal whole groups. Only SIGKILL ends them.

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
        with _children_set_apart():
            yield
    except SystemExit as stop:
        if stop.code != signal.SIGTERM:
            raise
        StopSignals.is_wish()
        raise Interrupted(signal.SIGTERM) from None
    finally:
        for signum, handler in before.items():
            if handler is not None:
                signal.signal(signum, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class _Children:
    """What becomes of processes that this one forks."""

    set_apart = False


@contextmanager
def _children_set_apart() -> Iterator[None]:
    _set_apart_when_asked()
    _Children.set_apart = True
    try:
        yield
    finally:
        _Children.set_apart = False


@cache
def _set_apart_when_asked() -> None:
    """Once for each process: what is registered can't be taken back."""
    os.register_at_fork(after_in_child=_set_apart)


def _set_apart() -> None:
    if _Children.set_apart:
        _Children.set_apart = False  # what it starts itself stays with it, and inherits what is blocked
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


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
