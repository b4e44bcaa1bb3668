"""decord 0.6, for those who must match older results.

It returns wrong frames in silence on trimmed (edit list) and open-GOP files, and is slower than PyAV.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from morphmlp.data.decoding.protocol import DecodedFrames, VideoInfo, VideoReader, require_content
from morphmlp.errors import DecodeError


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
        try:
            import decord  # noqa: PLC0415 (no wheels outside x86-64 Linux)
        except ImportError:
            raise DecodeError("decord isn't installed on this platform; set ingest.decoder to pyav") from None
        try:
            return _DecordReader(decord.VideoReader(path, num_threads=1))
        except (RuntimeError, decord.DECORDError) as error:
            raise DecodeError(f"not a readable video: {_last_line(error)}") from None


class _DecordReader:
    def __init__(self, reader: Any) -> None:
        self._reader = reader
        stamps = reader.get_frame_timestamp(np.arange(len(reader)))
        self.info = VideoInfo(
            num_frames=len(reader), fps=float(reader.get_avg_fps()), pts_s=tuple(float(start) for start, _ in stamps)
        )

    def read(self, indices: Sequence[int]) -> DecodedFrames:
        """The frames that decord returns for these indices."""
        import decord  # noqa: PLC0415

        try:
            frames = self._reader.get_batch(list(indices)).asnumpy()
        except (RuntimeError, decord.DECORDError) as error:
            raise DecodeError(f"can't be decoded: {_last_line(error)}") from None
        return DecodedFrames(frames=frames, concealed=0)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
