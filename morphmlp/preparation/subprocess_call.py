"""A function called in a separate process, so that a crash or an endless loop in a codec costs one call.

The function may take as long as it needs while it gives signs that it's at work (`beat`). One process serves call after
call; a fresh one takes its place where it died or was given up. It ends by itself when the process that asks is gone.
"""

import argparse
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from morphmlp.data.decoding.protocol import heard
from morphmlp.errors import DecodeError, DecoderCrashError, DecodeTimeoutError, MorphMLPError

_AT_WORK = "at work"
"""First part of a message that is no answer: the function hasn't come to its end."""
_ANSWER = "answer"
_SIGN_EVERY_S = 0.1
_ALARM_AFTER_S = 5.0
"""A process that nobody could end any more ends itself so long after its time."""


class SubprocessCall:
    """Calls `module:function` in a separate process. Not to be shared by threads."""

    def __init__(self, function: str) -> None:
        """Start nothing yet: the process starts with the first call.

        The function takes one value that pickles and returns one.
        """
        self._function = function
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection[object, tuple[str, object]] | None = None

    def __call__(self, argument: object, *, timeout_s: float) -> object:
        """What the function returns.

        Raises:
            DecodeTimeoutError: It gave no sign for so long.
            DecoderCrashError: Its process died.
            MorphMLPError: Raised by the function; a DecodeError also instead of any other error.
        """
        process, channel = self._running()
        try:
            channel.send((argument, timeout_s + _ALARM_AFTER_S))
            kind, value = _AT_WORK, None
            while kind == _AT_WORK:
                if not channel.poll(timeout_s):
                    raise DecodeTimeoutError(f"nothing moved for {timeout_s:g} s")
                kind, value = channel.recv()
        except (EOFError, ConnectionError):
            self.close()
            code = process.returncode
            cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise DecoderCrashError(f"its process died ({cause})") from None
        except BaseException:
            self.close()  # also at Ctrl-C: the answer must not be taken for that of the next call
            raise
        if isinstance(value, Exception):
            raise value
        return value

    def close(self) -> None:
        """End the process; another one starts with the next call."""
        if self._process is not None and self._channel is not None:
            self._channel.close()
            self._process.kill()  # changes nothing where it has died: its status stays that of its death
            self._process.wait()
            self._process = self._channel = None

    def _running(self) -> "tuple[subprocess.Popen[bytes], Connection[object, tuple[str, object]]]":
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None or self._channel is None:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                # Not `multiprocessing.Process`: it would import the main module again, which is Ray's in a task.
                command = [sys.executable, "-m", "morphmlp.preparation.subprocess_call", self._function]
                self._process = subprocess.Popen(
                    [*command, f"--socket={theirs.fileno()}"],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                )
                self._channel = Connection(ours.detach())
        return self._process, self._channel


def main() -> None:
    """Answer calls until the other end of the socket is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("function", help="module:function")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of a connected Unix socket")
    arguments = parser.parse_args()
    module, _, name = arguments.function.partition(":")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    channel: Connection[tuple[str, object], tuple[object, float]] = Connection(arguments.socket)
    function = cast(Callable[[object], object], getattr(importlib.import_module(module), name))
    with suppress(EOFError, ConnectionError):  # nobody waits any more
        while True:
            argument, seconds = channel.recv()
            with heard(_Signs(channel, seconds)):
                value = _outcome(function, argument)
            signal.setitimer(signal.ITIMER_REAL, 0)
            channel.send((_ANSWER, value))
    os._exit(0)  # nothing is left to save, and destructors of native libraries may hang


class _Signs:
    """Tells the other end that the function is at work, and puts the alarm off; not at every beat."""

    def __init__(self, channel: "Connection[tuple[str, object], tuple[object, float]]", seconds: float) -> None:
        self._channel, self._seconds = channel, seconds
        self._last = 0.0
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last >= _SIGN_EVERY_S:
            self._last = now
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            self._channel.send((_AT_WORK, None))


def _outcome(function: Callable[[object], object], argument: object) -> object:
    try:
        return function(argument)
    except MorphMLPError as error:
        return error
    except Exception as error:  # noqa: BLE001 (types that the other end may not know; one video is lost by it)
        return DecodeError(" ".join(f"{type(error).__name__}: {error}".split()))


if __name__ == "__main__":
    main()
