"""A decoder's child process, seen from the process that asks it: start, ask, end.

It must not know videos; `isolated` keeps one child and makes a `VideoOpener` of it.
"""

import os
import signal
import socket
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import cast

from morphmlp.data.decoding.isolation.wire import Answer, OpenVideo, Request, TimedRequest, Working, receive, send
from morphmlp.errors import DecoderStartError

_START_SECONDS = 120.0
"""For imports from a slow shared file system; about 0.2 s from a local disk."""

_ALARM_AFTER_S = 1.0  # the child ends itself this long after it should have been ended: by then nobody is waiting
_END_SECONDS = 5.0
_MOST_REASON = 200


class ChildDiedError(Exception):
    """The child is gone; the message says by what, and its last words."""

    def __init__(self, message: str, *, killed: bool) -> None:
        """`killed`: by another process, or the system."""
        super().__init__(message)
        self.killed = killed


class ChildProcess:
    """A running child."""

    def __init__(self, decoder: str, image_decoder: str, *, memory_mb: int | None, memory_name: str) -> None:
        """Start it and wait until it's ready.

        Raises:
            DecoderStartError: It couldn't start. No video is at fault.
        """
        ours, theirs = socket.socketpair()
        errors, error_end = os.pipe()
        # Full, it drops what a codec has to say instead of holding it up.
        os.set_blocking(errors, False)
        os.set_blocking(error_end, False)
        command = [
            sys.executable,
            "-P",
            "-m",
            "morphmlp.data.decoding.isolation.child",
            "--socket",
            str(theirs.fileno()),
        ]
        command += ["--decoder", decoder, "--image-decoder", image_decoder]
        command += [f"--memory-name={memory_name}"]  # which may begin with --
        command += [] if memory_mb is None else ["--memory-mb", str(memory_mb)]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=error_end,
                pass_fds=[theirs.fileno()],
                env=_environment(),
            )
        except OSError as error:
            os.close(errors)
            ours.close()
            raise DecoderStartError(f"can't start a process for the {decoder} decoder: {error}") from error
        finally:
            theirs.close()
            os.close(error_end)
        self._process, self._channel, self._errors = process, ours, errors
        self._end = weakref.finalize(self, _end, process, ours, errors)
        try:
            ready, _ = receive(ours, seconds=_START_SECONDS)
        except (EOFError, OSError) as error:
            self.kill()
            reason = self._said() or repr(error)
            raise DecoderStartError(f"the process of the {decoder} decoder didn't start: {reason}") from None
        self.own_bytes_at_start = cast(int, ready)
        """Memory that it alone held when it was ready."""

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(
        self, request: Request, *, seconds: float, descriptor: int | None = None, follow_work: bool = False
    ) -> Answer:
        """Send a request and wait for its answer.

        With `follow_work` it waits so many seconds after each sign of progress, not in all.

        Raises:
            TimeoutError: There was none in time; the child is ended.
            ChildDiedError: The child has died at it.
        """
        if isinstance(request, OpenVideo):
            self._said()  # what it said of the video before is no cause of this one's
        timed = TimedRequest(request=request, seconds=seconds + _ALARM_AFTER_S, follow_work=follow_work)
        try:
            self._channel.settimeout(seconds)
            send(self._channel, timed, descriptor=descriptor)
            answer, _ = receive(self._channel, seconds=seconds)
            while isinstance(answer, Working):
                answer, _ = receive(self._channel, seconds=seconds)
        except TimeoutError:
            self.kill()
            raise
        except (EOFError, OSError):
            cause = self._cause_of_death()
            raise ChildDiedError(cause, killed=self._process.returncode == -signal.SIGKILL) from None
        return cast(Answer, answer)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        _reap(self._process)

    def close(self) -> None:
        """End it: it goes by itself when its socket does."""
        self._end()

    def forget(self) -> None:
        """In a forked process: let go of a child that is the parent's."""
        if self._end.detach() is not None:
            self._channel.close()
            os.close(self._errors)
            self._process.returncode = 0  # not ours to wait for

    def _cause_of_death(self) -> str:
        _reap(self._process)
        code = self._process.returncode
        if code is None:
            self.kill()
            return "closed its socket"
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            cause += ", from outside: memory may have run out"
        said = self._said()
        return f"{cause}; it said: {said}" if said else cause

    def _said(self) -> str:
        """The last line on its standard error since this was last asked."""
        text = b""
        with suppress(BlockingIOError, OSError):
            while piece := os.read(self._errors, 2**16):
                text = piece
        lines = text.decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:_MOST_REASON] if lines else ""


def _environment() -> dict[str, str]:
    """Ours, with the same places to import from and one thread for every library."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket, errors: int) -> None:
    channel.close()
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        _reap(process)
    os.close(errors)


def _reap(process: "subprocess.Popen[bytes]") -> None:
    # A process that waits for a dead network disk can't even be killed: it's left for `subprocess` to reap.
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
