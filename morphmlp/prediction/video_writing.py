"""A video written again, each of its frames drawn on, at the times that its frames have."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL.Image import Image

from morphmlp.data.decoding.isolation.isolated import IsolatedReader
from morphmlp.data.decoding.protocol import Frames, VideoInfo
from morphmlp.progress import Progress

Draw = Callable[[Frames, int, float], Image]
"""Draws a frame `[h w 3]`: the one of this number, shown at this time, seconds from the first one."""
_READ_BYTES = 64 * 2**20
"""Decoded frames that are read at a time."""
_SAID_EVERY = 200
"""Frames."""
_TIME_BASE = Fraction(1, 90_000)
_X264 = {"preset": "veryfast", "crf": "20"}


def write_video(path: Path, reader: IsolatedReader, size: tuple[int, int], draw: Draw, *, progress: Progress) -> None:
    """Write an open video as H.264 in MP4, without its sound; `size` is what `draw` gives, width and height, even.

    Of a long one `progress` gets how many frames are written, in a phase of the caller's.

    Raises:
        DecodeError: It can't be read any more.
        OSError: The file can't be written.
    """
    with av.open(str(path), "w", format="mp4") as container:
        stream = _stream(container, reader.info, size)
        last = -1
        for frame, place, time_s in timed_frames(reader, range(reader.info.num_frames)):
            if place and place % _SAID_EVERY == 0:
                progress.update(place)
            picture = VideoFrame.from_ndarray(np.asarray(draw(frame, place, time_s)), format="rgb24")
            last = max(round(time_s / _TIME_BASE), last + 1)
            picture.pts, picture.time_base = last, _TIME_BASE
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def timed_frames(reader: IsolatedReader, places: range | list[int]) -> Iterator[tuple[Frames, int, float]]:
    """Frames by their numbers, ascending, a part of them in memory at a time; each with its number and its time.

    Times are seconds from the first frame of the video.

    Raises:
        DecodeError: It can't be read any more.
    """
    info = reader.info
    at_once = max(_READ_BYTES // (info.height * info.width * 3), 1)
    for start in range(0, len(places), at_once):
        indices = places[start : start + at_once]
        for place, frame in zip(indices, reader.read(indices).frames, strict=True):
            yield frame, place, info.pts_s[place] - info.pts_s[0]


def _stream(container: av.container.OutputContainer, info: VideoInfo, size: tuple[int, int]) -> VideoStream:
    # Only a hint: every frame has its time.
    rate = max(Fraction(info.fps).limit_denominator(1001), Fraction(1, 1001))
    stream = container.add_stream("libx264", rate=rate, options=_X264)
    context = stream.codec_context
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = stream.time_base = _TIME_BASE
    return stream
