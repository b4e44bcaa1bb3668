"""A video file's packets in coded order, as PyAV's demuxer gives them: what is in the file before anything is decoded.

It must not know how frames are chosen or converted. Reading never seeks: where a seek lands differs from file to file.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from morphmlp.data.decoding.protocol import beat, require_content
from morphmlp.data.decoding.pyav.picture_headers import (
    TYPE_READERS,
    DeclaredFrames,
    declared_frames,
    holds_frame_reader,
)
from morphmlp.errors import DecodeError

MAX_PIXELS = 2**25
"""Largest frame that is decoded, pixels: one of 8K (7680 x 4320) fits. A damaged header can declare gigabytes."""
HELD_BYTES = 64 * 2**20
"""Packets that are held in memory, bytes; of a longer file only their times are, and it is read again."""

_WITHOUT_A_TRIAL = {"skip_frame": "all", "analyzeduration": "1"}
"""Options that keep FFmpeg from decoding pictures and sound to learn what is in a file when it's opened."""
_NOT_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails

_FORMATS = "format_whitelist"
"""FFmpeg's option; a file of another format is an invalid argument to it."""


def open_video(path: str, *, formats: str | None = None) -> tuple[InputContainer, VideoStream]:
    """Open a file and choose its video stream: the largest that isn't a cover picture; of equal ones the default one.

    `formats` are FFmpeg's names of those that the file may have, with commas between them; None: any that it knows.

    Raises:
        DecodeError: The file is missing, empty, not a video, or has no video stream that can be decoded.
    """
    require_content(path)
    allowed = {} if formats is None else {_FORMATS: formats}
    container = _opened(path, allowed | _WITHOUT_A_TRIAL)
    if not _says_all(container):
        container.close()
        container = _opened(path, allowed)
    pictures = container.streams.video
    streams = [stream for stream in pictures if not stream.disposition & _NOT_A_VIDEO]
    if not streams:
        raise DecodeError("has no video stream" + (", only a cover picture" if pictures else ""))
    stream = max(streams, key=_claim)
    if stream.codec_context is None:
        raise DecodeError("has a video stream of a codec that this FFmpeg can't decode")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise DecodeError(f"declares frames of {width}x{height}, more than the {MAX_PIXELS} pixels that are decoded")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return container, stream


def _opened(path: str, options: dict[str, str]) -> InputContainer:
    options = {"max_pixels": str(MAX_PIXELS), **options}
    try:
        # Genuine files carry metadata in other encodings: it must not keep them from being opened. The prefix keeps
        # FFmpeg from taking a name with a colon for an address.
        return av.open(f"file:{path}", options=options, metadata_errors="ignore", mode="r")
    except av.error.FFmpegError as error:
        reason = str(error.strerror or error).lower()
        if isinstance(error, av.error.ArgumentError) and _FORMATS in options:
            reason = "it's of another format than videos that are taken, as sound, playlists and lists of parts are"
        raise DecodeError(f"not a readable video: {reason}") from None


def _says_all(container: InputContainer) -> bool:
    """Whether a file that was opened without a trial decode says all that a decode would show.

    So do files as most are: MP4 with one H.264 stream, whose own headers have the size and the order of its frames.
    """
    if container.format.name.partition(",")[0] != "mov" or len(container.streams.video) != 1:
        return False
    codec = container.streams.video[0].codec_context
    if codec is None or codec.codec.canonical_name != "h264" or not container.streams.video[0].average_rate:
        return False
    declared = declared_frames(codec.extradata or b"")
    return declared == DeclaredFrames(width=codec.width, height=codec.height, reorder_depth=codec.reorder_depth)


def _claim(stream: VideoStream) -> tuple[int, bool]:
    codec = stream.codec_context
    return codec.width * codec.height if codec else -1, bool(stream.disposition & Disposition.default)


