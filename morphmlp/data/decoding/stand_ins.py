"""Which good frame stands in for one that a damaged file doesn't give. It knows indices, not how frames are decoded."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from morphmlp.data.decoding.protocol import DecodedFrames, Frames, beat
from morphmlp.errors import DecodeError


def nearest(good: Sequence[int], index: int) -> int:
    """The nearest of ascending indices; of two equally near ones the earlier."""
    place = bisect_left(good, index)
    around = good[max(place - 1, 0) : place + 1]
    return min(around, key=lambda other: abs(other - index))


def read_one_by_one(
    indices: Sequence[int], frame_at: Callable[[int], Frames | None], *, num_frames: int
) -> DecodedFrames:
    """Frames of a damaged file from a library that gives all wanted frames or none.

    Args:
        indices: Wanted frames.
        frame_at: A frame, `[h w c]`, or None where it can't be decoded.
        num_frames: Frames that the file should have.

    Raises:
        DecodeError: Not one frame could be decoded.
    """
    known: dict[int, Frames | None] = {}

    def known_frame(index: int) -> Frames | None:
        if index not in known:
            known[index] = frame_at(index)
        return known[index]

    def stand_in(index: int) -> Frames:
        for other in sorted(range(num_frames), key=lambda other: abs(other - index)):
            frame = known_frame(other)
            if frame is not None:
                return frame
        raise DecodeError("not one frame could be decoded")

    frames = np.stack([stand_in(index) for index in indices])
    return DecodedFrames(frames=frames, concealed=sum(known[index] is None for index in set(indices)))


def count_missing(frame_at: Callable[[int], Frames | None], *, num_frames: int) -> int:
    """How many frames of a file can't be decoded, taken one after the other.

    Args:
        frame_at: A frame, `[h w c]`, or None where it can't be decoded.
        num_frames: Frames that the file should have.

    Raises:
        DecodeError: Not one frame could be decoded.
    """
    missing = 0
    for index in range(num_frames):
        missing += frame_at(index) is None
        beat()
    if missing == num_frames:
        raise DecodeError("not one frame could be decoded")
    return missing
