"""How decoded pictures are to be turned and mirrored before they are shown."""

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame

from morphmlp.data.decoding.protocol import Box


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """One of the eight ways to lay a picture: rows and columns exchanged or not, then each mirrored or not."""

    is_transposed: bool = False
    mirrors_columns: bool = False
    """Left and right change places."""
    mirrors_rows: bool = False
    """Top and bottom change places."""

    def shown(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A picture, or one plane of it, as it is to be shown: `[h w ...]`, a view without a copy."""
        if self.is_transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.mirrors_rows else 1, :: -1 if self.mirrors_columns else 1]

    def stored_box(self, box: Box, *, width: int, height: int) -> Box:
        """The box that holds, in a picture that is stored with this size, what a box of the shown picture holds."""
        shown_width, shown_height = self.shown_size(width, height)
        top = shown_height - box.top - box.height if self.mirrors_rows else box.top
        left = shown_width - box.left - box.width if self.mirrors_columns else box.left
        if self.is_transposed:
            return Box(top=left, left=top, height=box.width, width=box.height)
        return Box(top=top, left=left, height=box.height, width=box.width)

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown, of a picture that is stored with these."""
        return (height, width) if self.is_transposed else (width, height)


def orientation_of(frame: VideoFrame) -> Orientation:
    """How a decoded frame is to be shown; an angle between quarter turns counts as the nearest of them."""
    try:
        matrix = bytes(cast(SideDataContainer, frame.side_data)[Type.DISPLAYMATRIX])
    except KeyError:
        return Orientation()
    # A pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirrors_columns=a < 0, mirrors_rows=d < 0)
    return Orientation(is_transposed=True, mirrors_columns=c < 0, mirrors_rows=b < 0)
