"""What is to be known of a video before it's used: damage, wrong frames, an end that comes too early.

A sample of the frames, read as training and testing read them, is held against a plain decode from the file's start to
its end: nothing is skipped there, no time is looked at, and frames come in the codec's order.

A download or a copy that was cut short still plays to the cut: its packets end before what the file says of itself. A
format that states no length (transport and program streams, live recordings) can be cut anywhere without a trace.
"""

import random
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from morphmlp.data.decoding.protocol import Frames, Inspection, VideoReader, beat
from morphmlp.data.decoding.pyav.orientation import orientation_of
from morphmlp.data.decoding.pyav.packets import MAX_PIXELS, open_video, packets_with_data

_STATES_LENGTH = {"mov", "matroska", "flv", "asf"}
"""Names of formats whose head has the length of all streams; of others FFmpeg estimates it from what is there."""
_TOLERATED_SHARE, _TOLERATED_S = 0.05, 0.15
"""Lengths are rounded, a last frame may be held, and sound and pictures end at different times."""
SAMPLED = 4
"""Frames of a video that are compared: all as a set, and one of them alone."""
_SAME_PICTURE = 8.0
"""Mean difference of RGB levels up to which two libraries' frames are the same picture: each rounds in its own way."""


@dataclass(frozen=True, kw_only=True)
class _PlainDecode:
    num_frames: int
    is_healthy: bool
    pictures: Mapping[int, Frames]
    """The wanted ones by their number, as they are shown."""


def inspect_stored_frames(reader: VideoReader) -> Inspection:
    """Look at a video whose frames are stored one by one: there is only one way to read it."""
    return Inspection(damaged=reader.scan(), compared=0, wrong=0, cut_short="")


def inspect_file(reader: VideoReader, path: str, *, is_same_library: bool) -> Inspection:
    """Look at a video file.

    `is_same_library` says that the reader, just opened, is PyAV's, as the plain decode is: pixels are then equal.

    Raises:
        DecodeError: Not one frame could be decoded, or the decoder refuses those that were asked for.
    """
    num_frames = reader.info.num_frames
    sample = sorted(random.Random(num_frames).sample(range(num_frames), min(SAMPLED, num_frames)))
    plain = _plain_decode(path, sample)
    is_whole = plain.is_healthy and plain.num_frames == num_frames
    damaged = 0 if is_whole else reader.scan()
    is_compared, wrong = not damaged, set[int]()
    if is_compared:
        for indices in (sample, sample[len(sample) // 2 :][:1]):
            frames = reader.read(indices).frames
            wrong |= {
                index
                for index, frame in zip(indices, frames, strict=True)
                if not _is_same(frame, plain.pictures.get(index), exactly=is_same_library)
            }
    return Inspection(
        damaged=damaged,
        compared=len(sample) if is_compared else 0,
        wrong=len(wrong) + abs(num_frames - plain.num_frames) if is_compared else 0,
        cut_short=cut_short(path),
    )


def _is_same(frame: Frames, plain: Frames | None, *, exactly: bool) -> bool:
    if plain is None or frame.shape != plain.shape:
        return False
    if exactly:
        return bool((frame == plain).all())
    return bool(np.abs(frame.astype(np.int16) - plain).mean() <= _SAME_PICTURE)


def _plain_decode(path: str, wanted: Collection[int]) -> _PlainDecode:
    container, stream = open_video(path)
    context = stream.codec_context
    context.thread_type, context.thread_count = "NONE", 1
    context.options = {"max_pixels": str(MAX_PIXELS)}
    reformatter = VideoReformatter()
    pictures: dict[int, Frames] = {}
    count, is_healthy = 0, True
    size: tuple[int, int] | None = None
    with container:
        for packet in chain(packets_with_data(container, stream), [None]):
            beat()
            try:
                frames = context.decode(packet)
            except av.error.FFmpegError:
                is_healthy = False
                continue
            for frame in frames:
                size = size or (frame.width, frame.height)
                is_healthy &= not frame.is_corrupt
                if count in wanted:
                    rgb = reformatter.reformat(frame, width=size[0], height=size[1], format="rgb24", threads=1)
                    pictures[count] = orientation_of(frame).shown(cast(Frames, rgb.to_ndarray()))
                count += 1
    return _PlainDecode(num_frames=count, is_healthy=is_healthy, pictures=pictures)


def is_short(reached: float, stated: float) -> bool:
    """Whether a length is less than stated, seconds, beyond what rounding explains."""
    return stated - reached > max(_TOLERATED_SHARE * stated, _TOLERATED_S)


def cut_short(path: str) -> str:
    """In words where and how a file ends too early; empty where nothing shows that it does.

    Raises:
        DecodeError: It can't be opened.
    """
    # Another opening than a decoder's: here all streams are read, since each may be the longest.
    container, stream = open_video(path)
    with container:
        chosen = stream.index
    with av.open(f"file:{path}", metadata_errors="ignore") as container:
        video = container.streams[chosen]
        assert isinstance(video, VideoStream)
        ends, is_incomplete = _ends(container)
        # Some count their length from 0, others from the first frame.
        start = (container.start_time or 0) / av.time_base
        at = max(ends.values(), default=0.0) - min(start, 0.0)
        form = container.format.name.partition(",")[0]
        if form in _STATES_LENGTH and container.duration is not None:
            stated = container.duration / av.time_base
            if is_short(at, stated):
                return f"ends at {at:.1f} s of the {stated:.1f} s that its container states"
        if form == "avi" and video.frames and video.average_rate:
            stated, at = float(video.frames / video.average_rate), ends.get(chosen, 0.0)
            if is_short(at, stated):
                return f"ends at {at:.1f} s of the {stated:.1f} s that its container states"
        return f"ends in the middle of its data, at {at - max(start, 0.0):.1f} s" if is_incomplete else ""


def _ends(container: InputContainer) -> tuple[dict[int, float], bool]:
    """When each stream ends, seconds, and whether the file's last packet is incomplete."""
    ends: dict[int, float] = {}
    is_incomplete = False
    with suppress(av.error.FFmpegError):
        for packet in container.demux():
            if not packet.size:
                continue
            beat()
            is_incomplete = packet.is_corrupt
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and packet.time_base is not None:
                end = (time + (packet.duration or 0)) * float(packet.time_base)
                ends[packet.stream_index] = max(ends.get(packet.stream_index, end), end)
    return ends, is_incomplete
