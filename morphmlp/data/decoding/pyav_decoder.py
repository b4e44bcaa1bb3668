"""PyAV, the fast exact way: the default decoder.

One demux pass gives every presentable frame's time. Decoding starts at the last key packet before a wanted frame, never
by a seek, and stops after the last one that the same start serves. In H.264 the unwanted frames on the way that no
other frame refers to are skipped, which leaves the wanted ones bit-identical. (HEVC has no such rule that holds across
its temporal layers, and VP9 no such frames.) Only frames that are handed over are converted to RGB.
"""

from bisect import bisect_right
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from itertools import accumulate

import av
import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from morphmlp.data.decoding.packets import HELD_BYTES, MAX_PIXELS, Packets, open_video
from morphmlp.data.decoding.protocol import DecodedFrames, Frames, VideoInfo, VideoReader
from morphmlp.data.decoding.stand_ins import nearest
from morphmlp.errors import DecodeError


class PyAVDecoder:
    """Decoding with one FFmpeg thread."""

    name = "pyav"

    def __init__(self, *, held_bytes: int = HELD_BYTES) -> None:
        """Make the decoder.

        Args:
            held_bytes: Packets of one file that may be held in memory; a longer file is read again for each read.
        """
        self._held_bytes = held_bytes

    @property
    def version(self) -> str:
        """Version of the PyAV package."""
        return version("av")

    def open(self, path: str) -> VideoReader:
        """Open a file and read its packets."""
        return _PyAVReader(path, held_bytes=self._held_bytes)


@dataclass(kw_only=True)
class _Stretch:
    """Packets to decode in one go, and the times of the frames wanted from them."""

    start: int
    stop: int
    wanted: dict[int, int] = field(default_factory=dict)
    """Display index by time."""


@dataclass(frozen=True, kw_only=True)
class _Picture:
    frame: Frames
    is_damaged: bool


