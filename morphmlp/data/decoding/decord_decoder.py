"""decord 0.6, for those who must match older results.

It returns wrong frames in silence on trimmed (edit list) and open-GOP files, and is slower than PyAV. It doesn't
report damage that its FFmpeg patches: only frames that it doesn't give at all are counted as concealed.
"""

import importlib.util
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

import numpy as np

from morphmlp.data.decoding.protocol import DecodedFrames, Frames, VideoInfo, VideoReader, require_content
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.stand_ins import count_missing, read_one_by_one
from morphmlp.errors import DecodeError


def decord_fault() -> str | None:
    """Why decord can't be used here; None where it can."""
    if importlib.util.find_spec("decord") is None:
        return "decord isn't installed on this platform; name pyav or torchcodec"
    return None


class DecordDecoder:
    """Decoding with one decord thread."""

    name = "decord"

    @property
    def version(self) -> str:
        """Version of the decord package."""
        return version("decord")

    def open(self, path: str) -> VideoReader:
        """Open a file."""
        require_content(path)
        fault = decord_fault()
        if fault is not None:
            raise DecodeError(fault)
        return _DecordReader(path)


class _DecordReader:
    def __init__(self, path: str) -> None:
        import decord  # noqa: PLC0415 (no wheels outside x86-64 Linux)

        self._failures = (RuntimeError, decord.DECORDError)
        self._open = partial(decord.VideoReader, path, num_threads=1)
        try:
            reader = self._open()
        except self._failures as error:
            raise DecodeError(f"not a readable video: {_last_line(error)}") from None
        if not len(reader):
            raise DecodeError("has a video stream without frames")
        self._reader = reader
        stamps = reader.get_frame_timestamp(np.arange(len(reader)))
        seen = PyAVDecoder().open(path).info  # decord knows neither codec nor size before it decodes
        self.info = VideoInfo(
            num_frames=len(reader),
            fps=float(reader.get_avg_fps()),
            pts_s=tuple(float(start) for start, _ in stamps),
            width=seen.width,
            height=seen.height,
            codec=seen.codec,
        )

    def read(self, indices: Sequence[int]) -> DecodedFrames:
        """The frames that decord returns for these indices."""
        try:
            return DecodedFrames(frames=self._batch(indices), concealed=0)
        except self._failures:
            self._reader = self._open()
            return read_one_by_one(indices, self._frame_at, num_frames=self.info.num_frames)

    def scan(self) -> int:
        """Decode every frame; how many decord doesn't give."""
        return count_missing(self._frame_at, num_frames=self.info.num_frames)

    def _batch(self, indices: Sequence[int]) -> Frames:
        frames: Frames = self._reader.get_batch(list(indices)).asnumpy()
        return frames

    def _frame_at(self, index: int) -> Frames | None:
        try:
            frame: Frames = self._batch([index])[0]
        except self._failures:
            self._reader = self._open()  # a failed one gives other frames than before
            return None
        return frame


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
