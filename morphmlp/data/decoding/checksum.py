"""The CRC-32 of a video file: tells bytes that changed since they were verified, which a codec often can't."""

import zlib
from pathlib import Path

_PIECE = 2**20


def file_crc32(path: str) -> int:
    """The CRC-32 of a file's bytes.

    Raises:
        OSError: It can't be read.
    """
    crc = 0
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc
