"""What the codecs' own headers tell about a packet, whatever the container says of it.

Knows bits, and no container, time or frame.
"""

from collections.abc import Callable, Iterator

_PICTURE_TYPES = "IPBS"
_LEAST_CODED_BYTES = 8
"""An MPEG-4 picture that is shorter may be one that only says "the last picture again", which a decoder may drop."""
_CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


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
"""By codec: the type of a packet's picture (I, P, B or S), or None where the packet doesn't hold exactly one whole one.
In these codecs the types alone give the order in which frames are shown."""


def order_by_types(types: list[str]) -> list[int] | None:
    """Places of the pictures in the order in which they are shown.

    A B-picture is shown at once, any other after the B-pictures that follow it. None where a decoder would drop some,
    because B-pictures come before there are two to refer to.
    """
    order: list[int] = []
    waiting = None
    for place, kind in enumerate(types):
        if kind == "B":
            if not order:
                return None
            order.append(place)
        else:
            if waiting is not None:
                order.append(waiting)
            waiting = place
    return order if waiting is None else [*order, waiting]


def may_hold_fields(sequence_headers: bytes) -> bool:
    """Whether an H.264 stream may be coded in fields, of which two packets can make one frame; True where it's unclear.

    Args:
        sequence_headers: The codec's extradata, or else the first packet: as MP4 stores them or as a plain stream.
    """
    sets = list(_parameter_sets(sequence_headers))
    try:
        return not sets or not all(_frames_only(each) for each in sets)
    except IndexError:
        return True


def _parameter_sets(headers: bytes) -> Iterator[bytes]:
    if headers[:1] == b"\1":
        start = 6
        for _ in range(headers[5] & 31 if len(headers) > 6 else 0):
            size = int.from_bytes(headers[start : start + 2])
            yield headers[start + 2 : start + 2 + size]
            start += 2 + size
        return
    for unit in headers.split(b"\0\0\1")[1:]:
        if unit and unit[0] & 31 == 7:
            yield unit


class _Bits:
    """Bits one after the other, and the codec's two codes for whole numbers."""

    def __init__(self, data: bytes) -> None:
        self._bits = f"{int.from_bytes(data):0{8 * len(data)}b}"
        self._at = 0

    def bit(self) -> int:
        self._at += 1
        return int(self._bits[self._at - 1])

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


def _frames_only(parameter_set: bytes) -> bool:
    """`frame_mbs_only_flag` (H.264, 7.3.2.1.1). IndexError: the set is cut short."""
    profile = parameter_set[1]
    bits = _Bits(parameter_set[4:].replace(b"\0\0\3", b"\0\0"))
    bits.unsigned()  # its number
    if profile in _CHROMA_PROFILES:
        _skip_chroma(bits)
    bits.unsigned()  # length of a frame's number
    order_kind = bits.unsigned()
    if order_kind == 0:
        bits.unsigned()
    elif order_kind == 1:
        bits.bit(), bits.signed(), bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()
    bits.unsigned(), bits.bit()  # reference frames, gaps
    bits.unsigned(), bits.unsigned()  # width and height
    return bool(bits.bit())


def _skip_chroma(bits: _Bits) -> None:
    chroma = bits.unsigned()
    if chroma == 3:
        bits.bit()
    bits.unsigned(), bits.unsigned(), bits.bit()  # depths, bypass
    if not bits.bit():
        return
    for number in range(12 if chroma == 3 else 8):
        if bits.bit():
            last = scale = 8
            for _ in range(16 if number < 6 else 64):
                if scale:
                    scale = (last + bits.signed()) % 256
                last = scale or last
