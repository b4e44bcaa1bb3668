"""One video to its prepared copy: smaller, without sound, and cheap to cut training clips from.

The copy keeps every frame, at its time from the first one on. It's made for a decoder that skips the frames nobody
needs: short closed groups, and between the frames that others refer to a fixed number of frames that nobody refers to.
"""

import errno
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from morphmlp.data.decoding.inspection import cut_short
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder, reader_of
from morphmlp.data.decoding.pyav.packets import HELD_BYTES
from morphmlp.data.decoding.pyav.stream_decoder import StreamDecoder
from morphmlp.errors import CopyError, DecodeError, ManifestError
from morphmlp.files import atomic_file
from morphmlp.preparation.likeness import Sample, least_psnr_db, require_same_times
from morphmlp.preparation.pictures import Pictures, scaled_size
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
                frame, width=self._width, height=self._height, orientation=self._source.orientation
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
            rgb = self._source.stored_rgb(frame)
            across, down = self._pictures.cut_size(rgb.shape[1], rgb.shape[0])
            self._sample.take(place, self._source.orientation.shown(rgb[:down, :across]))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is None or not self._indices:
            raise DecodeError("not one frame could be decoded")
        self._container.mux(self._stream.encode())

    def compared(self, path: Path) -> VideoInfo:
        """What the default decoder finds in the finished copy.

        Raises:
            CopyError: It isn't what was put in.
        """
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

    def _rate(self) -> Fraction:
        """Only a hint: every frame has its time."""
        return max(Fraction(self._info.fps).limit_denominator(1001), Fraction(1, 1001))

    def _begun(self, first: VideoFrame, pictures: Pictures) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=self._rate(), options=_x264_options(self._settings))
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
