"""The contract of a decoder, and the values that it hands over.

A decoder opens a file, tells what is in it, and returns wanted frames as uint8 RGB with the display rotation applied.
It must not know clips, labels or configuration, and it imports neither torch nor Ray: it runs in a separate process
(`isolation`), which starts in a moment. While it reads packets and decodes frames it beats, so that whoever waits can
tell a long video from a decoder that stands still.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import DecodeError

Frames = npt.NDArray[np.uint8]
"""RGB frames, `[t h w c]`."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle of a frame, pixels."""

    top: int
    left: int
    height: int
    width: int

    def describe(self) -> str:
        """The box in words, as in `180x200 at (12, 40)`: height x width, row and column of its corner."""
        return f"{self.height}x{self.width} at ({self.top}, {self.left})"

    def inside(self, other: "Box") -> "Box":
        """The same pixels of what the other box, which holds it, cuts out."""
        return replace(self, top=self.top - other.top, left=self.left - other.left)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file holds: presentable frames only, in display order."""

    num_frames: int
    fps: float
    """Mean rate over the presentable frames, frames per second."""
    pts_s: tuple[float, ...]
    """Presentation time of each frame, seconds."""
    width: int
    """Columns of a frame as it is shown, pixels."""
    height: int
    """Rows of a frame as it is shown, pixels."""
    codec: str
    """FFmpeg's name of the codec, as in `h264`; `jpeg` or `png` for frames that are stored one by one."""


@dataclass(frozen=True, kw_only=True)
class DecodedFrames:
    """Wanted frames, one per wanted index, in its order."""

    frames: Frames
    concealed: int
    """How many of them are not what was encoded: frames that the decoder marks as damaged and patched, and those that a
    damaged stream doesn't give at all, for which the nearest good one stands in."""
    refused: int = 0
    """How many of them are JPEGs that only Pillow could read."""


class FrameReader(Protocol):
    """An open video, as far as clips need it. Not to be shared by threads or carried over a fork."""

    @property
    def info(self) -> VideoInfo:
        """What is known of it."""
        ...

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The frames at these display-order indices (repeats allowed), or what a box cuts out of each.

        The box lies inside frames of the size that `info` has. The pixels in it are the same without it.

        Raises:
            DecodeError: Not one frame could be decoded.
        """


class VideoReader(FrameReader, Protocol):
    """An open video."""

    def scan(self) -> int:
        """Decode every frame once; returns how many of `info.num_frames` are damaged or don't come out.

        Raises:
            DecodeError: Not one frame could be decoded.
        """


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspection` found of a video."""

    damaged: int
    """Frames that are damaged or don't come out."""
    compared: int
    """Frames that were read in both ways; none of a damaged video, where a plain decode leaves frames out."""
    wrong: int
    """Compared frames that were others than asked for, and frames that only one of the ways has."""
    cut_short: str
    """In words; empty where nothing shows that the file was cut short."""


class Decoder(Protocol):
    """A named way of decoding."""

    name: str

    @property
    def version(self) -> str:
        """Version of the library behind it, recorded with every run."""

    def open(self, path: str) -> VideoReader:
        """Open a file.

        Raises:
            DecodeError: The file is missing, empty, not a video, or has no video stream.
        """


class VideoOpener(Protocol):
    """Opens whatever a manifest names: a video file, a folder of frames, or frames packed into one file."""

    def open(
        self, path: str, *, num_frames: int | None, crc32: int | None = None, image: StoredImage | None = None
    ) -> VideoReader:
        """Open a video.

        Args:
            path: File, or folder of frames.
            num_frames: Frames that the manifest promises. Frames that are stored one by one must be at least as many;
                for a video file it doesn't matter.
            crc32: Of the file's bytes, as the manifest has it; None: not checked.
            image: Which image of the file is meant, and how it's shown; None: what the path's own name says.

        Raises:
            DecodeError: It can't be used, with the reason.
        """


def require_content(path: str) -> None:
    """Refuse a missing or an empty file in words of its own, which libraries don't find.

    Raises:
        DecodeError: There is no such file, or it has no bytes.
    """
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise DecodeError((error.strerror or str(error)).lower()) from None
    if size == 0:
        raise DecodeError("the file is empty (0 bytes)")


class _Heartbeat:
    listener: Callable[[], None] | None = None


def beat() -> None:
    """A packet was read, or a frame came out."""
    if _Heartbeat.listener is not None:
        _Heartbeat.listener()


@contextmanager
def heard(listener: Callable[[], None] | None) -> Iterator[None]:
    """Let a function hear every beat of this process; None: nobody listens."""
    before, _Heartbeat.listener = _Heartbeat.listener, listener
    try:
        yield
    finally:
        _Heartbeat.listener = before


class _Memory:
    of: Callable[[tuple[int, ...]], Frames] | None = None


@contextmanager
def written_to(memory: Callable[[tuple[int, ...]], Frames]) -> Iterator[None]:
    """Let `stacked` write frames into what this gives for their shape, instead of fresh memory."""
    _Memory.of = memory
    try:
        yield
    finally:
        _Memory.of = None


def stacked(pictures: Sequence[Frames]) -> Frames:
    """Pictures of one size as the frames `[t h w c]` that a reader hands over."""
    if _Memory.of is None:
        return np.stack(pictures)
    return np.stack(pictures, out=_Memory.of((len(pictures), *pictures[0].shape)))


def enclosing(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of these."""
    top, left = min(box.top for box in boxes), min(box.left for box in boxes)
    bottom = max(box.top + box.height for box in boxes)
    right = max(box.left + box.width for box in boxes)
    return Box(top=top, left=left, height=bottom - top, width=right - left)


def cut(frames: Frames, box: Box | None) -> Frames:
    """What a box cuts out of frames `[t h w c]`, on their memory; without one the frames."""
    if box is None:
        return frames
    return frames[:, box.top : box.top + box.height, box.left : box.left + box.width]


def frames_of_image(frame: Frames, indices: Sequence[int]) -> Frames:
    """An image `[h w c]` for each of the indices of a clip `[t h w c]`; for a single one on the same memory.

    Raises:
        IndexError: No index, or another one than 0.
    """
    if set(indices) != {0}:
        raise IndexError(f"frames {list(indices)} of an image, which is frame 0")
    # `frame[None]` would have a stride of 0, in which torch's resizing doesn't recognise neighbouring colours: it then
    # gives planes, and bringing those back takes as long as the resizing.
    clip = frame.reshape(1, *frame.shape)
    return clip if len(indices) == 1 else np.repeat(clip, len(indices), axis=0)
