"""torchcodec in its exact mode, used where it and an FFmpeg of its own kind are installed.

It is PyTorch's decoder: importing it imports torch. It reports no damage that its FFmpeg patches: only frames that it
doesn't give at all are counted as concealed.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version

import numpy as np

from morphmlp.data.decoding.protocol import Box, DecodedFrames, Frames, VideoReader, require_content
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.stand_ins import AllOrNoneReader
from morphmlp.errors import DecodeError


@cache
def torchcodec_fault() -> str | None:
    """Why torchcodec can't be used here; None where it can."""
    if importlib.util.find_spec("torchcodec") is None:
        return "torchcodec isn't installed; pip install torchcodec, and FFmpeg 4 to 8 with its shared libraries"
    try:
        import torchcodec  # noqa: PLC0415 (heavy, and not everywhere)
    except (ImportError, OSError, RuntimeError) as error:
        reason = _first_line(error).partition(". ")[0]
        return f"torchcodec can't be imported ({reason}); it must fit this torch and find FFmpeg 4 to 8"
    if getattr(torchcodec, "ffmpeg_major_version", "found") is None:  # of older ones the import fails instead
        return f"torchcodec {version('torchcodec')} finds no FFmpeg; install FFmpeg 4 to 8 with its shared libraries"
    return None


class TorchcodecDecoder:
    """Decoding with one FFmpeg thread, on the CPU."""

    name = "torchcodec"

    @property
    def version(self) -> str:
        """Version of the torchcodec package."""
        return version("torchcodec")

    def open(self, path: str) -> VideoReader:
        """Open a file and read its packets."""
        require_content(path)
        fault = torchcodec_fault()
        if fault is not None:
            raise DecodeError(fault)
        return _TorchcodecReader(path)


class _TorchcodecReader(AllOrNoneReader):
    failures = (RuntimeError, ValueError, IndexError)

    def __init__(self, path: str) -> None:
        from torchcodec.decoders import VideoDecoder  # noqa: PLC0415 (not installed everywhere)

        self._make = partial(VideoDecoder, path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        try:
            self.open()
        except self.failures as error:
            raise DecodeError(f"not a readable video: {_first_line(error)}") from None
        num_frames = len(self._decoder)
        if not num_frames:
            raise DecodeError("has a video stream without frames")
        self.info = PyAVDecoder().open(path).info  # torchcodec gives times with decoded frames only
        if num_frames != self.info.num_frames:  # files without times, which it counts in another way
            fps = float(self._decoder.metadata.average_fps or self.info.fps)
            pts_s = tuple(self.info.pts_s[0] + index / fps for index in range(num_frames))
            self.info = replace(self.info, num_frames=num_frames, fps=fps, pts_s=pts_s)

    def open(self) -> None:
        """Open the file (again)."""
        self._decoder = self._make()

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The frames at these display-order indices, or what a box cuts out of them."""
        if min(indices) < 0 or max(indices) >= self.info.num_frames:  # it counts indices below 0 from the end
            raise IndexError(f"frames {min(indices)}..{max(indices)} of a video with {self.info.num_frames}")
        return super().read(indices, box)

    def batch(self, indices: Sequence[int]) -> Frames:
        """The frames that torchcodec returns for these indices."""
        frames: Frames = self._decoder.get_frames_at(list(indices)).data.numpy()
        return np.ascontiguousarray(frames)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
