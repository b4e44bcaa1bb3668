"""What a process and its decoder child say to each other, over a Unix socket.

A message is a pickled value with its length in front: both ends run the same code, started by one user. Frames don't go
this way; they lie in `shared_frames`, whose file descriptors are passed along.
"""

import pickle
import socket
import struct
import time
from dataclasses import dataclass

from morphmlp.data.decoding.inspection import Inspection
from morphmlp.data.decoding.protocol import VideoInfo

_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, kw_only=True)
class OpenVideo:
    """Open a video in place of the one before; answered with its `VideoInfo`."""

    path: str
    num_frames: int | None
    crc32: int | None


@dataclass(frozen=True, kw_only=True)
class ReadFrames:
    """Decode frames of the open video into shared memory; answered with `FramesWritten`."""

    indices: tuple[int, ...]
    memory: int
    """Number of the shared memory. A descriptor that comes with the request replaces what had this number."""


@dataclass(frozen=True, kw_only=True)
class ScanVideo:
    """Decode every frame of the open video; answered with the number of damaged ones."""


@dataclass(frozen=True, kw_only=True)
class InspectVideo:
    """Look at the open video in every way; answered with an `Inspection`."""


Request = OpenVideo | ReadFrames | ScanVideo | InspectVideo


@dataclass(frozen=True, kw_only=True)
class TimedRequest:
    """A request and the time after which the child ends itself."""

    request: Request
    seconds: float
    follow_work: bool = False
    """Say `Working` from time to time while frames come out, and begin to count anew."""


@dataclass(frozen=True, kw_only=True)
class FramesWritten:
    """The wanted frames lie in the shared memory."""

    shape: tuple[int, int, int, int]
    """`t h w c`."""
    concealed: int


Outcome = VideoInfo | FramesWritten | Inspection | int | Exception


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request."""

    value: Outcome
    """An exception is to be raised at the other end."""
    own_bytes: int
    """Memory that the child alone holds after it."""
    cpu_s: float
    """CPU time of the child's threads since its last word, seconds."""


@dataclass(frozen=True, kw_only=True)
class Working:
    """The answer will take its time, but the decoder isn't standing still."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The child's first word, once everything is imported."""

    own_bytes: int


def send(channel: socket.socket, message: object, *, descriptor: int | None = None) -> None:
    """Send a message, and a file descriptor with it.

    Raises:
        OSError: The other end is gone, or the channel's time limit has passed.
    """
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    packet = _LENGTH.pack(len(body)) + body
    sent = 0 if descriptor is None else socket.send_fds(channel, [packet], [descriptor])
    channel.sendall(packet[sent:])


def receive(channel: socket.socket, *, seconds: float | None = None) -> tuple[object, list[int]]:
    """Wait for a message; returns it with the file descriptors that came along.

    Raises:
        EOFError: The other end is gone.
        TimeoutError: It didn't come whole within so many seconds.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    channel.settimeout(seconds)
    head, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
    head += _exactly(channel, _LENGTH.size - len(head), deadline) if head else b""
    if not head:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    message: object = pickle.loads(_exactly(channel, length, deadline))
    return message, descriptors


def _exactly(channel: socket.socket, length: int, deadline: float | None) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        if deadline is not None:
            channel.settimeout(max(deadline - time.monotonic(), 1e-3))
        got = channel.recv_into(view)
        if got == 0:
            raise EOFError
        view = view[got:]
    return bytes(data)
