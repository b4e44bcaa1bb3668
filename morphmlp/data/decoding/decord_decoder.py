"""decord 0.6, for those who must match older results.

It returns wrong frames in silence on trimmed (edit list) and open-GOP files, and is slower than PyAV. It doesn't
report damage that its FFmpeg patches: only frames that it doesn't give at all are counted as concealed.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import numpy as np

from morphmlp.data.decoding.protocol import Frames, VideoReader, require_content
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.stand_ins import AllOrNoneReader
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


class _DecordReader(AllOrNoneReader):
    tries = 30

    def __init__(self, path: str) -> None:
        import decord  # noqa: PLC0415 (no wheels outside x86-64 Linux)

        self.failures = (RuntimeError, decord.DECORDError)
        self._make = partial(decord.VideoReader, path, num_threads=1)
        try:
            self.open()
        except self.failures as error:
            raise DecodeError(f"not a readable video: {_last_line(error)}") from None
        num_frames = len(self._reader)
        if not num_frames:
            raise DecodeError("has a video stream without frames")
        stamps = self._reader.get_frame_timestamp(np.arange(num_frames))
        seen = PyAVDecoder().open(path).info  # decord knows neither codec nor size before it decodes
        pts_s = tuple(float(start) for start, _ in stamps)
        self.info = replace(seen, num_frames=num_frames, fps=float(self._reader.get_avg_fps()), pts_s=pts_s)

    def open(self) -> None:
        """Open the file (again)."""
        self._reader = self._make()

    def batch(self, indices: Sequence[int]) -> Frames:
        """The frames that decord returns for these indices."""
        frames: Frames = self._reader.get_batch(list(indices)).asnumpy()
        return frames


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
