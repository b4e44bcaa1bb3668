"""What is in a file, by its packets alone: how many frames, how large, how long. No frame is decoded for it.

Run in the separate process of `isolation`, where it stands for a decoder, it imports neither torch nor Ray. Formats
that name other files (playlists, lists of parts) are refused before FFmpeg looks into them: a file from outside must
not choose what is read here.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Never

from morphmlp.data.decoding.protocol import Box, Decoder, VideoInfo
from morphmlp.data.decoding.pyav.packets import open_video, packets_with_data
from morphmlp.errors import DecodeError

FORMATS = ",".join(
    (
        *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo"),
        *("flv", "asf", "asf_o", "ogg", "gif", "apng", "h264", "hevc", "m4v", "ivf", "obu", "av1", "mjpeg"),
        *("yuv4mpegpipe", "nut", "rm", "mxf", "dv", "h263", "vc1", "jpeg_pipe", "png_pipe"),
    )
)
"""FFmpeg's names of formats that hold all of a video themselves."""
SURVEY = "morphmlp.serving.survey:packet_survey"
"""As `isolated_videos` takes it."""


class PacketSurvey:
    """Stands for a decoder: opens a file and says what is in it."""

    name = "survey"

    @property
    def version(self) -> str:
        """Version of the PyAV package."""
        return version("av")

    def open(self, path: str) -> "SurveyedVideo":
        """Go through a file's packets.

        Raises:
            DecodeError: It's no video, or of a format that isn't taken.
        """
        return SurveyedVideo(_info(path))


def packet_survey() -> Decoder:
    """What the separate process makes."""
    return PacketSurvey()


class SurveyedVideo:
    """A file of which only the packets were looked at."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        """`pts_s` has two times alone: the earliest frame's, and the end of the latest one."""

    def read(self, indices: Sequence[int], box: Box | None = None) -> Never:
        """Nothing is decoded.

        Raises:
            DecodeError: Always.
        """
        raise DecodeError("was only surveyed")

    def scan(self) -> Never:
        """Nothing is decoded.

        Raises:
            DecodeError: Always.
        """
        raise DecodeError("was only surveyed")


def _info(path: str) -> VideoInfo:
    container, stream = open_video(path, formats=FORMATS)
    with container:
        unit = float(stream.time_base or 1)
        count, begin, end = 0, None, None
        for packet in packets_with_data(container, stream):
            count += 1
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                begin = time if begin is None else min(begin, time)
                end = time + (packet.duration or 0) if end is None else max(end, time + (packet.duration or 0))
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        codec = stream.codec_context
    if not count:
        raise DecodeError("has a video stream without frames")
    first_s, last_s = (begin * unit, end * unit) if begin is not None and end is not None else (0.0, 0.0)
    length_s = max(last_s - first_s, 1 / rate if count == 1 else 0.0) or count / rate
    return VideoInfo(
        num_frames=count,
        fps=count / length_s,
        pts_s=(first_s, first_s + length_s),
        width=codec.width,
        height=codec.height,
        codec=codec.codec.canonical_name,
    )
