"""The packets of one open file turned into frames, and frames into RGB as they are shown.

It must not know which frames are wanted, nor what becomes of damage.
"""

import struct
from collections.abc import Collection, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer, Type
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from morphmlp.data.decoding.protocol import Box, Frames, VideoInfo, beat
from morphmlp.data.decoding.pyav.display_order import frame_times, proven_order
from morphmlp.data.decoding.pyav.packets import MAX_PIXELS, Packets, open_video
from morphmlp.errors import DecodeError

_STEP = 16
"""Columns that FFmpeg's conversion takes at a time, or a multiple of them; rows and columns that it takes at least."""
_LARGEST_FILLER = 16
"""Bytes of a packet up to which nothing is lost where a codec refuses it."""


class StreamDecoder:
    """One open file and its codec, in one thread."""

    def __init__(self, path: str, *, held_bytes: int) -> None:
        """Open a file and read its packets; these, and as much again in frames, may take `held_bytes` of memory.

        Raises:
            DecodeError: It can't be used, with the reason.
        """
        self._container, self._stream = open_video(path)  # kept open: the codec context lives in it
        self._context = self._stream.codec_context
        self._context.thread_type, self._context.thread_count = "NONE", 1
        self._context.options = {"max_pixels": str(MAX_PIXELS)}
        self._reformatter = VideoReformatter()
        self.held_bytes = held_bytes
        self.packets = Packets(path, self._container, self._stream, held_bytes=held_bytes)
        if not any(self.packets.is_shown):
            raise DecodeError("has a video stream without frames")
        self.failures = 0
        """Packets that the codec has refused so far."""
        self._begun: _Begun | None = None
        # Only frames know their size as decoded, and how they are to be shown.
        first = self._first_frame()
        self._width, self._height = (first or self._context).width, (first or self._context).height
        self.orientation = orientation_of(first) if first else Orientation()
        """How decoded pictures are to be turned."""
        is_interlaced = first is not None and first.interlaced_frame
        self.order = proven_order(self._container, self._context, self.packets, is_interlaced=is_interlaced)
        """Places of all packets in display order; None where only a decode shows it."""

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._context.codec.canonical_name

    @property
    def time_base(self) -> Fraction:
        """The unit in which the file counts time, seconds."""
        return self._stream.time_base or Fraction(1)

    def info(self, *stamps: list[int | None]) -> VideoInfo:
        """What the file holds, in the end: one frame for each time, in display order, as `frame_times` takes them."""
        declared_fps = float(self._stream.average_rate or self._stream.guessed_rate or 30)
        pts_s = frame_times(
            *stamps,
            per_s=float(1 / self.time_base),
            declared_fps=declared_fps,
            can_be_joined=self._container.format.name in ("mpegts", "mpeg"),
        )
        length_s = pts_s[-1] - pts_s[0]
        width, height = self.orientation.shown_size(self._width, self._height)
        return VideoInfo(
            num_frames=len(pts_s),
            fps=(len(pts_s) - 1) / length_s if length_s > 0 else declared_fps,
            pts_s=tuple(pts_s),
            width=width,
            height=height,
            codec=self.codec,
        )

    def decode(
        self, start: int = 0, stop: int | None = None, *, wanted: Collection[int] | None = None
    ) -> Generator[VideoFrame, None, None]:
        """What the packets between two places give, in the codec's order; a frame's `pts` is its packet's place.

        With `wanted` places, frames that those don't need are left out; only in H.264.
        """
        needed = wanted if self.codec == "h264" else None
        is_skipping = False
        begun, self._begun = self._begun, None
        try:
            if begun is not None and start == 0:
                yield from begun.frames
                start = begun.packets
            elif begun is not None:
                self._context.flush_buffers()
            for packet in self.packets.between(start, len(self.packets) if stop is None else stop):
                # Frames that no other one refers to may be left out without a change to the rest.
                if needed is not None and is_skipping != (packet.pts not in needed):
                    is_skipping = not is_skipping
                    self._context.skip_frame = "NONREF" if is_skipping else "DEFAULT"
                yield from self._frames(packet)
            yield from self._frames(None)
        finally:
            self._context.skip_frame = "DEFAULT"
            self._context.flush_buffers()

    def rgb(self, frame: VideoFrame, box: Box | None = None) -> Frames | None:
        """A frame as it is shown, or what a box cuts out of it; one of another size is scaled to the first one's.

        None where it can't be converted: a damaged header can claim any form.
        """
        try:
            if box is None:
                return self.orientation.shown(self.stored_rgb(frame))
            stored = self.orientation.stored_box(box, width=self._width, height=self._height)
            return self.orientation.shown(self._rgb_in_box(frame, stored))
        except av.error.FFmpegError:
            return None

    def stored_rgb(self, frame: VideoFrame) -> Frames:
        """A frame as RGB before it is turned.

        Raises:
            FFmpegError: It can't be converted.
        """
        rgb = self._reformatter.reformat(frame, width=self._width, height=self._height, format="rgb24", threads=1)
        return _colours(rgb)

    def _rgb_in_box(self, frame: VideoFrame, box: Box) -> Frames:
        """What a box cuts out of a frame before it is turned, as RGB: converted alone where that gives the same."""
        if (frame.width, frame.height) == (self._width, self._height) and can_be_cut(frame):
            around = widened(box, width=self._width, height=self._height)
            rgb = self._reformatter.reformat(planes_in_box(frame, around), format="rgb24", threads=1)
            picture, box = _colours(rgb), box.inside(around)
        else:
            picture = self.stored_rgb(frame)
        return picture[box.top : box.top + box.height, box.left : box.left + box.width]

    def _frames(self, packet: "Packet[VideoStream] | Packet[Stream] | None") -> Iterable[VideoFrame]:
        """What the codec gives for a packet (None: what is left); nothing where the packet is damaged."""
        beat()
        try:
            return self._context.decode(packet)
        except av.error.FFmpegError:
            # Files hold chunks of a byte or a few that were never a picture.
            self.failures += packet is None or packet.size > _LARGEST_FILLER
            return []

    def _begin(self) -> list[VideoFrame]:
        """Decode from the file's start until frames come, and let the next decode from there go on behind them.

        None of them, and nothing begun, where the file doesn't begin as it should.
        """
        packets, frames, count, failures = self.packets, list[VideoFrame](), 0, self.failures
        if packets.are_held and packets.keys[:1] == [0] and packets.is_shown[0]:
            for packet in packets.between(0, self._context.reorder_depth + 1):
                frames, count = [*self._frames(packet)], count + 1
                if frames or self.failures > failures:
                    break
        if frames and self.failures == failures:
            self._begun = _Begun(packets=count, frames=frames)
            return frames
        if count:
            self._context.flush_buffers()
        self.failures = failures  # the next decode meets them again
        return []

    def _first_frame(self) -> VideoFrame | None:
        """Some frame, without decoding much; None where there is none at all."""
        frames = self._begin()
        if frames:
            return frames[0]
        if self.packets.first_key is not None:
            # A copy has lost the mark of a hidden packet, which would keep its frame back.
            bare = Packet(bytes(self.packets.first_key))
            frames = [*self._frames(bare), *self._frames(None)]
            self._context.flush_buffers()
            if frames:
                return frames[0]
        with closing(self.decode()) as from_start:
            return next(from_start, None)


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


