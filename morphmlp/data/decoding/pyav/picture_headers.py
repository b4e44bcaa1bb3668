"""What packets say about their pictures, whatever the container says of them.

MPEG-1, 2 and 4: the type of the picture. H.264 (7.3 and E.1): whether a packet holds a whole frame, for two packets can
make one frame that is coded in fields; size and order of frames. Bits, and no container, time or frame.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

_PICTURE_TYPES = "IPBS"
_LEAST_CODED_BYTES = 8
"""An MPEG-4 picture that is shorter may be one that only says "the last picture again", which a decoder may drop."""


def _mpeg4_type(packet: bytes) -> str | None:
    start = packet.find(b"\0\0\1\xb6") + 4
    if start < 4 or len(packet) - start < _LEAST_CODED_BYTES or packet.find(b"\0\0\1\xb6", start) >= 0:
        return None
    return _PICTURE_TYPES[packet[start] >> 6]


def _mpeg_type(packet: bytes) -> str | None:
    start = packet.find(b"\0\0\1\0") + 4
    extension = packet.find(b"\0\0\1\xb5", start) + 4
    if start < 4 or len(packet) < start + 2 or packet.find(b"\0\0\1\0", start) >= 0:
        return None
    coding = packet[extension : extension + 3] if extension >= 4 else b""
    if len(coding) == 3 and coding[0] >> 4 == 8 and coding[2] & 3 != 3:
        return None  # one field of a picture
    kind = packet[start + 1] >> 3 & 7
    return _PICTURE_TYPES[kind - 1] if 1 <= kind <= 3 else None


TYPE_READERS: dict[str, Callable[[bytes], str | None]] = {
    "mpeg4": _mpeg4_type,
    "mpeg1video": _mpeg_type,
    "mpeg2video": _mpeg_type,
}
"""By codec: the type of a packet's picture (I, P, B or S), or None where the packet doesn't hold exactly one, complete.
In these codecs the types alone give the order in which frames are shown."""


_START = b"\0\0\1"
_SLICES = (1, 5)
_PARAMETER_SET = 7
_CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_OWN_ASPECT = 255
_LONGEST_HEADER = 32
"""Bytes of a slice that hold what is read of its header."""
_HEADERS_KEPT = 64
"""Headers whose meaning is remembered: files that one encoder wrote alike have the same."""


@lru_cache(_HEADERS_KEPT)
def holds_frame_reader(headers: bytes) -> Callable[[bytes], bool] | None:
    """A function that says whether a packet holds a whole frame in one piece; None where all do.

    Args:
        headers: The codec's extradata, as MP4 stores it or as a plain stream. Where it's unclear, so is every packet.
    """
    try:
        sets = [_read_parameter_set(unit) for unit in _stored_units(headers)]
    except IndexError:
        sets = []
    if sets and all(one.frames_only for one in sets):
        return None
    number_bits = {one.number_bits for one in sets}
    length_bytes = (headers[4] & 3) + 1 if headers[:1] == b"\1" else 0
    if len(number_bits) != 1:
        return lambda packet: False
    return lambda packet: _holds_frame(packet, length_bytes=length_bytes, number_bits=max(number_bits))


@lru_cache(_HEADERS_KEPT)
def declared_frames(headers: bytes) -> "DeclaredFrames | None":
    """What H.264's headers say of all frames; None where they don't say it, or not of all alike.

    Args:
        headers: The codec's extradata.
    """
    try:
        sets = {_read_parameter_set(unit).frames for unit in _stored_units(headers)}
    except IndexError:
        return None
    return sets.pop() if len(sets) == 1 else None


@dataclass(frozen=True, kw_only=True)
class DeclaredFrames:
    """Frames as H.264's headers have them."""

    width: int
    height: int
    reorder_depth: int
    """Frames that can be decoded before, and shown after another one."""


@dataclass(frozen=True, kw_only=True)
class _ParameterSet:
    frames_only: bool
    """Whether no picture is coded in fields (`frame_mbs_only_flag`)."""
    number_bits: int
    """Bits of a frame's number."""
    frames: DeclaredFrames | None
    """None where the order isn't declared."""


def _stored_units(headers: bytes) -> Iterator[bytes]:
    """Sequence parameter sets."""
    if headers[:1] != b"\1":
        yield from (unit for unit in headers.split(_START)[1:] if unit and unit[0] & 31 == _PARAMETER_SET)
        return
    start = 6
    for _ in range(headers[5] & 31):
        size = int.from_bytes(headers[start : start + 2])
        yield headers[start + 2 : start + 2 + size]
        start += 2 + size


