"""One video to its prepared copy: smaller, without sound, and cheap to cut training clips from.

The copy keeps every frame, at its time from the first one on. It's made for a decoder that skips the frames nobody
needs: short closed groups, and between the frames that others refer to a fixed number of frames that nobody refers to.
"""

import errno
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from morphmlp.data.decoding.inspection import cut_short
from morphmlp.data.decoding.protocol import Frames, VideoInfo
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder, reader_of
from morphmlp.data.decoding.pyav.orientation import Orientation
from morphmlp.data.decoding.pyav.packets import HELD_BYTES
from morphmlp.data.decoding.pyav.stream_decoder import StreamDecoder
from morphmlp.errors import CopyError, DecodeError, ManifestError
from morphmlp.files import atomic_file
from morphmlp.preparation.likeness import Sample, least_psnr_db, require_same_times
from morphmlp.preparation.transcode_settings import TranscodeSettings

_NO_VIDEOS_FAULT = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOENT, errno.ENOTDIR),
)
"""Errors of writing that the next video would meet too."""
_MPEG_TIME_BASE = Fraction(1, 90_000)
_FITTING = 0.01
"""Share of a unit of time: where frames are further off than this, the copy counts in MPEG's unit."""
_LONGEST_STEP = 2**31
"""Units of time from one frame to the next that an mp4 file can hold."""
_LIMITED_RANGE = 1
"""FFmpeg's `AVCOL_RANGE_MPEG`."""
_MATRICES = {
    1: Colorspace.ITU709,
    2: Colorspace.ITU601,  # unspecified: FFmpeg's scaler takes it so, in the source as in the copy
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
"""By FFmpeg's number of a matrix (`AVColorSpace`) the scaler's, for those that a copy can keep."""
_BT601 = 6
_PIXELS = "yuv420p"


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What was written."""

    info: VideoInfo
    """What the default decoder finds in it."""
    size_bytes: int
    lost: int
    """Frames of the source that are damaged or don't come out; the latter aren't in the copy."""
    cut_short: str
    """In words where the source ends too early; empty where nothing shows that it does."""


def transcode(source: str, target: Path, settings: TranscodeSettings) -> Copy:
    """Write a prepared copy and compare it with its source; under the target's name there's never half a file.

    The source is any file that FFmpeg reads; the target, an mp4 file, needs a folder that is there.

    Raises:
        DecodeError: The source can't be decoded.
        CopyError: A copy of it shows something else.
        ManifestError: The target can't be written.
    """
    stream = StreamDecoder(source, held_bytes=HELD_BYTES)
    old = reader_of(stream)
    try:
        with atomic_file(target) as unfinished:
            with av.open(str(unfinished), "w", format="mp4") as new:
                written = _Written(new, stream, old.info, settings)
                for index, frame in old.in_order():
                    written.add(frame, index)
                written.finish()
            info = written.compared(unfinished)
    except (av.error.FFmpegError, OSError) as error:
        # Errors of reading are dealt with where they arise.
        reason = str(error.strerror or error)
        if error.errno in _NO_VIDEOS_FAULT:
            raise ManifestError(f"{target}: can't be written: {reason}") from None
        raise CopyError(f"can't be encoded: {reason.lower()}") from None
    return Copy(
        info=info, size_bytes=target.stat().st_size, lost=old.scan() + written.num_unusable, cut_short=cut_short(source)
    )


def _x264_options(settings: TranscodeSettings) -> dict[str, str]:
    """Options of the encoder.

    `fastdecode` drops CABAC, the loop filter and weighted prediction, the expensive parts of decoding. A fixed pattern
    of B-frames without pyramid leaves all of them out of every reference list. A change of scene starts no group of its
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


def scaled_size(width: int, height: int, *, short_edge: int) -> tuple[int, int]:
    """Width and height of a copy: both even, as 4:2:0 needs them, the shorter one at most `short_edge`."""
    shorter = min(width, height)
    if shorter <= short_edge:
        return max(width // 2 * 2, 2), max(height // 2 * 2, 2)
    return tuple(max(round(side * short_edge / shorter / 2) * 2, 2) for side in (width, height))  # type: ignore[return-value]  # of two


class Pictures:
    """Makes a copy's pictures: all of one size, range and matrix, whatever the source changes to on its way."""

    def __init__(self, first: VideoFrame, *, width: int, height: int, orientation: Orientation) -> None:
        """Choose what all have in common, by the source's first frame.

        A picture as it is shown has so many columns and rows, both even; stored planes are turned to that.
        """
        self._width, self._height, self._orientation = width, height, orientation
        self._stored_size = orientation.shown_size(width, height)  # there as back
        self.matrix = _BT601 if _has_no_matrix(first) else first.colorspace
        """How YCbCr is made of RGB, by FFmpeg's number: as in the source where a copy can keep that."""
        self._reformatter = VideoReformatter()

    def cut_size(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of a stored frame that are used: all but one too many, as scaling by a pixel would blur."""
        across, down = self._stored_size
        return (across, down) if 0 <= width - across <= 1 and 0 <= height - down <= 1 else (width, height)

    def picture(self, frame: VideoFrame) -> VideoFrame:
        """One frame's, without its time.

        Raises:
            FFmpegError: It can't be converted.
        """
        if _has_no_matrix(frame):
            # By way of RGB, as the decoder sees it; straight to 4:2:0 every other pixel's colour would be left out.
            frame = self._reformatter.reformat(frame, format="rgb24", threads=1)
            frame = self._reformatter.reformat(
                frame,
                format="yuv444p",
                dst_colorspace=_MATRICES[self.matrix],
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
        is_scaled = self.cut_size(frame.width, frame.height) != self._stored_size
        width, height = self._stored_size if is_scaled else (frame.width, frame.height)
        converted = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=_PIXELS,
            dst_colorspace=None if frame.colorspace == self.matrix else _MATRICES[self.matrix],
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.LANCZOS if is_scaled else Interpolation.AREA,
            threads=1,
        )
        if self._orientation == Orientation() and (converted.width, converted.height) == (self._width, self._height):
            return converted
        planes = [np.ascontiguousarray(self._orientation.shown(plane)).ravel() for plane in self._planes(converted)]
        rows = self._height * 3 // 2
        return VideoFrame.from_ndarray(np.concatenate(planes).reshape(rows, self._width), format=_PIXELS)

    def _planes(self, frame: VideoFrame) -> list[Frames]:
        """Luma and both chroma planes, cut to an even size."""
        width, height = self._stored_size
        sizes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
        return [
            np.frombuffer(cast("memoryview[int]", plane), np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
            for plane, (rows, columns) in zip(frame.planes, sizes, strict=True)
        ]


def _has_no_matrix(frame: VideoFrame) -> bool:
    """Whether it's RGB, or of a matrix that the scaler doesn't know."""
    return frame.format.is_rgb or frame.colorspace not in _MATRICES


class _Written:
    """A copy that is being written: takes the source's frames as they come, and keeps what is compared in the end."""

    def __init__(
        self, container: OutputContainer, source: StreamDecoder, info: VideoInfo, settings: TranscodeSettings
    ) -> None:
        self._container, self._source, self._info, self._settings = container, source, info, settings
        self._width, self._height = scaled_size(info.width, info.height, short_edge=settings.short_edge)
        self._sample = Sample(info.num_frames, width=self._width, height=self._height)
        self._time_base = _time_base(info, source.time_base)
        self._stream: VideoStream | None = None
        self._pictures: Pictures | None = None
        self._indices: list[int] = []
        self.num_unusable = 0
        """Frames that can't be converted; they aren't in the copy."""

    def add(self, frame: VideoFrame, index: int) -> None:
        """Encode one frame, the source's at `index`."""
        if self._indices and index <= self._indices[-1]:
            raise CopyError(
                f"frame {index} by its time comes out after frame {self._indices[-1]}: the order isn't certain"
            )
        if self._pictures is None or self._stream is None:
            self._pictures = Pictures(
                frame, width=self._width, height=self._height, orientation=self._source.converter.orientation
            )
            self._stream = self._begun(frame, self._pictures)
        try:
            picture = self._pictures.picture(frame)
        except av.error.FFmpegError:  # a damaged header can claim any form
            self.num_unusable += 1
            return
        self._indices.append(index)
        since_first_s = self._info.pts_s[index] - self._info.pts_s[self._indices[0]]
        picture.pts, picture.time_base = round(since_first_s / float(self._time_base)), self._time_base
        picture.pict_type = 0  # else the encoder would repeat the source's pattern of frame types
        self._container.mux(self._stream.encode(picture))
        place = len(self._indices) - 1
        if self._sample.needs(place):
            rgb = self._source.converter.rgb(frame)
            across, down = self._pictures.cut_size(rgb.shape[1], rgb.shape[0])
            self._sample.take(place, self._source.converter.orientation.shown(rgb[:down, :across]))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is None or not self._indices:
            raise DecodeError("not one frame could be decoded")
        self._container.mux(self._stream.encode())

    def compared(self, path: Path) -> VideoInfo:
        """What the default decoder finds in the finished copy."""
        source_s = [self._info.pts_s[index] for index in self._indices]
        try:
            copy = PyAVDecoder().open(str(path))
            require_same_times(copy.info, source_s)
            self._sample.require_alike(copy, least_db=least_psnr_db(self._settings.crf))
        except CopyError:
            raise
        except DecodeError as error:
            raise CopyError(f"its copy can't be read back: {error}") from None
        return copy.info

    def _begun(self, first: VideoFrame, pictures: Pictures) -> VideoStream:
        # Only a hint: every frame has its time.
        rate = max(Fraction(self._info.fps).limit_denominator(1001), Fraction(1, 1001))
        stream = self._container.add_stream("libx264", rate=rate, options=_x264_options(self._settings))
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = self._width, self._height, "yuv420p"
        context.time_base = stream.time_base = self._time_base
        context.colorspace, context.color_range = pictures.matrix, _LIMITED_RANGE
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        context.thread_count = 1
        return stream


def _time_base(info: VideoInfo, unit: Fraction) -> Fraction:
    """The source's unit of time where it fits its frames and an mp4 file; MPEG's else."""
    times = (np.array(info.pts_s) - info.pts_s[0]) / float(unit)
    fits = np.abs(times - times.round()).max() < _FITTING and np.diff(times).max(initial=0) < _LONGEST_STEP
    return unit if fits else _MPEG_TIME_BASE
