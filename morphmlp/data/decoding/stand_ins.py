"""Which good frame stands in for one that a damaged file doesn't give; and readers for libraries that don't say so."""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from morphmlp.data.decoding.protocol import Box, DecodedFrames, Frames, VideoInfo, beat, cut
from morphmlp.errors import DecodeError


def nearest(good: Sequence[int], index: int) -> int:
    """The nearest of ascending indices; of two equally near ones the earlier."""
    place = bisect_left(good, index)
    around = good[max(place - 1, 0) : place + 1]
    return min(around, key=lambda other: abs(other - index))


class AllOrNoneReader(ABC):
    """An open video in a library that gives all wanted frames or none."""

    info: VideoInfo
    failures: tuple[type[Exception], ...]
    """What the library raises where it gives none."""
    tries = 1
    """For a wanted frame by itself. More where a thread of the library decodes ahead: its failure at a later frame may
    be raised for a good one."""

    @abstractmethod
    def open(self) -> None:
        """Open the file (again: after a failure a library gives other frames than before)."""

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> Frames:
        """The frames at these indices, `[t h w c]`."""

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The frames at these display-order indices, or what a box cuts out of them.

        In a damaged file the nearest good ones stand in.

        Raises:
            DecodeError: Not one frame could be decoded.
        """
        try:
            return DecodedFrames(frames=cut(self.batch(indices), box), concealed=0)
        except self.failures:
            self.open()
        known = {index: self._frame_at(index, self.tries) for index in dict.fromkeys(indices)}

        def stand_in(index: int) -> Frames:
            for other in sorted(range(self.info.num_frames), key=lambda other: abs(other - index)):
                if other not in known:
                    known[other] = self._frame_at(other)
                if (frame := known[other]) is not None:
                    return frame
            raise DecodeError("not one frame could be decoded")

        frames = np.stack([stand_in(index) for index in indices])
        return DecodedFrames(frames=cut(frames, box), concealed=sum(known[index] is None for index in set(indices)))

    def scan(self) -> int:
        """Take every frame by itself; how many the library doesn't give.

        Raises:
            DecodeError: It gives none.
        """
        missing = 0
        for index in range(self.info.num_frames):
            missing += self._frame_at(index) is None
        if missing == self.info.num_frames:
            raise DecodeError("not one frame could be decoded")
        return missing

    def _frame_at(self, index: int, tries: int = 1) -> Frames | None:
        for _ in range(tries):
            beat()
            try:
                frame: Frames = self.batch([index])[0]
            except self.failures:
                self.open()
            else:
                return frame
        return None