class _Bits:
    """Bits one after the other, and the codec's two codes for whole numbers; IndexError at their end."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")  # bytes that keep content from looking like a start
        self._bits = f"{int.from_bytes(plain):0{8 * len(plain)}b}"
        self._at = 0

    def bit(self) -> int:
        self._at += 1
        return int(self._bits[self._at - 1])

    def number(self, count: int) -> int:
        self._at += count
        if self._at > len(self._bits):
            raise IndexError
        return int(self._bits[self._at - count : self._at], 2)

    def skip(self, count: int) -> None:
        self._at += count

    def unsigned(self) -> int:
        zeros = 0
        while not self.bit():
            zeros += 1
        value = 1
        for _ in range(zeros):
            value = 2 * value + self.bit()
        return value - 1

    def signed(self) -> int:
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _read_parameter_set(unit: bytes) -> _ParameterSet:
    bits = _Bits(unit[4:])
    bits.unsigned()  # its own number
    chroma = _read_chroma(bits) if unit[1] in _CHROMA_PROFILES else 1
    number_bits = bits.unsigned() + 4
    order_kind = bits.unsigned()
    if order_kind == 0:
        bits.unsigned()
    elif order_kind == 1:
        bits.skip(1)
        bits.signed(), bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()
    bits.unsigned()  # reference frames
    bits.skip(1)
    width, rows = 16 * (bits.unsigned() + 1), 16 * (bits.unsigned() + 1)
    frames_only = bool(bits.bit())
    frames = None
    with suppress(IndexError):  # what is needed of all streams came before
        frames = _read_frames(bits, chroma, width, rows) if frames_only else None
    return _ParameterSet(frames_only=frames_only, number_bits=number_bits, frames=frames)


def _read_frames(bits: _Bits, chroma: int, width: int, height: int) -> DeclaredFrames | None:
    """The rest of a parameter set of frames without fields; None where it doesn't tell their order."""
    bits.skip(1)
    if bits.bit():
        left, right, top, bottom = (bits.unsigned() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1)
    if not bits.bit():
        return None  # nothing about how to show them
    if bits.bit() and bits.number(8) == _OWN_ASPECT:
        bits.skip(32)
    if bits.bit():
        bits.skip(1)  # overscan
    if bits.bit():
        bits.skip(4)
        bits.skip(24 if bits.bit() else 0)  # colours
    if bits.bit():
        bits.unsigned(), bits.unsigned()  # where colours are sampled
    if bits.bit():
        bits.skip(65)  # rate of frames
    models = [bits.bit() and _skip_buffer_model(bits) for _ in range(2)]
    bits.skip(2 if any(models) else 1)
    if not bits.bit():
        return None
    bits.skip(1)
    for _ in range(4):
        bits.unsigned()  # limits of sizes and vectors
    return DeclaredFrames(width=width, height=height, reorder_depth=bits.unsigned())


def _skip_buffer_model(bits: _Bits) -> bool:
    count = bits.unsigned() + 1
    bits.skip(8)
    for _ in range(count):
        bits.unsigned(), bits.unsigned()
        bits.skip(1)
    bits.skip(20)
    return True


def _read_chroma(bits: _Bits) -> int:
    """How colours are sampled: 0 not at all, 1 for every four pixels, 2 for two, 3 for each."""
    chroma = bits.unsigned()
    if chroma == 3 and bits.bit():
        raise IndexError  # colours coded separately: too rare to be read
    bits.unsigned(), bits.unsigned()  # depths
    bits.skip(1)
    if not bits.bit():
        return chroma
    for number in range(12 if chroma == 3 else 8):
        if bits.bit():
            last = scale = 8
            for _ in range(16 if number < 6 else 64):
                if scale:
                    scale = (last + bits.signed()) % 256
                last = scale or last
    return chroma


def _holds_frame(packet: bytes, *, length_bytes: int, number_bits: int) -> bool:
    """`field_pic_flag` of the first slice is unset."""
    for start in _unit_starts(packet, length_bytes):
        if packet[start] & 31 in _SLICES:
            bits = _Bits(packet[start + 1 : start + _LONGEST_HEADER])
            try:
                bits.unsigned(), bits.unsigned(), bits.unsigned()  # first block, type, picture parameters
                bits.skip(number_bits)
                return not bits.bit()
            except IndexError:
                return False
    return False


def _unit_starts(packet: bytes, length_bytes: int) -> Iterator[int]:
    """Where the units of a packet begin."""
    if not length_bytes:
        at = packet.find(_START)
        while 0 <= at < len(packet) - 3:
            yield at + 3
            at = packet.find(_START, at + 3)
        return
    at = length_bytes
    while at < len(packet):
        yield at
        at += int.from_bytes(packet[at - length_bytes : at]) + length_bytes
