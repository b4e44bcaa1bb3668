"""Images in Parquet shards in the hub's layout (`image: struct{bytes, path}, label`), found where they lie in the file.

A row group of the hub holds 100 images and often a single page: to read one image by Arrow's reader means to read and
unpack 100. So each image's place is worked out once. Of a column that isn't compressed that is a span of the file.
Snappy codes every 64 KiB for itself, so that of a column compressed by it a few blocks give the image. Other codecs
would need the whole page and are refused; JPEG doesn't shrink, so that nothing is lost by writing them anew.
"""

import json
import os
import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from morphmlp.data.datasets.imagenet.found import FoundImage, stem_of
from morphmlp.data.decoding.stored_frames.image_bytes import unpacked
from morphmlp.errors import DecodeError, ManifestError

_BYTES = "image.bytes"
_SNAPPY_BLOCK = 2**16
_LONG = 60
"""From this on a literal's tag gives the number of bytes of its length instead of the length."""
_START = 64
"""Bytes of an image that are searched for; the rest is compared."""


def images_in_parquet(path: Path) -> Iterator[FoundImage]:
    """The images of a shard.

    Raises:
        ManifestError: It's no such file, or compressed in a way that images can't be taken out of one by one.
    """
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{path}: can't be read as Parquet, or is cut short: {' '.join(str(error).split())}"
        ) from None
    with file, path.open("rb") as raw:
        column, rows = _column(file, path), 0
        for number in range(file.num_row_groups):
            chunk = file.metadata.row_group(number).column(column)
            try:
                group = file.read_row_group(number, columns=["image", "label"])
            except (pa.ArrowException, OSError) as error:
                raise ManifestError(f"{path}: row group {number} is damaged: {' '.join(str(error).split())}") from None
            try:
                yield from _of_group(group, _pages(raw, chunk, path), path, first=rows)
            except (UnicodeDecodeError, IndexError):  # a name that is no text, a page header that leads nowhere
                raise ManifestError(f"{path}: row group {number} is damaged; get the file again") from None
            rows += len(group)


def class_names_in(path: Path) -> list[str] | None:
    """The names of the classes in label order, where the hub's library wrote them into the file."""
    try:
        said = json.loads(pq.read_schema(path).metadata[b"huggingface"])
        names = said["info"]["features"]["label"]["names"]
        return list(names.values()) if isinstance(names, dict) else [str(name) for name in names]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def _column(file: pq.ParquetFile, path: Path) -> int:
    columns = [file.schema.column(number) for number in range(len(file.schema))]
    names = [column.path for column in columns]
    if _BYTES not in names or "label" not in names:
        raise ManifestError(
            f"{path}: has the columns {', '.join(file.schema_arrow.names)}; it must have image (bytes, path) and label"
        )
    return names.index(_BYTES)


def _of_group(group: pa.Table, pages: "list[_Page]", path: Path, *, first: int) -> Iterator[FoundImage]:
    cursor = _Cursor(pages)
    for batch in group.to_batches():
        contents = pc.struct_field(batch["image"], "bytes")
        with_names = batch["image"].type.get_field_index("path") >= 0
        names = pc.struct_field(batch["image"], "path").to_pylist() if with_names else [None] * len(batch)
        for row, name, content, label in zip(count(first), names, contents, batch["label"].to_pylist(), strict=False):
            called = name or f"{path.stem}-{row:07d}"
            data = content.as_buffer()
            if data is None or label is None:
                raise ManifestError(
                    f"{path}: {called} has no {'bytes' if data is None else 'label'}; it must have both"
                )
            offset, blocks = cursor.of(data.to_pybytes(), called, path)
            yield FoundImage(stem_of(called)[0], int(label), str(path), len(data), called, offset, blocks)
        first += len(batch)


class _Page:
    """The values of a page, and where the image's bytes in it lie in the file."""

    def __init__(self, values: bytes, start: int, blocks: list[tuple[int, int]] | None, stream: bytes) -> None:
        self.values = values
        self._start, self._blocks, self._stream = start, blocks, stream

    def span(self, offset: int, length: int) -> tuple[int, tuple[int, int, int] | None]:
        """The address of a part of the values: offset, and the Snappy blocks that hold it."""
        if self._blocks is None:
            return self._start + offset, None
        first = max(place for place, (_, begins) in enumerate(self._blocks) if begins <= offset)
        ends = [*self._blocks, (len(self._stream), len(self.values))]
        last = next(place for place, (_, begins) in enumerate(ends) if begins >= offset + length)
        (stored, begins), (stored_end, end) = self._blocks[first], ends[last]
        return offset - begins, (self._start + stored, stored_end - stored, end - begins)

    def check(self, blocks: tuple[int, int, int], offset: int, content: bytes) -> bool:
        """Whether these blocks alone give the image: others than the reference's coder might refer back further."""
        start = blocks[0] - self._start
        try:
            return unpacked(self._stream[start : start + blocks[1]], blocks[2]).startswith(content, offset)
        except DecodeError:
            return False


