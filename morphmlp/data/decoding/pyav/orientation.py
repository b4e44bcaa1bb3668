"""How frames are to be turned or mirrored to be shown: a file's display matrix, as phones and cameras write it.

Knows arrays of pixels and nothing of decoding.
"""

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame


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