class Packets:
    """The packets that carry data, by their place in coded order.

    Each is handed out with its place as its time, so that a decoded frame says which packet it came from: times can be
    missing or wrong, or come twice.
    """

    def __init__(self, path: str, container: InputContainer, stream: VideoStream, *, held_bytes: int) -> None:
        """Go through the file, just opened, once; up to `held_bytes` of its packets stay in memory."""
        self._path, self._most_bytes = path, held_bytes
        self._pass: _Pass | None = None
        self._held: list[Packet[VideoStream]] | None = []
        self.pts: list[int | None] = []
        """Presentation time of each packet as the demuxer gives it, in the stream's time base; it can be guessed."""
        self.dts: list[int | None] = []
        """Decoding time."""
        self.types: list[str] = []
        """Types of their pictures, as their own headers have them (see `picture_headers`); `?` where they don't say."""
        self.are_frames = True
        """H.264: whether each holds a whole frame in one piece, as far as its headers say."""
        self.is_shown: list[bool] = []
        """Whether it is to be seen: an edit list hides frames that others need."""
        self.keys: list[int] = []
        """Places of the key packets."""
        self.first_key: Packet[VideoStream] | None = None
        size = 0
        codec = stream.codec_context.codec.canonical_name
        type_of = TYPE_READERS.get(codec)
        holds_frame = holds_frame_reader(stream.codec_context.extradata or b"") if codec == "h264" else None
        for packet in packets_with_data(container, stream):
            if packet.is_keyframe:
                self.first_key = self.first_key or packet
                self.keys.append(len(self.pts))
            self.pts.append(packet.pts)
            self.dts.append(packet.dts)
            if type_of is not None:
                self.types.append(type_of(bytes(packet)) or "?")
            if holds_frame is not None and self.are_frames:
                self.are_frames = holds_frame(bytes(packet))
            self.is_shown.append(not packet.is_discard)
            size += packet.size
            if size > held_bytes:
                self._held = None
            if self._held is not None:
                packet.pts = len(self._held)
                self._held.append(packet)

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def are_held(self) -> bool:
        """Whether all are in memory."""
        return self._held is not None

    def between(self, start: int, stop: int) -> Iterator["Packet[VideoStream]"]:
        """The packets at the places from `start` up to `stop`."""
        if self._held is not None:
            yield from self._held[start:stop]
            return
        # Whoever reads a long file from its start to its end, some of it at a time, goes through it once.
        if self._pass is None or not self._pass.reaches(start):
            self._pass = _Pass(self._path, most_bytes=self._most_bytes)
        yield from self._pass.between(start, stop)


class _Pass:
    """One way through a file, which waits where the last read ended.

    The packets since the last key packet but one are at hand: the next read may begin there.
    """

    def __init__(self, path: str, *, most_bytes: int) -> None:
        self._container, stream = open_video(path)
        self._packets = packets_with_data(self._container, stream)
        self._place = 0
        self._recent: deque[Packet[VideoStream]] = deque()
        self._size, self._most_bytes = 0, most_bytes
        self._key = -1

    def reaches(self, start: int) -> bool:
        """Whether the packet at a place is still to come, or at hand."""
        return start >= (self._recent[0].pts or 0 if self._recent else self._place)

    def between(self, start: int, stop: int) -> Iterator["Packet[VideoStream]"]:
        """The packets at the places from `start` up to `stop`."""
        yield from [packet for packet in self._recent if start <= (packet.pts or 0) < stop]
        while self._place < stop and (packet := next(self._packets, None)) is not None:
            packet.pts, self._place = self._place, self._place + 1
            self._keep(packet)
            if packet.pts >= start:
                yield packet

    def _keep(self, packet: "Packet[VideoStream]") -> None:
        if packet.is_keyframe:
            while self._recent and (self._recent[0].pts or 0) < self._key:
                self._size -= self._recent.popleft().size
            self._key = self._place - 1
        self._recent.append(packet)
        self._size += packet.size
        if self._size > self._most_bytes:
            self._recent.clear()
            self._size = 0


def packets_with_data(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """A stream's packets from here to the file's end, without empty ones."""
    # A file cut short still has the packets before the cut.
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                beat()
                yield packet