def planes_in_box(frame: VideoFrame, box: Box) -> VideoFrame:
    """A frame of what an even box cuts out of a frame that can be cut; rows below it are there, but hold nothing."""
    rows = -(-box.height // 4) * 4  # PyAV takes planes of that many
    planes = np.empty((rows * 3 // 2, box.width), dtype=np.uint8)
    flat, start = planes.reshape(-1), 0
    for number, plane in enumerate(frame.planes):
        half = 1 if number == 0 else 2
        top, left, height, width = (side // half for side in (box.top, box.left, box.height, box.width))
        part = flat[start : start + height * width].reshape(height, width)
        part[:] = _rows(plane)[top : top + height, left : left + width]
        start += rows // half * width
    cut = VideoFrame.from_numpy_buffer(planes, format=frame.format.name)
    cut.colorspace, cut.color_range = frame.colorspace, frame.color_range
    return cut


def _colours(rgb: VideoFrame) -> Frames:
    """The pixels `[h w c]` of an RGB frame, on its memory."""
    return _rows(rgb.planes[0])[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)


def _rows(plane: VideoPlane) -> Frames:
    """The bytes of a plane, what lies behind its rows among them, on the frame's memory."""
    rows: Frames = np.frombuffer(cast(bytes, plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A decode from the file's start that waits to be continued."""

    packets: int
    """That the codec has been given."""
    frames: list[VideoFrame]
    """That have come of them."""


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
