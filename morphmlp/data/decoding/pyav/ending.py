"""Whether a file ends before what it says of itself: a download or a copy that was cut short still plays to the cut.

It reads packets and decodes none. A format that states no length (transport and program streams, live recordings) can
be cut anywhere without a trace.
"""

from contextlib import suppress

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from morphmlp.data.decoding.heartbeat import beat
from morphmlp.data.decoding.pyav.packets import open_video

_STATES_LENGTH = {"mov", "matroska", "flv", "asf"}
"""Names of formats whose head has the length of all streams; of others FFmpeg estimates it from what is there."""
_TOLERATED_SHARE, _TOLERATED_S = 0.05, 0.15
"""Lengths are rounded, a last frame may be held, and sound and pictures end at different times."""


def is_short(reached: float, stated: float) -> bool:
    """Whether a length is less than stated, seconds, beyond what rounding explains."""
    return stated - reached > max(_TOLERATED_SHARE * stated, _TOLERATED_S)


def cut_short(path: str) -> str:
    """In words where and how a file ends too early; empty where nothing tells that it does.

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
        ends, is_torn = _ends(container)
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
        return f"ends in the middle of its data, at {at - max(start, 0.0):.1f} s" if is_torn else ""


def _ends(container: InputContainer) -> tuple[dict[int, float], bool]:
    """When each stream ends, seconds, and whether the file's last packet is torn."""
    ends: dict[int, float] = {}
    is_torn = False
    with suppress(av.error.FFmpegError):
        for packet in container.demux():
            if not packet.size:
                continue
            beat()
            is_torn = packet.is_corrupt
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and packet.time_base is not None:
                end = (time + (packet.duration or 0)) * float(packet.time_base)
                ends[packet.stream_index] = max(ends.get(packet.stream_index, end), end)
    return ends, is_torn
