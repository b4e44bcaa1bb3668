"""Decoded frames as RGB pictures, as they are shown, whole or what a box cuts out of them.

Pixels are the same whichever way is taken: frames whose pixels don't depend on their neighbours are cut in their planes
first, and converted several at a time.
"""

from typing import NamedTuple, cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from morphmlp.data.decoding.protocol import Box, Frames
from morphmlp.data.decoding.pyav.orientation import Orientation

_STEP = 16
"""Columns that FFmpeg's conversion takes at a time, or a multiple of them; rows and columns that it takes at least."""
_MOST_OF_A_FRAME = 0.75
"""A box of a larger part isn't worth a copy of its planes."""
_TOGETHER, _TOGETHER_BYTES = 16, 2**22
"""Cut frames, and bytes of their planes, that are converted in one call, whose own cost is that of some 10,000 pixels.
Of large frames fewer: they would leave the cache, and memory is limited."""


class Converter:
    """Converts frames; one of another size than the first is scaled to that."""

    def __init__(self, *, width: int, height: int, orientation: Orientation) -> None:
        """Take the size of the first frame as it is stored, and how it's to be turned."""
        self._width, self._height, self.orientation = width, height, orientation
        self._reformatter = VideoReformatter()

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of pictures."""
        return self.orientation.shown_size(self._width, self._height)

    def pictures(self, box: Box | None, *, count: int) -> "Pictures":
        """Room for the pictures of so many frames, or of what a box cuts out of each."""
        return Pictures(self, None if box is None else self._stored_box(box), count=count)

    def rgb(self, frame: VideoFrame) -> Frames:
        """A whole frame as RGB before it is turned.

        Raises:
            FFmpegError: It can't be converted.
        """
        return _colours(
            self._reformatter.reformat(frame, width=self._width, height=self._height, format="rgb24", threads=1)
        )

    def planes_rgb(self, frame: VideoFrame) -> Frames:
        """A frame that was made of planes as RGB."""
        return _colours(self._reformatter.reformat(frame, format="rgb24", threads=1))

    def is_of_its_size(self, frame: VideoFrame) -> bool:
        """Whether a frame isn't scaled."""
        return (frame.width, frame.height) == (self._width, self._height)

    def around(self, box: Box) -> Box | None:
        """What is cut out of a frame's planes for a box; None where most of the frame would be."""
        wide = widened(box, width=self._width, height=self._height)
        is_most = wide.width * wide.height > _MOST_OF_A_FRAME * self._width * self._height
        return None if is_most else wide

    def _stored_box(self, box: Box) -> Box:
        return self.orientation.stored_box(box, width=self._width, height=self._height)


class _Coding(NamedTuple):
    """What a frame's colours are converted by."""

    form: str
    colorspace: int
    color_range: int


