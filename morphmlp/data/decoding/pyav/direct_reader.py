"""Frames of a file that proves their order: decoding starts at the key packets before the wanted ones.

In a damaged file a decode from its start shows what is really there, and gives the same frame whichever others are
asked for.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate

from av.video.frame import VideoFrame

from morphmlp.data.decoding.protocol import Box, DecodedFrames, Frames, stacked
from morphmlp.data.decoding.pyav.stream_decoder import StreamDecoder
from morphmlp.data.decoding.stand_ins import nearest
from morphmlp.errors import DecodeError

_Picture = tuple[Frames, bool]
"""A frame, and whether it is damaged."""


@dataclass(kw_only=True)
class _Stretch:
    """Packets to decode in one go, and the frames wanted from them."""

    start: int
    stop: int
    wanted: dict[int, int] = field(default_factory=dict)
    """Display index by place."""


class DirectReader:
    """One open file."""

    def __init__(self, stream: StreamDecoder, order: Sequence[int]) -> None:
        """Decode nothing yet; `order` has the places of the packets in display order."""
        self._stream = stream
        packets = stream.packets
        self._rank = {place: rank for rank, place in enumerate(order)}
        self._shown = [place for place in order if packets.is_shown[place]]
        self._index = {place: index for index, place in enumerate(self._shown)}
        keys = sorted((self._rank[place], place) for place in packets.keys)
        self._key_ranks = [rank for rank, _ in keys]
        # In an open group frames that follow the key packet in the file are shown before it, and need the group in
        # front. So a frame's decode starts at the last, in the file, of the keys that are shown up to it.
        self._latest_key = list(accumulate((place for _, place in keys), max))
        self._condition: dict[int, bool] | None = None  # of the whole file, once that was decoded
        self.info = stream.info(
            [packets.pts[place] for place in self._shown], [packets.dts[place] for place in sorted(self._shown)]
        )

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The frames at these display-order indices, or what a box cuts out of them."""
        wanted = sorted(set(indices))
        if wanted[0] < 0 or wanted[-1] >= self.info.num_frames:
            raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of a video with {self.info.num_frames}")
        in_place = {index: index for index in wanted}
        # The short way first. At any sign of damage the whole file is decoded instead, so that which picture a frame is
        # never depends on the frames that were asked for with it.
        found = self._in_stretches(wanted, box)
        if found is None or len(found) < len(wanted):
            if self._condition is not None:
                in_place = self._stand_ins(wanted)
            found = self._in_whole(set(in_place.values()), box)
            if len(found) < len(set(in_place.values())):
                in_place = self._stand_ins(wanted)
                found = self._in_whole(set(in_place.values()), box)
            if not found:
                raise DecodeError("not one frame could be decoded")
        there = sorted(found)
        pictures = {index: found[nearest(there, other)] for index, other in in_place.items()}
        return DecodedFrames(
            frames=stacked([pictures[index][0] for index in indices]),
            concealed=sum(index not in found or found[index][1] for index in wanted),
        )

    def scan(self) -> int:
        """Decode every frame, converting none; how many are damaged or don't come out."""
        return self.info.num_frames - sum(not is_damaged for is_damaged in self._damage_by_index().values())

    def in_order(self) -> Iterator[tuple[int, VideoFrame]]:
        """Every frame that a decode from the file's start to its end gives, with its display index.

        A scan after it costs nothing.
        """
        condition: dict[int, bool] = {}
        for frame in self._stream.decode():
            index = None if frame.pts is None else self._index.get(frame.pts)
            if index is not None:
                condition[index] = frame.is_corrupt
                yield index, frame
        self._condition = condition

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

    def _in_stretches(self, wanted: Sequence[int], box: Box | None) -> dict[int, _Picture] | None:
        """Wanted frames by display index, from the key packets before them; None where there is any sign of damage."""
        pictures = self._stream.converter.pictures(box, count=len(wanted))
        failures = self._stream.failures
        for stretch in self._stretches(wanted):
            last = -1
            with closing(self._stream.decode(stretch.start, stretch.stop, wanted=stretch.wanted)) as frames:
                for frame in frames:
                    place = -1 if frame.pts is None else frame.pts
                    rank = self._rank.get(place, -1)
                    if frame.is_corrupt or rank < last:  # a decoder gives frames in the order in which they are shown
                        return None
                    last = rank
                    if place in stretch.wanted:
                        pictures.add(stretch.wanted[place], frame)
        if self._stream.failures > failures:
            return None
        return {index: (picture, False) for index, picture in pictures.all().items()}

    def _stretches(self, wanted: Sequence[int]) -> list[_Stretch]:
        """Which packets to decode: the gap between two stretches holds whole groups that nobody asks for."""
        stretches: list[_Stretch] = []
        for index in wanted:
            place = self._shown[index]
            before = bisect_right(self._key_ranks, self._rank[place])
            start, stop = self._latest_key[before - 1] if before else 0, place + 1
            if not stretches or start > stretches[-1].stop:
                stretches.append(_Stretch(start=start, stop=stop))
            stretches[-1].stop = max(stretches[-1].stop, stop)
            stretches[-1].wanted[place] = index
        return stretches

    def _in_whole(self, wanted: Collection[int], box: Box | None = None) -> dict[int, _Picture]:
        """Wanted frames by display index, out of a decode from the file's start to its end."""
        pictures = self._stream.converter.pictures(box, count=len(wanted))
        condition: dict[int, bool] = {}
        for index, frame in self.in_order():
            condition[index] = frame.is_corrupt
            if index in wanted:
                pictures.add(index, frame)
        came = list(condition)
        if len(came) == len(self._shown) and not any(condition.values()) and came != sorted(came):
            # A healthy file whose decoder shows another order than its times: the decoder is right.
            self._shown = [self._shown[index] for index in came]
            self._index = {place: index for index, place in enumerate(self._shown)}
            return self._in_whole(wanted, box)
        return {index: (picture, condition[index]) for index, picture in pictures.all().items()}
