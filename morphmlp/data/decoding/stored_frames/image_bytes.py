"""Where the bytes of an image lie: a file of its own, or a part of a file that holds many (a tar, a Parquet shard).

One read for each image, and nothing kept open: a file that was put in place of another one is seen at once. It must
not know what the bytes mean.
"""

import errno
import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from morphmlp.errors import DecodeError

Labels = Literal["as_stored", "zero_is_ignored"]
"""How a label map stores class k: as k, or as k + 1 with 0 for pixels that have none. 255 is ignored either way."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """The cells of a manifest's `columns.IMAGE`: where an image of a data set lies in its file."""

    member: str | None = None
    """Its name in the file, for messages; None: the file is the image."""
    offset: int | None = None
    """First byte, from the file's start; where `blocks_offset` is set, from the start of what the blocks unpack to."""
    length: int | None = None
    """Bytes of the image."""
    blocks_offset: int | None = None
    """First byte of the Snappy blocks of a Parquet page that hold it, from the file's start."""
    blocks_length: int | None = None
    """Their bytes in the file."""
    blocks_unpacked: int | None = None
    """Bytes that they unpack to."""
    as_stored: bool = False
    """Shown as stored, whatever its EXIF orientation says, and taken wherever Pillow reads it."""
    labels: Labels | None = None
    """It's a label map, which comes as class indices; None: a picture."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self | None:
        """The image of a manifest's row; None for a plain row: a video, or an image without any of these cells."""
        cells = {name: row[name] for name in IMAGE_CELLS if row.get(name) is not None}
        return cls(**cells) if cells else None

    @classmethod
    def of_map(cls, row: Mapping[str, Any]) -> Self | None:
        """The label map of a manifest's row, the file `map_path`; None for a row without one."""
        if row.get("map_path") is None:
            return None
        return cls(labels="zero_is_ignored" if row["map_zero_is_ignored"] else "as_stored")


IMAGE_CELLS = tuple(field.name for field in fields(StoredImage) if field.name != "labels")


def image_bytes(path: str, image: StoredImage | None = None, *, crc32: int | None = None) -> bytes:
    """The encoded bytes of an image.

    Args:
        path: The file that is it, or holds it.
        image: Where it lies in the file; None: all of it.
        crc32: What its bytes must have; None: not checked.

    Raises:
        DecodeError: The file can't be read, ends before them, or they aren't those of the manifest.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a pipe it would wait for a writer
        try:
            data = _read(descriptor, image)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DecodeError(f"can't be read: {(error.strerror or str(error)).lower()}") from None
    if crc32 is not None and (found := zlib.crc32(data)) != crc32:
        raise DecodeError(
            f"has changed since it was verified (CRC-32 of its bytes {found:08x}, was {crc32:08x}); get it again, or "
            "verify the manifest again"
        )
    return data


def _read(descriptor: int, image: StoredImage | None) -> bytes:
    if image is None or image.offset is None:
        status = os.fstat(descriptor)
        if stat.S_ISFIFO(status.st_mode):
            raise OSError(errno.ESPIPE, "it's a pipe")
        return _span(descriptor, 0, status.st_size)
    assert image.length is not None
    if image.blocks_offset is None:
        return _span(descriptor, image.offset, image.length)
    assert image.blocks_length is not None
    assert image.blocks_unpacked is not None
    blocks = _span(descriptor, image.blocks_offset, image.blocks_length)
    return unpacked(blocks, image.blocks_unpacked)[image.offset : image.offset + image.length]


def _span(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:  # a signal, or more than a system call gives at once
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            raise DecodeError(
                f"lies at bytes {offset} to {offset + length} of a file that has {os.fstat(descriptor).st_size}; it "
                "was cut short or replaced: prepare the manifest again"
            )
        data += more
    return data


def unpacked(blocks: bytes, size: int) -> bytes:
    """What whole Snappy blocks, taken out of a longer stream, unpack to.

    Snappy codes every 64 KiB for itself, so that any run of blocks is a stream once the size stands before it.

    Raises:
        DecodeError: They aren't such blocks.
    """
    import pyarrow as pa  # noqa: PLC0415 (the decoders' process starts without it)

    head, rest = bytearray(), size
    while rest >= 128:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    try:
        return bytes(pa.decompress(bytes(head) + blocks, decompressed_size=size, codec="snappy", asbytes=True))
    except (pa.ArrowException, OSError):
        raise DecodeError("its Snappy blocks are damaged; get the file again") from None
