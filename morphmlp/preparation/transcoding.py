"""One video to its prepared copy: smaller, without sound, and cheap to cut training clips from.

The copy keeps every frame and its presentation time. It's made for a decoder that skips the frames nobody wants:
short closed groups, and between the frames that others refer to a fixed number of frames that nobody refers to. Knows
neither manifests nor Ray.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from morphmlp.errors import DecodeError, ManifestError
from morphmlp.preparation.transcode_settings import TranscodeSettings

__all__ = ["Copy", "TranscodeSettings", "scaled_size", "transcode", "x264_options"]

_NO_VIDEOS_FAULT = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOENT, errno.ENOTDIR),
)
"""Errors of writing that the next video would meet too."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What was written."""

    size_bytes: int
    num_frames: int
    fps: float
    width: int
    height: int
    codec: str
    duration_s: float
    lost: int
    """Packets of the source that gave an error, and frames that were marked as damaged."""


def transcode(source: str, target: Path, settings: TranscodeSettings) -> Copy:
    """Write a prepared copy; under the target's name there's never half a file.

    Args:
        source: Any video file that FFmpeg reads; it's only read.
        target: The copy, an mp4 file; its folder must be there.
        settings: How.

    Raises:
        DecodeError: The source can't be decoded.
        ManifestError: The target can't be written.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with _opened(source) as old, av.open(str(unfinished), "w", format="mp4") as new:
            written = _Encoder(new, settings)
            frames = _Frames(old)
            for frame in frames:
                written.add(frame)
            if not written.num_frames:
                raise DecodeError("not one frame could be decoded")
            written.finish()
        unfinished.replace(target)
    except (av.error.FFmpegError, OSError) as error:
        # Errors of reading are dealt with where they arise.
        reason = str(error.strerror or error)
        if error.errno in _NO_VIDEOS_FAULT:
            raise ManifestError(f"{target}: can't be written: {reason}") from None
        raise DecodeError(f"can't be encoded: {reason.lower()}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return Copy(
        size_bytes=target.stat().st_size,
        num_frames=written.num_frames,
        fps=written.fps,
        width=written.width,
        height=written.height,
        codec="h264",
        duration_s=written.num_frames / written.fps,
        lost=frames.lost,
    )


def scaled_size(width: int, height: int, *, short_edge: int) -> tuple[int, int]:
    """Width and height of a copy: both even, as 4:2:0 needs them, the shorter one at most `short_edge`."""
    shorter = min(width, height)
    if shorter <= short_edge:
        return max(width // 2 * 2, 2), max(height // 2 * 2, 2)
    return tuple(max(round(side * short_edge / shorter / 2) * 2, 2) for side in (width, height))  # type: ignore[return-value]


def x264_options(settings: TranscodeSettings) -> dict[str, str]:
    """Options of the encoder.

    `fastdecode` drops CABAC, the loop filter and weighted prediction, the dear parts of decoding. A fixed pattern of
    B-frames without pyramid leaves all of them out of every reference list. A change of scene starts no group of its
    own, so that the pattern, and with it what a stride of `b_frames + 1` costs, is the same everywhere.
    """
    return {
        "preset": settings.preset,
        "tune": "fastdecode",
        "crf": str(settings.crf),
        "x264-params": (
            f"keyint={settings.gop}:min-keyint={settings.gop}:scenecut=0:open-gop=0:"
            f"bframes={settings.b_frames}:b-adapt=0:b-pyramid=none:threads=1"
        ),
    }


class _Frames:
    """The presentable frames of a file in display order, with whatever is damaged counted in `lost`."""

    def __init__(self, container: Any) -> None:
        if not container.streams.video:
            raise DecodeError("has no video stream")
        self._container = container
        self._stream = container.streams.video[0]
        self._stream.codec_context.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self.lost = 0

    def __iter__(self) -> Iterator[Any]:
        last: int | None = None
        count = 0
        step = _frame_length(self._stream)
        for packet in self._packets():
            for frame in self._decoded(packet):
                frame.time_base = self._stream.time_base
                if frame.pts is None:  # AVI and raw streams: frames are counted, at the declared rate
                    frame.pts, frame.time_base = count * step.numerator, Fraction(1, step.denominator)
                count += 1
                if last is None or frame.pts > last:
                    last = frame.pts
                    self.lost += bool(frame.is_corrupt)
                    yield frame

    def _packets(self) -> Iterator[Any]:
        # A file cut short still has the frames before the cut.
        with suppress(av.error.FFmpegError):
            yield from (packet for packet in self._container.demux(self._stream) if packet.size)
        yield None

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return list(self._stream.codec_context.decode(packet))
        except av.error.FFmpegError:
            self.lost += 1
            return []


class _Encoder:
    """Takes decoded frames as they come and writes the copy's only stream."""

    def __init__(self, container: Any, settings: TranscodeSettings) -> None:
        self._container = container
        self._settings = settings
        self._stream: Any = None
        self._first_s = self._last_s = Fraction(0)
        self._step = Fraction(1, 30)
        self.num_frames = 0
        self.width = self.height = 0

    @property
    def fps(self) -> float:
        """Mean rate, frames per second."""
        length = self._last_s - self._first_s
        return float((self.num_frames - 1) / length if length else 1 / self._step)

    def add(self, frame: Any) -> None:
        """Turn, scale and encode one frame."""
        if self._stream is None:
            self._begin(frame)
        prepared = _prepared(frame, width=self.width, height=self.height)
        prepared.pts, prepared.time_base = frame.pts, frame.time_base
        prepared.pict_type = 0  # else the encoder would repeat the source's pattern of frame types
        self._container.mux(self._stream.encode(prepared))
        self._last_s = frame.pts * frame.time_base
        self.num_frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())

    def _begin(self, frame: Any) -> None:
        """Open the stream; size, clock and colours are those of the first frame."""
        turned = round(frame.rotation / 90) % 2 == 1
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        self.width, self.height = scaled_size(width, height, short_edge=self._settings.short_edge)
        self._stream = self._container.add_stream("libx264", options=x264_options(self._settings))
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = self._stream.time_base = frame.time_base
        context.colorspace, context.color_primaries = frame.colorspace, frame.color_primaries
        context.color_trc = frame.color_trc
        context.thread_count = 1
        self._first_s = frame.pts * frame.time_base