class _Cursor:
    """Looks up the values of a row group, which lie in their order but for those that a dictionary holds once."""

    def __init__(self, pages: list[_Page]) -> None:
        self._pages, self._page, self._place = pages, 0, 0

    def of(self, content: bytes, name: str, path: Path) -> tuple[int, tuple[int, int, int] | None]:
        start = struct.pack("<I", len(content)) + content[:_START]
        for number, begin in [(self._page, self._place), *((number, 0) for number in range(len(self._pages)))]:
            page, place = self._pages[number], begin
            while (place := page.values.find(start, place)) >= 0:
                place += 4
                if page.values.startswith(content, place):
                    self._page, self._place = number, place + len(content)
                    offset, blocks = page.span(place, len(content))
                    if blocks is not None and not page.check(blocks, offset, content):
                        raise ManifestError(
                            f"{path}: {name}: its Snappy blocks depend on each other; write the file with "
                            'compression="none"'
                        )
                    return offset, blocks
        raise ManifestError(f'{path}: {name} isn\'t stored in one piece; write the file with compression="none"')


def _pages(raw: IO[bytes], chunk: Any, path: Path) -> list[_Page]:
    """The pages of a column chunk with their values."""
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = os.pread(raw.fileno(), chunk.total_compressed_size, start)
    if len(data) < chunk.total_compressed_size:
        raise ManifestError(f"{path}: is cut short; get it again")
    if chunk.compression == "UNCOMPRESSED":
        return [_Page(data, start, None, data)]
    if chunk.compression != "SNAPPY":
        raise ManifestError(
            f"{path}: its images are compressed with {chunk.compression}, which can't be read one image at a time; "
            'write it again with compression="none" (JPEG doesn\'t shrink)'
        )
    pages, place = [], 0
    while place < len(data):
        header, place = _thrift_struct(data, place)
        stored_size = header[3]
        levels = header[8].get(5, 0) + header[8].get(6, 0) if 8 in header else 0
        stream = data[place + levels : place + stored_size]
        if header.get(8, {}).get(7, True) and stream:
            blocks, size = _snappy_blocks(stream)
            values = unpacked(stream[blocks[0][0] :], size)
            pages.append(_Page(values, start + place + levels, blocks, stream))
        else:  # a page that isn't compressed all the same
            pages.append(_Page(stream, start + place + levels, None, stream))
        place += stored_size
    return pages


def _snappy_blocks(stream: bytes) -> tuple[list[tuple[int, int]], int]:
    """Where the 64 KiB blocks of a Snappy stream begin, in it and in what it unpacks to, and the size of that."""
    size, place = _varint(stream, 0)
    blocks, out = [], 0
    while place < len(stream):
        if out % _SNAPPY_BLOCK == 0:
            blocks.append((place, out))
        tag = stream[place]
        kind, value = tag & 3, tag >> 2
        if kind == 0:
            width = max(value - _LONG + 1, 0)
            length = 1 + (int.from_bytes(stream[place + 1 : place + 1 + width], "little") if width else value)
            place += 1 + width + length
        else:
            length = 4 + (value & 7) if kind == 1 else 1 + value
            place += (2, 3, 5)[kind - 1]
        out += length
    return blocks, size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def _thrift_struct(data: bytes, place: int) -> tuple[dict[int, Any], int]:
    """A structure in Thrift's compact form, as page headers are: values by field number."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[place]) != 0:
        place += 1
        if head >> 4:
            number += head >> 4
        else:
            number, place = _zigzag(data, place)
        fields[number], place = _thrift_value(data, place, head & 15)
    return fields, place + 1


def _thrift_value(data: bytes, place: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, place
    if kind == 3:
        return data[place], place + 1
    if kind in (4, 5, 6):
        return _zigzag(data, place)
    if kind == 7:
        return None, place + 8
    if kind == 8:
        length, place = _varint(data, place)
        return data[place : place + length], place + length
    if kind == 12:
        return _thrift_struct(data, place)
    raise ManifestError("a page header of the file holds what none should; get it again")


def _zigzag(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place
