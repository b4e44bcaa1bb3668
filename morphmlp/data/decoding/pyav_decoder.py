"""PyAV, the fast exact way: the default decoder.

One demux pass gives every presentable frame's time. Decoding starts at the last key packet before the
first wanted frame, never by a seek, and in H.264 the unwanted non-reference frames on the way are
skipped, which leaves the wanted ones bit-identical. The whole file's packets are held in memory.
"""

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import av
import numpy as np

from morphmlp.data.decoding.protocol import DecodedFrames, Frames, VideoInfo, VideoReader, require_content
from morphmlp.errors import DecodeError


class PyAVDecoder:
    """Decoding with one FFmpeg thread."""

    name = "pyav"

    @property
    def version(self) -> str:
        """Version of the PyAV package."""
        return version("av")

    def open(self, path: str) -> VideoReader:
        """Open a file and read its packets."""
        require_content(path)
        try:
            # Genuine files carry metadata in other encodings: it must not keep them from being opened.
            container = av.open(path, metadata_errors="ignore")
        except av.error.FFmpegError as error:
            raise DecodeError(f"not a readable video: {str(error.strerror or error).lower()}") from None
        if not container.streams.video:
            raise DecodeError("has no video stream")
        return _PyAVReader(container)


class _PyAVReader:
    def __init__(self, container: Any) -> None:
        self._container = container  # kept open: the codec context lives in it
        stream = container.streams.video[0]
        self._context = stream.codec_context
        self._context.thread_type, self._context.thread_count = "NONE", 1
        self._packets = _packets(container, stream)
        shown = [packet for packet in self._packets if not packet.is_discard]
        if not shown:
            raise DecodeError("has a video stream without frames")
        declared_fps = float(stream.average_rate or stream.guessed_rate or 30)
        # AVI and raw streams carry no presentation times: their frames are counted, at the declared rate.
        self._timed = all(packet.pts is not None for packet in shown)
        if self._timed:
            self._pts = sorted({packet.pts for packet in shown})
            pts_s = tuple(float(pts * stream.time_base) for pts in self._pts)
        else:
            self._pts = list(range(len(shown)))
            pts_s = tuple(index / declared_fps for index in self._pts)
        length_s = pts_s[-1] - pts_s[0]
        fps = (len(pts_s) - 1) / length_s if length_s > 0 else declared_fps
        self.info = VideoInfo(num_frames=len(pts_s), fps=fps, pts_s=pts_s)

    def read(self, indices: Sequence[int]) -> DecodedFrames:
        """The frames at these display-order indices."""
        wanted = sorted(set(indices))
        if wanted[0] < 0 or wanted[-1] >= self.info.num_frames:
            raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of a video with {self.info.num_frames}")
        found = self._decode_wanted(wanted) if self._timed else {}
        if len(found) < len(wanted):
            # A damaged stream, or one without times: everything is decoded, and what is still missing concealed.
            found = self._decode_all()
        if not found:
            raise DecodeError("not one frame could be decoded")
        good = sorted(found)
        nearest = {index: _nearest(good, index) for index in wanted}
        return DecodedFrames(
            frames=np.stack([found[nearest[index]] for index in indices]),
            concealed=sum(nearest[index] != index for index in wanted),
        )

    def _decode_wanted(self, wanted: Sequence[int]) -> dict[int, Frames]:
        """Wanted frames by display index, from the last key packet before them; fewer where the stream is damaged."""
        wanted_pts = {self._pts[index]: index for index in wanted}
        first = self._pts[wanted[0]]
        places = range(len(self._packets))
        keys = [
            place
            for place in places
            if self._packets[place].is_keyframe
            and self._packets[place].pts is not None
            and self._packets[place].pts <= first
        ]
        start = keys[-1] if keys else 0
        stop = 1 + max(place for place in places if self._packets[place].pts in wanted_pts)
        skip_unwanted = self._context.name == "h264"
        found: dict[int, Frames] = {}
        for packet in [*self._packets[start:stop], None]:
            if skip_unwanted and packet is not None:
                self._context.skip_frame = "DEFAULT" if packet.pts in wanted_pts else "NONREF"
            for frame in self._frames(packet):
                if frame.pts in wanted_pts:
                    found[wanted_pts[frame.pts]] = _to_rgb(frame)
        self._reset()
        return found

    def _decode_all(self) -> dict[int, Frames]:
        """Every frame that the file gives, by display index."""
        place_of = {pts: index for index, pts in enumerate(self._pts)}
        found: dict[int, Frames] = {}
        count = 0
        for packet in [*self._packets, None]:
            for frame in self._frames(packet):
                index = place_of.get(frame.pts) if self._timed else count
                count += 1
                if index is not None:
                    found[index] = _to_rgb(frame)
        self._reset()
        return found

    def _frames(self, packet: Any) -> list[Any]:
        """What the codec gives for a packet (None: what is left); nothing where the packet is damaged."""
        try:
            return list(self._context.decode(packet))
        except av.error.FFmpegError:
            return []

    def _reset(self) -> None:
        self._context.skip_frame = "DEFAULT"
        self._context.flush_buffers()


def _packets(container: Any, stream: Any) -> list[Any]:
    packets: list[Any] = []
    # A file cut short still has the frames before the cut.
    with suppress(av.error.FFmpegError):
        packets.extend(packet for packet in container.demux(stream) if packet.size)
    return packets


def _to_rgb(frame: Any) -> Frames:
    image: Frames = frame.reformat(format="rgb24", threads=1).to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _nearest(good: Sequence[int], index: int) -> int:
    place = bisect_left(good, index)
    around = good[max(place - 1, 0) : place + 1]
    return min(around, key=lambda other: abs(other - index))