class Pictures:
    """Pictures by the number of their frame."""

    def __init__(self, converter: Converter, box: Box | None, *, count: int) -> None:
        """Make room; the box is one of frames as they are stored."""
        self._converter, self._box = converter, box
        self._around = None if box is None else converter.around(box)
        around = self._around or Box(top=0, left=0, height=0, width=0)
        self._room = min(count, _TOGETHER, max(_TOGETHER_BYTES // max(around.height * around.width * 3 // 2, 1), 1))
        self._waiting: list[int] = []
        self._coding: _Coding | None = None
        self._memory, self._planes = _memory_for(self._room, around)
        self._made: dict[int, Frames] = {}

    def add(self, number: int, frame: VideoFrame) -> None:
        """Take a frame; one that can't be converted is left out: a damaged header can claim any form."""
        if self._around is None or not (self._converter.is_of_its_size(frame) and can_be_cut(frame)):
            try:
                self._keep(number, self._converter.rgb(frame), self._box)
            except av.error.FFmpegError:
                return
            return
        coding = _Coding(frame.format.name, frame.colorspace, frame.color_range)
        if coding != self._coding or len(self._waiting) == self._room:
            self._convert()
            self._coding = coding
        copy_planes(frame, self._around, [planes[len(self._waiting)] for planes in self._planes])
        self._waiting.append(number)

    def all(self) -> dict[int, Frames]:
        """Those of all frames that could be converted."""
        self._convert()
        return self._made

    def _convert(self) -> None:
        """Make pictures of the frames that wait: they stand on top of each other, as one tall frame."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self._around is None or self._box is None or self._coding is None:
            return
        tall = VideoFrame.from_numpy_buffer(self._memory, format=self._coding.form)
        tall.colorspace, tall.color_range = self._coding.colorspace, self._coding.color_range
        try:
            pixels = self._converter.planes_rgb(tall)
        except av.error.FFmpegError:
            return
        height, inside = self._around.height, self._box.inside(self._around)
        for place, number in enumerate(waiting):
            self._keep(number, pixels[place * height : (place + 1) * height], inside)

    def _keep(self, number: int, picture: Frames, box: Box | None) -> None:
        if box is not None:
            picture = picture[box.top : box.top + box.height, box.left : box.left + box.width]
        self._made[number] = self._converter.orientation.shown(picture)


def can_be_cut(frame: VideoFrame) -> bool:
    """Whether each pixel's colour comes from its own place alone, so that a part of a frame can be converted by itself.

    So it does in planes of 8 bits with a colour for every four pixels, as nearly all videos have. Of other forms, of
    odd sizes and of fields FFmpeg's conversion mixes neighbours.
    """
    return (
        frame.format.name in ("yuv420p", "yuvj420p")
        and not frame.interlaced_frame
        and all(plane.line_size > 0 for plane in frame.planes)
        and not frame.width % 2
        and not frame.height % 2
    )


def widened(box: Box, *, width: int, height: int) -> Box:
    """A box that holds another one, begins and ends at whole steps of the conversion, and leaves the frame nowhere.

    It has as many rows and columns as the conversion takes at least.
    """
    top = min(box.top, max(height - _STEP, 0)) // 2 * 2
    left = min(box.left, max(width - _STEP, 0)) // _STEP * _STEP
    bottom = min(max(-(-(box.top + box.height) // 2) * 2, top + _STEP), height)
    right = min(-(-(box.left + box.width) // _STEP) * _STEP, width)
    return Box(top=top, left=left, height=bottom - top, width=right - left)


def copy_planes(frame: VideoFrame, box: Box, targets: list[Frames]) -> None:
    """Copy what an even box cuts out of the planes of a frame that can be cut."""
    for number, (plane, target) in enumerate(zip(frame.planes, targets, strict=True)):
        half = 1 if number == 0 else 2
        height, width = target.shape
        top, left = box.top // half, box.left // half
        target[:] = _rows(plane)[top : top + height, left : left + width]


def _memory_for(count: int, box: Box) -> tuple[Frames, tuple[Frames, ...]]:
    """Memory of a frame of so many boxes on top of each other, and its three planes in it, `[box, row, column]`."""
    rows = -(-count * box.height // 4) * 4  # PyAV takes planes of that many
    memory = np.empty((rows * 3 // 2, box.width), dtype=np.uint8)
    flat, start, planes = memory.reshape(-1), 0, []
    for half in (1, 2, 2):
        height, width = box.height // half, box.width // half
        planes.append(flat[start : start + count * height * width].reshape(count, height, width))
        start += rows // half * width
    return memory, tuple(planes)


def _colours(rgb: VideoFrame) -> Frames:
    """The pixels `[h w c]` of an RGB frame, on its memory."""
    return _rows(rgb.planes[0])[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)


def _rows(plane: VideoPlane) -> Frames:
    """The bytes of a plane, what lies behind its rows among them, on the frame's memory."""
    rows: Frames = np.frombuffer(cast(bytes, plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return rows
