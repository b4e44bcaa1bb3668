"""A process that extracts clips and decodes on request (`clip_program`); its hang or crash is an answer."""

import base64
import json
import select
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from morphmlp.benchmarks.clip_kinds import ClipKind
from morphmlp.benchmarks.thumbnails import Thumbnails
from morphmlp.benchmarks.true_frames import Truth
from morphmlp.errors import DecodeError, DecoderCrashError, DecodeTimeoutError

_START_S = 60.0
"""Time on top of each answer's, for a process that still imports."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one video took."""

    cpu_s: float
    wall_s: float


class FailedError(DecodeError):
    """A request that failed; `name` is the class of the error as it was there."""

    def __init__(self, name: str, message: str) -> None:
        """Keep the class and the text of the error in the process."""
        super().__init__(message)
        self.name = name


class ClipProcess:
    """One way of opening videos, in a process that starts with the first request and again after it has died."""

    def __init__(self, opener: str, *, timeout_s: float = 60.0, patience_s: float = 5.0) -> None:
        """Start nothing yet.

        Args:
            opener: See `clip_program.opener_of`.
            timeout_s: Time for one answer, seconds.
            patience_s: Time on top: an isolated opener has the same limit, and answers by itself when it's over.
        """
        self._opener, self._timeout_s, self._patience_s = opener, timeout_s, patience_s
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Usable as a context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has started, and not died."""
        return self._process is not None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None

    def extract(self, path: str, *, kind: ClipKind, video_id: str, epoch: int) -> Cost:
        """Extract clips from a video.

        Raises:
            FailedError: It couldn't.
        """
        answer = self._ask(job="extract", path=path, kind=kind, video_id=video_id, epoch=epoch)
        return Cost(cpu_s=answer["cpu_s"], wall_s=answer["wall_s"])

    def look(self, path: str, indices: list[int]) -> Thumbnails:
        """Small pictures of the frames at these indices.

        Raises:
            FailedError: It couldn't.
        """
        return _pictures(self._ask(job="look", path=path, indices=indices))

    def watch(self, path: str, *, most_frames: int, by: Truth = "a plain decode") -> Thumbnails:
        """Small pictures of the first frames, decoded one after the other (see `true_frames`).

        Raises:
            FailedError: It couldn't.
        """
        return _pictures(self._ask(job="watch", path=path, most_frames=most_frames, by=by))

    def _ask(self, **request: object) -> dict[str, Any]:
        fresh = self._process is None
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        text = json.dumps({"opener": self._opener, "timeout_s": self._timeout_s, **request})
        try:
            process.stdin.write(text + "\n")
            process.stdin.flush()
            wait_s = self._timeout_s + self._patience_s + (_START_S if fresh else 0)
            ready, _, _ = select.select([process.stdout], [], [], wait_s)
            line = process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        if line is None:
            self.close()
            raise FailedError(DecodeTimeoutError.__name__, f"didn't come to an end within {self._timeout_s:g} s")
        if not line.endswith("\n"):
            self.close()
            raise FailedError(DecoderCrashError.__name__, f"its process ended ({process.returncode})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FailedError(answer["error"], answer["message"])
        return answer

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "morphmlp.benchmarks.clip_program"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process


def _pictures(answer: dict[str, Any]) -> Thumbnails:
    values = np.frombuffer(base64.b64decode(answer["pictures"]), dtype=np.float16)
    return values.reshape(answer["shape"]).astype(np.float32)
