"""The packets of one open file turned into frames.

It must not know which frames are wanted, nor what becomes of damage.
"""

from collections.abc import Collection, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

import av
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from morphmlp.data.decoding.protocol import VideoInfo, beat
from morphmlp.data.decoding.pyav.display_order import frame_times, proven_order
from morphmlp.data.decoding.pyav.orientation import Orientation, orientation_of
from morphmlp.data.decoding.pyav.packets import MAX_PIXELS, Packets, open_video
from morphmlp.data.decoding.pyav.pictures import Converter
from morphmlp.errors import DecodeError

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
        self.held_bytes = held_bytes
        self.packets = Packets(path, self._container, self._stream, held_bytes=held_bytes)
        if not any(self.packets.is_shown):
            raise DecodeError("has a video stream without frames")
        self.failures = 0
        """Packets that the codec has refused so far."""
        self._begun: _Begun | None = None
        # Only frames know their size as decoded, and how they are to be shown.
        first = self._first_frame()
        decoded = first or self._context
        self.converter = Converter(
            width=decoded.width,
            height=decoded.height,
            orientation=orientation_of(first) if first else Orientation(),
        )
        """Makes pictures of the frames."""
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
        width, height = self.converter.shown_size
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


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A decode from the file's start that waits to be continued."""

    packets: int
    """That the codec has been given."""
    frames: list[VideoFrame]
    """That have come of them."""
