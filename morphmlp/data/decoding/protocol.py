"""The contract of a decoder, and the values that it hands over.

A decoder opens a file, tells what is in it, and returns wanted frames as uint8 RGB with the display
rotation applied. It must not know clips, labels or configuration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from morphmlp.errors import DecodeError

Frames = npt.NDArray[np.uint8]
"""RGB frames, `[t h w c]`."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file holds: presentable frames only, in display order."""

    num_frames: int
    fps: float
    """Mean rate over the presentable frames, frames per second."""
    pts_s: tuple[float, ...]
    """Presentation time of each frame, seconds."""


@dataclass(frozen=True, kw_only=True)
class DecodedFrames:
    """Wanted frames, one per wanted index, in its order."""

    frames: Frames
    concealed: int
    """How many of them stand in for a frame that a damaged stream doesn't give: the nearest good one."""


class VideoReader(Protocol):
    """An open video. Not to be shared by threads or carried over a fork."""

    info: VideoInfo

    def read(self, indices: Sequence[int]) -> DecodedFrames:
        """The frames at these display-order indices (repeats allowed).

        Raises:
            DecodeError: Not one frame could be decoded.
        """
        ...


class Decoder(Protocol):
    """A named way of decoding."""

    name: str

    @property
    def version(self) -> str:
        """Version of the library behind it, recorded with every run."""
        ...

    def open(self, path: str) -> VideoReader:
        """Open a file.

        Raises:
            DecodeError: The file is missing, empty, not a video, or has no video stream.
        """
        ...


def require_content(path: str) -> None:
    """Tell a missing or an empty file apart from a broken one, which libraries don't.

    Raises:
        DecodeError: There is no such file, or it has no bytes.
    """
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise DecodeError((error.strerror or str(error)).lower()) from None
    if size == 0:
        raise DecodeError("the file is empty (0 bytes)")
