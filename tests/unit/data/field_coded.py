"""A field-coded H.264 stream (PAFF), as broadcasts and camcorders have it, written bit by bit: no encoder here can.

Each picture is stored as it is (I_PCM), its even rows as one field and its odd rows as another.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from coded_videos import HEIGHT, WIDTH, moving_pictures

NUM_PICTURES = 12
_GROUP = 6
_TICKS = 3600
"""Of 1/90000 s between frames: 25 a second."""


class _Bits:
    def __init__(self) -> None:
        self.all: list[int] = []

    def number(self, count: int, value: int) -> None:
        self.all += [value >> place & 1 for place in range(count - 1, -1, -1)]

    def unsigned(self, *values: int) -> None:
        for value in values:
            size = (value + 1).bit_length()
            self.number(2 * size - 1, value + 1)

    def align(self) -> None:
        self.all += [0] * (-len(self.all) % 8)

    def unit(self, kind: int) -> bytes:
        """As a unit of the stream, with the bytes that keep its content from looking like a start."""
        self.all.append(1)
        self.align()
        unit, zeros = bytearray(), 0
        for byte in np.packbits(np.array(self.all, np.uint8)).tobytes():
            if zeros >= 2 and byte <= 3:
                unit.append(3)
                zeros = 0
            unit.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + bytes([3 << 5 | kind]) + bytes(unit)


def _parameter_sets() -> bytes:
    sequence = _Bits()
    for value in (77, 0, 30):
        sequence.number(8, value)
    # Its number, 8 bits each for frame and order numbers, one reference frame; sizes, of fields.
    sequence.unsigned(0, 4, 0, 4, 1)
    sequence.number(1, 0)
    sequence.unsigned(WIDTH // 16 - 1, HEIGHT // 32 - 1)
    sequence.number(6, 0b001000)  # not frames only, no mixture within a frame; no cropping, no more
    picture = _Bits()
    picture.unsigned(0, 0)
    picture.number(2, 0)
    picture.unsigned(0, 0, 0)
    picture.number(3, 0)
    picture.unsigned(0, 0, 0)
    picture.number(3, 0)
    return sequence.unit(7) + picture.unit(8)


def _field(planes: list[npt.NDArray[np.uint8]], *, number: int, is_bottom: bool) -> bytes:
    starts_group = number % _GROUP == 0 and not is_bottom
    bits = _Bits()
    bits.unsigned(0, 7, 0)
    bits.number(8, number % _GROUP)
    bits.number(2, 0b10 | is_bottom)
    if starts_group:
        bits.unsigned(0)
    bits.number(8, 2 * (number % _GROUP) + is_bottom)
    bits.number(2 if starts_group else 1, 0)
    bits.unsigned(0)
    for row in range(planes[0].shape[0] // 16):
        for column in range(planes[0].shape[1] // 16):
            bits.unsigned(25)
            bits.align()
            for plane, size in zip(planes, (16, 8, 8), strict=True):
                block = plane[row * size : (row + 1) * size, column * size : (column + 1) * size]
                bits.all += np.unpackbits(block.ravel()).tolist()
    return bits.unit(5 if starts_group else 1)


def _fields() -> Iterator[tuple[bytes, bytes]]:
    for number, picture in enumerate(moving_pictures()[:NUM_PICTURES]):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        planes = [
            np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].clip(1, 254)
            for plane in frame.planes
        ]
        top, bottom = (
            _field([plane[first::2] for plane in planes], number=number, is_bottom=bool(first)) for first in (0, 1)
        )
        yield (_parameter_sets() if number % _GROUP == 0 else b"") + top, bottom


def write_field_coded(path: Path, *, is_per_field: bool) -> Path:
    """Write the file, with one packet for each field or for each frame."""
    fields = list(_fields())
    plain = path.with_suffix(".h264")
    plain.write_bytes(b"".join(top + bottom for top, bottom in fields))
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, (top, bottom) in enumerate(fields):
            start = 90000 + number * _TICKS
            parts = [(top, start), (bottom, start + _TICKS // 2)] if is_per_field else [(top + bottom, start)]
            for data, time in parts:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, 90000)
                packet.pts = packet.dts = time
                packet.is_keyframe = number % _GROUP == 0 and time == start
                container.mux(packet)
    return path
