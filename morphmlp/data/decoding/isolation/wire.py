"""What a process and its decoder child exchange: messages over a Unix socket, frames in memory that both see.

A message is a pickled value with its length in front: both ends run the same code, started by one user. The child
writes frames into shared memory, whose file descriptors are passed over the socket, and the process looks at them where
they are; that they alternate is the caller's affair.
"""

import mmap
import os
import pickle
import socket
import struct
import tempfile
import time
import weakref
from dataclasses import dataclass
from math import prod

import numpy as np

from morphmlp.data.decoding.protocol import Box, Frames, Inspection, VideoInfo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import DecodeError

_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, kw_only=True)
class OpenVideo:
    """Open a video in place of the one before; answered with its `VideoInfo`."""

    path: str
    num_frames: int | None
    crc32: int | None
    image: StoredImage | None = None


@dataclass(frozen=True, kw_only=True)
class ReadFrames:
    """Decode frames of the open video into shared memory; answered with `FramesWritten`."""

    indices: tuple[int, ...]
    box: Box | None
    memory: int
    """Number of the shared memory. A descriptor that comes with the request replaces what had this number."""


@dataclass(frozen=True, kw_only=True)
class ReadImages:
    """Decode the first of these images into shared memory; answered with `ImagesWritten`. No video is open then."""

    sources: tuple[OpenVideo, ...]
    memory: int
    most_bytes: int
    """Of pixels; the first image may have more."""


@dataclass(frozen=True, kw_only=True)
class ScanVideo:
    """Decode every frame of the open video; answered with the number of damaged ones."""


@dataclass(frozen=True, kw_only=True)
class InspectVideo:
    """Look at the open video in every way; answered with an `Inspection`."""


Request = OpenVideo | ReadFrames | ReadImages | ScanVideo | InspectVideo


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
    refused: int


@dataclass(frozen=True, kw_only=True)
class ImageWritten:
    """The pixels of an image lie in the shared memory."""

    info: VideoInfo
    start: int
    """Their first byte there."""
    refused: bool

    @property
    def size(self) -> int:
        """Their bytes."""
        return self.info.height * self.info.width * 3


@dataclass(frozen=True, kw_only=True)
class ImagesWritten:
    """What came of the first images, at least one."""

    images: tuple[ImageWritten | DecodeError | None, ...]
    """Of one that can't be used the reason; None: it's a folder or a video under the name of an image."""


Outcome = VideoInfo | FramesWritten | ImagesWritten | Inspection | int | Exception


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
        TimeoutError: It didn't arrive complete within so many seconds.
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


class SharedFrames:
    """A piece of memory without a name that grows to the largest stack of frames put into it."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Take over the descriptor that the other process passed, or make new memory."""
        self.descriptor = _anonymous_file() if descriptor is None else descriptor
        """Descriptor of the file behind the memory."""
        self._map: mmap.mmap | None = None
        self._seen: weakref.ref[Frames] | None = None
        self._close = weakref.finalize(self, os.close, self.descriptor)

    @property
    def size(self) -> int:
        """Bytes that it holds, as far as this process has looked."""
        return 0 if self._map is None else len(self._map)

    @property
    def in_use(self) -> bool:
        """Whether the array that `frames` gave last, or a view of it, is still held by someone."""
        return self._seen is not None and self._seen() is not None

    def frames(self, shape: tuple[int, ...]) -> Frames:
        """The memory's beginning as `[t h w c]`, not a copy. It outlives this object."""
        size = prod(shape)
        if self._map is None or len(self._map) < size:
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            # An earlier map is left to the arrays that still look at it.
            self._map = mmap.mmap(self.descriptor, size)
        frames: Frames = np.ndarray(shape, dtype=np.uint8, buffer=self._map)
        self._seen = weakref.ref(frames)
        return frames

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last array that looks at it."""
        self._close()


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoded frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