def _prepared(frame: Any, *, width: int, height: int) -> Any:
    """A frame as 4:2:0, upright, at the copy's size."""
    quarter_turns = round(frame.rotation / 90) % 4
    across, down = (height, width) if quarter_turns % 2 else (width, height)
    # One row or column too many is cut off: scaling by a pixel would blur the whole picture.
    smaller = frame.width - across > 1 or frame.height - down > 1
    if smaller or (frame.width >= across and frame.height >= down) is False:
        frame = frame.reformat(across, down, format="yuv420p", interpolation="LANCZOS", threads=1)
    elif frame.format.name != "yuv420p":
        frame = frame.reformat(format="yuv420p", threads=1)
    if not quarter_turns and (frame.width, frame.height) == (width, height):
        return frame
    planes = _planes(frame, across, down)
    return av.VideoFrame.from_ndarray(
        np.concatenate([np.ascontiguousarray(np.rot90(plane, quarter_turns)).ravel() for plane in planes]).reshape(
            height * 3 // 2, width
        ),
        format="yuv420p",
    )


def _planes(frame: Any, width: int, height: int) -> list[npt.NDArray[np.uint8]]:
    """Luma and both chroma planes, cut to an even size."""
    sizes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
        for plane, (rows, columns) in zip(frame.planes, sizes, strict=True)
    ]


def _frame_length(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or 30
    return 1 / Fraction(rate)


@contextmanager
def _opened(source: str) -> Iterator[Any]:
    try:
        container = av.open(source, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(f"not a readable video: {str(error.strerror or error).lower()}") from None
    with container:
        yield container
