"""What MPEG-1, 2 and 4 tell about a packet's picture, whatever the container says of it.

Knows bits, and no container, time or frame.
"""

from collections.abc import Callable

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
