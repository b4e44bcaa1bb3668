"""A function called in a process of its own, so that a crash or an endless loop in a codec costs one call.

The function may take as long as it needs while it gives signs that it's at work (`beat`). One process serves call
after call; a fresh one takes its place where it died or was given up. It ends by itself when the process that asks is
gone. Knows nothing of videos.
"""

import argparse
import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from morphmlp.data.decoding.protocol import heard
from morphmlp.errors import DecodeError, DecoderCrashError, DecodeTimeoutError, MorphMLPError

_AT_WORK = b""
"""An answer that is none: the function is still at it."""
_TELL_EVERY_S = 0.1
_ALARM_AFTER_S = 5.0
"""A process that nobody could end any more ends itself so long after its time."""


class SubprocessCall:
    """Calls `module:function` in a separate process. Not to be shared by threads."""

    def __init__(self, function: str) -> None:
        """Start nothing yet: the process starts with the first call.

        Args:
            function: `module:function`; it takes one value that pickles and returns one.
        """
        self._function = function
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __call__(self, argument: object, *, timeout_s: float) -> object:
        """What the function returns.

        Raises:
            DecodeTimeoutError: It gave no sign for so long.
            DecoderCrashError: Its process died.
            MorphMLPError: Raised by the function; a DecodeError also instead of any other error.
        """
        process = self._running()
        try:
            with suppress(BrokenPipeError):  # it has died: that's told below
                pickle.dump((argument, timeout_s + _ALARM_AFTER_S), cast(BinaryIO, process.stdin))
                cast(BinaryIO, process.stdin).flush()
            while (answer := self._answers.get(timeout=timeout_s)) == _AT_WORK:
                pass
        except queue.Empty:
            self.close()
            raise DecodeTimeoutError(f"nothing moved for {timeout_s:g} s") from None
        except BaseException:
            self.close()  # Ctrl-C: the answer must not be taken for that of the next call
            raise
        if answer is None:
            self.close()
            code = process.returncode
            cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise DecoderCrashError(f"its process died ({cause})")
        value = pickle.loads(answer)
        if isinstance(value, Exception):
            raise value
        return value

    def close(self) -> None:
        """End the process; another one starts with the next call."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):  # what is still to be sent to it
                cast(BinaryIO, process.stdin).close()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._answers = queue.SimpleQueue()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "morphmlp.preparation.subprocess_call", self._function],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
            )
            reader = threading.Thread(
                target=_read_answers, args=(cast(BinaryIO, self._process.stdout), self._answers), daemon=True
            )
            reader.start()
        return self._process


def _read_answers(stream: BinaryIO, answers: "queue.SimpleQueue[bytes | None]") -> None:
    """Pass answers on; None when there will be no more."""
    with stream:
        while head := stream.read(8):
            answers.put(stream.read(int.from_bytes(head)))
    answers.put(None)


def main() -> None:
    """Answer calls until the other end of standard input is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("function", help="module:function")
    module, _, name = parser.parse_args().function.partition(":")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    function = cast(Callable[[object], object], getattr(importlib.import_module(module), name))
    while True:
        try:
            argument, seconds = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)  # nothing is left to save, and destructors of native libraries may hang
        with heard(_Signs(answers, seconds)):
            body = pickle.dumps(_outcome(function, argument))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, body)


class _Signs:
    """Tells the other end that the function is at work, and puts the alarm off; not at every beat."""

    def __init__(self, answers: BinaryIO, seconds: float) -> None:
        self._answers, self._seconds = answers, seconds
        self._told = 0.0
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            _send(self._answers, _AT_WORK)


def _send(answers: BinaryIO, body: bytes) -> None:
    answers.write(len(body).to_bytes(8) + body)
    answers.flush()


def _outcome(function: Callable[[object], object], argument: object) -> object:
    try:
        return function(argument)
    except MorphMLPError as error:
        return error
    except Exception as error:  # noqa: BLE001 (types that the other end may not know; one video is lost by it)
        return DecodeError(" ".join(f"{type(error).__name__}: {error}".split()))


if __name__ == "__main__":
    main()