class _PyAVReader:
    """One open file."""

    def __init__(self, path: str, *, held_bytes: int) -> None:
        self._container, stream = open_video(path)  # kept open: the codec context lives in it
        self._context = stream.codec_context
        self._context.thread_type, self._context.thread_count = "NONE", 1
        self._context.options = {"max_pixels": str(MAX_PIXELS)}
        self._reformatter = VideoReformatter()
        self._packets = Packets(path, self._container, stream, held_bytes=held_bytes)
        shown = [pts for pts, is_shown in zip(self._packets.pts, self._packets.is_shown, strict=True) if is_shown]
        if not shown:
            raise DecodeError("has a video stream without frames")
        declared_fps = float(stream.average_rate or stream.guessed_rate or 30)
        timed = {pts for pts in shown if pts is not None}
        # AVI and raw streams carry no presentation times: their frames are counted, at the declared rate.
        self._is_timed = None not in shown
        self._pts = sorted(timed) if self._is_timed else list(range(len(shown)))
        if self._is_timed:
            unit = stream.time_base or Fraction(1)
            up, down = unit.numerator, unit.denominator  # integers: fractions are slow
            pts_s = tuple([pts * up / down for pts in self._pts])
        else:
            pts_s = tuple([index / declared_fps for index in self._pts])
        length_s = pts_s[-1] - pts_s[0]
        self._condition: dict[int, bool] | None = None  # of the whole file, once that was decoded
        self._has_failed = False
        first = self._first_frame()
        self._width, self._height = (first or self._context).width, (first or self._context).height
        self._quarter_turns = round(first.rotation / 90) % 4 if first else 0
        sides = (self._width, self._height)
        self.info = VideoInfo(
            num_frames=len(pts_s),
            fps=(len(pts_s) - 1) / length_s if length_s > 0 else declared_fps,
            pts_s=pts_s,
            width=sides[self._quarter_turns % 2],
            height=sides[1 - self._quarter_turns % 2],
            codec=self._context.codec.canonical_name,
        )

    def read(self, indices: Sequence[int]) -> DecodedFrames:
        """The frames at these display-order indices."""
        wanted = sorted(set(indices))
        if wanted[0] < 0 or wanted[-1] >= self.info.num_frames:
            raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of a video with {self.info.num_frames}")
        in_place = {index: index for index in wanted}
        found = self._in_stretches(wanted) if self._is_timed else None
        if found is None or len(found) < len(wanted):
            # Damage, or a key packet that is none: a decode from the start tells what is really in the file, and gives
            # the same frame whichever others are asked for.
            if self._condition is not None:
                in_place = self._stand_ins(wanted)
            found = self._in_whole(set(in_place.values()))
            if len(found) < len(set(in_place.values())):
                in_place = self._stand_ins(wanted)
                found = self._in_whole(set(in_place.values()))
            if not found:
                raise DecodeError("not one frame could be decoded")
        there = sorted(found)
        pictures = {index: found[nearest(there, other)] for index, other in in_place.items()}
        return DecodedFrames(
            frames=np.stack([pictures[index].frame for index in indices]),
            concealed=sum(index not in found or found[index].is_damaged for index in wanted),
        )

    def scan(self) -> int:
        """Decode every frame, converting none; how many are damaged or don't come out."""
        return self.info.num_frames - sum(not is_damaged for is_damaged in self._damage_by_index().values())

    def _stand_ins(self, wanted: Sequence[int]) -> dict[int, int]:
        """For each wanted index its own where the file gives that frame, else the nearest good one."""
        condition = self._damage_by_index()
        good = sorted(index for index, is_damaged in condition.items() if not is_damaged) or sorted(condition)
        return {index: index if index in condition else nearest(good, index) for index in wanted}

    def _damage_by_index(self) -> dict[int, bool]:
        """Of each frame that comes out whether it is damaged, by display index."""
        if self._condition is None:
            self._in_whole(())
        if not self._condition:
            raise DecodeError("not one frame could be decoded")
        return self._condition

    def _in_stretches(self, wanted: Sequence[int]) -> dict[int, _Picture] | None:
        """Wanted frames by display index, from the key packets before them; None where there is any sign of damage."""
        skips = self._context.name == "h264"
        found: dict[int, _Picture] = {}
        self._has_failed = False
        for stretch in self._stretches(wanted):
            with closing(self._decode(stretch.start, stretch.stop, wanted=stretch.wanted if skips else None)) as frames:
                for frame in frames:
                    if frame.is_corrupt:
                        return None
                    if frame.pts in stretch.wanted:
                        self._convert(frame, stretch.wanted[frame.pts], found)
        return None if self._has_failed else found

    def _stretches(self, wanted: Sequence[int]) -> list[_Stretch]:
        """Which packets to decode: the gap between two stretches holds whole groups that nobody asks for."""
        last_place = {pts: place for place, pts in enumerate(self._packets.pts)}
        keys = sorted((pts, place) for place in self._packets.keys if (pts := self._packets.pts[place]) is not None)
        key_pts = [pts for pts, _ in keys]
        latest_key = list(accumulate((place for _, place in keys), max))
        stretches: list[_Stretch] = []
        for index in wanted:
            pts = self._pts[index]
            before = bisect_right(key_pts, pts)
            start, stop = latest_key[before - 1] if before else 0, last_place[pts] + 1
            if not stretches or start > stretches[-1].stop:
                stretches.append(_Stretch(start=start, stop=stop))
            stretches[-1].stop = max(stretches[-1].stop, stop)
            stretches[-1].wanted[pts] = index
        return stretches

    def _in_whole(self, wanted: Collection[int]) -> dict[int, _Picture]:
        """Wanted frames by display index, out of a decode from the file's start to its end."""
        index_of = {pts: index for index, pts in enumerate(self._pts)}
        found: dict[int, _Picture] = {}
        condition: dict[int, bool] = {}
        for count, frame in enumerate(self._decode(0, len(self._packets))):
            key = frame.pts if self._is_timed else count
            if key in index_of:
                index = index_of[key]
                condition[index] = frame.is_corrupt
                if index in wanted:
                    self._convert(frame, index, found)
        self._condition = condition
        return found

    def _decode(
        self, start: int, stop: int, *, wanted: Collection[int] | None = None
    ) -> Generator[VideoFrame, None, None]:
        """What the packets between two places give; where times are wanted, without frames that those don't need."""
        is_skipping = False
        try:
            for packet in self._packets.between(start, stop):
                if is_skipping != (wanted is not None and packet.pts not in wanted):
                    is_skipping = not is_skipping
                    self._context.skip_frame = "NONREF" if is_skipping else "DEFAULT"
                yield from self._frames(packet)
            yield from self._frames(None)
        finally:
            self._context.skip_frame = "DEFAULT"
            self._context.flush_buffers()

    def _frames(self, packet: "Packet[VideoStream] | Packet[Stream] | None") -> Iterable[VideoFrame]:
        """What the codec gives for a packet (None: what is left); nothing where the packet is damaged."""
        try:
            return self._context.decode(packet)
        except av.error.FFmpegError:
            self._has_failed = True
            return []

    def _first_frame(self) -> VideoFrame | None:
        """Some frame, for what only frames tell: their size as decoded, and their rotation."""
        if self._packets.first_key is not None:
            # A copy has lost the mark of a hidden packet, which would keep its frame back.
            bare = Packet(bytes(self._packets.first_key))
            frames = [*self._frames(bare), *self._frames(None)]
            self._context.flush_buffers()
            if frames:
                return frames[0]
        with closing(self._decode(0, len(self._packets))) as from_start:
            return next(from_start, None)

    def _convert(self, frame: VideoFrame, index: int, found: dict[int, _Picture]) -> None:
        """Keep a frame as RGB, turned as it is shown; a frame of another size is scaled to the first one's."""
        try:
            rgb = self._reformatter.reformat(
                frame, width=self._width, height=self._height, format="rgb24", threads=1
            ).to_ndarray()
        except av.error.FFmpegError:
            return  # a damaged header can claim a form that can't be converted
        found[index] = _Picture(frame=np.rot90(rgb, self._quarter_turns), is_damaged=frame.is_corrupt)
