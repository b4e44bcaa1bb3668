"""Small video files of the kinds at which decoders go wrong, written on the spot, and a count of wrong frames.

Every frame of a file is another picture, so that a wrong frame can be told. The truth is a plain decode from the
file's start to its end. It must not know Ray, and it needs no network.
"""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from morphmlp.benchmarks.plain_decode import plain_frames
from morphmlp.data.decoding.protocol import Decoder, Frames, VideoReader
from morphmlp.errors import DecodeError

NUM_FRAMES, HEIGHT, WIDTH = 48, 64, 96
SAME_PICTURE = 8.0
"""Mean absolute difference of RGB levels up to which two pictures are the same one: libraries round colours in other
ways and turn frames before or after, which costs up to 4; two neighbours in these files are 20 and more apart."""
HIDDEN_FRAMES = 18
"""Frames at the start of `edit list` that it hides."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How a file is written."""

    file: str
    codec: str
    """FFmpeg's name of the encoder."""
    options: Mapping[str, str] = field(default_factory=dict)
    rotation: int | None = None
    """Degrees, counter-clockwise, that the container asks a player to turn the frames by."""
    times_ms: Sequence[int] | None = None
    """When each frame is shown; by default 30 a second."""


UNEVEN_TIMES_MS = tuple(33 * number + 150 * (number // 7) + 11 * (number % 3) for number in range(NUM_FRAMES))
"""Times of `variable frame rate`: gaps of 11 to 194, as phones write them."""
_SHORT_GROUPS = {"g": "12", "bf": "3"}
CODINGS = {
    "short groups": Coding(file="short_groups.mp4", codec="libx264", options=_SHORT_GROUPS),
    "long group with B-frames": Coding(file="long_group.mp4", codec="libx264", options={"g": "250", "bf": "3"}),
    "open groups with 8 B-frames": Coding(
        file="open_groups.mp4",
        codec="libx264",
        options={"x264-params": "open-gop=1:keyint=12:bframes=8:b-adapt=0:scenecut=0"},
    ),
    "intra refresh": Coding(
        file="intra_refresh.mp4", codec="libx264", options={"x264-params": "intra-refresh=1:keyint=12:bframes=3"}
    ),
    "variable frame rate": Coding(
        file="variable_rate.mp4", codec="libx264", options=_SHORT_GROUPS, times_ms=UNEVEN_TIMES_MS
    ),
    "rotated": Coding(file="rotated.mp4", codec="libx264", options=_SHORT_GROUPS, rotation=90),
    "HEVC": Coding(
        file="hevc.mp4",
        codec="libx265",
        options={"x265-params": "log-level=none:keyint=12:bframes=3:pools=1:frame-threads=1"},
    ),
    "VP9": Coding(file="vp9.webm", codec="libvpx-vp9", options={"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "AV1": Coding(file="av1.mp4", codec="libsvtav1", options={"g": "12", "preset": "10", "svtav1-params": "lp=1"}),
    "MPEG-TS": Coding(file="transport_stream.ts", codec="libx264", options=_SHORT_GROUPS),
    "mpeg4 AVI": Coding(file="mpeg4.avi", codec="mpeg4", options={"g": "12"}),
    "mpeg4 AVI with B-frames": Coding(file="mpeg4_b_frames.avi", codec="mpeg4", options={"g": "12", "bf": "2"}),
    "MPEG-2": Coding(file="mpeg2.mpg", codec="mpeg2video", options={"g": "12", "bf": "2"}),
}


def write_coded_videos(folder: Path) -> dict[str, Path]:
    """Write one file of each kind.

    Returns:
        Files by what is special in them: the names of `CODINGS` and `edit list`. Kinds that this FFmpeg can't encode
        are left out.
    """
    paths = {}
    for name, coding in CODINGS.items():
        if can_encode(coding.codec):
            paths[name] = write_video(folder / coding.file, coding)
    paths["edit list"] = copy_stream(paths["short groups"], folder / "edit_list.mp4", first=HIDDEN_FRAMES)
    return paths


def can_encode(codec: str) -> bool:
    """Whether PyAV's FFmpeg has this encoder."""
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def moving_pictures() -> list[Frames]:
    """Soft noise that drifts two columns a frame, so that no two frames are alike; each `[h w c]`."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, WIDTH // 4 + NUM_FRAMES, 3), dtype=np.uint8)
    wide = noise.repeat(4, axis=0).repeat(4, axis=1)
    return [wide[:, 2 * number : 2 * number + WIDTH] for number in range(NUM_FRAMES)]


def write_video(path: Path, coding: Coding, *, fps: int = 30, pictures: Sequence[Frames] | None = None) -> Path:
    """Encode pictures, by default the moving ones."""
    with _quiet_encoder(), av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(coding.codec, rate=fps, options=dict(coding.options)))
        pictures = moving_pictures() if pictures is None else pictures
        stream.height, stream.width, _ = pictures[0].shape
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        if coding.times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if coding.rotation is not None:
            stream.set_display_rotation(coding.rotation)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if coding.times_ms is not None:
                frame.pts, frame.time_base = coding.times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy_stream(source: Path, target: Path, *, first: int = 0, options: Mapping[str, str] | None = None) -> Path:
    """Copy packets without decoding; those before frame `first` get negative times, so an edit list hides them.

    Args:
        source: A file with one video stream.
        target: Where the copy goes.
        first: First frame that the copy shows.
        options: Of the container, as in `{"movflags": "faststart"}`.
    """
    with av.open(str(source)) as old, av.open(str(target), "w", options=dict(options or {})) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        start = sorted(packet.pts or 0 for packet in packets)[first]
        for packet in packets:
            packet.pts, packet.dts = (packet.pts or 0) - start, (packet.dts or 0) - start
            packet.stream = copy
            new.mux(packet)
    return target


def sequential_frames(path: Path) -> Frames:
    """Every frame in the order in which a plain decode gives them, turned as a player shows them; `[t h w c]`."""
    return np.stack(list(plain_frames(path)))


def count_wrong_frames(decoder: Decoder, path: Path) -> tuple[int, int]:
    """How many frames a decoder gives wrong or not at all, each asked for alone and out of order.

    Returns:
        Wrong frames, and frames that there are.
    """
    expected = sequential_frames(path)
    order = list(range(len(expected)))
    random.Random(0).shuffle(order)  # ascending reads would hide what a decoder's seeks do
    try:
        reader = decoder.open(str(path))
    except DecodeError:
        return len(expected), len(expected)
    return sum(not _gives(reader, index, expected[index]) for index in order), len(expected)


def _gives(reader: VideoReader, index: int, expected: Frames) -> bool:
    if index >= reader.info.num_frames:
        return False
    try:
        frame = reader.read([index]).frames[0]
    except DecodeError:
        return False
    return frame.shape == expected.shape and bool(np.abs(frame.astype(int) - expected).mean() <= SAME_PICTURE)


@contextmanager
def _quiet_encoder() -> Iterator[None]:
    """The AV1 encoder writes its settings to standard error unless a variable tells it not to."""
    before = os.environ.get("SVT_LOG")
    os.environ["SVT_LOG"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SVT_LOG"]
        else:
            os.environ["SVT_LOG"] = before
