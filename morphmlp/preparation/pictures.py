"""A decoded frame as a prepared copy holds it: 4:2:0 in limited range, at the copy's size, turned as it is shown."""

from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.pyav.stream_decoder import Orientation

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


def scaled_size(width: int, height: int, *, short_edge: int) -> tuple[int, int]:
    """Width and height of a copy: both even, as 4:2:0 needs them, the shorter one at most `short_edge`."""
    shorter = min(width, height)
    if shorter <= short_edge:
        return max(width // 2 * 2, 2), max(height // 2 * 2, 2)
    return tuple(max(round(side * short_edge / shorter / 2) * 2, 2) for side in (width, height))  # type: ignore[return-value]  # of two


class Pictures:
    """Makes a copy's pictures: all of one size, range and matrix, whatever the source changes to on its way."""

    def __init__(self, first: VideoFrame, *, width: int, height: int, orientation: Orientation) -> None:
        """Choose what all have in common.

        Args:
            first: The source's first frame.
            width: Columns of a picture as it is shown, even.
            height: Rows.
            orientation: How stored planes are turned to that.
        """
        self._width, self._height = width, height
        self._orientation = orientation
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
