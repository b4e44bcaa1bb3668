"""What a test found of every video, kept in a folder as it arrives, so that a test continues where it stopped.

The folder holds `store.json` (the header), Parquet parts, each complete under its name or not there, and
`broken.jsonl`, the videos that couldn't be scored. It may be shared between machines; one command at a time adds to it.
"""

import fcntl
import json
import os
import re
import socket
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from morphmlp.data.columns import PREDICTIONS, SCORED, SEGMENTED
from morphmlp.data.quarantine import BrokenVideo, broken_from_plain, broken_to_plain
from morphmlp.errors import RunInUseError, ScoreStoreError
from morphmlp.evaluation.score_header import ScoreHeader, read_header
from morphmlp.files import UNFINISHED, FilePath, atomic_write
from morphmlp.line_file import LineFile, read_json_lines, remove_truncated_line

_PART = re.compile(r"scores-(\d{8})-(\d{8})-([0-9a-f]{8})\.parquet")
"""First and last batch, and the CRC-32 of the file: Parquet's own checksums leave out the footer."""
_MERGED_BATCHES, _MERGED_BYTES = 64, 64 << 20
"""So many batches, or so large, become one part."""
_ROWS_AT_ONCE = 2048
"""Rows that are put in order at a time: 100 MB of 30 views and 400 classes."""
_PARTS_AT_ONCE = 8
_VIEWS = "view_logits"
_STORE = b"morphmlp.store"
_ROW_SCHEMAS = {"classification": PREDICTIONS, "segmentation": SEGMENTED}


class ScoreStore:
    """The scores of one test in a folder; `create` adds to them, `open` only reads.

    Rows have the columns of the task's table, `PREDICTIONS` or `SEGMENTED` of `morphmlp.data.columns` or those of a
    task from outside, and in the parts also those of `SCORED`.
    """

    root: Path
    header_file = FilePath("{root}/store.json")
    broken_file = FilePath("{root}/broken.jsonl")
    lock_file = FilePath("{root}/lock")

    def __init__(self, root: Path, header: ScoreHeader) -> None:
        """Use `open` or `create`."""
        self.root, self.header = root, header
        self._ids: set[str] | None = None
        self._checked: set[Path] = set()

    @classmethod
    def open(cls, root: str | Path) -> Self:
        """A store that is there.

        Raises:
            ScoreStoreError: None is there, or its header is damaged.
        """
        root = Path(root)
        return cls(root, read_header(root))

    @classmethod
    @contextmanager
    def create(cls, root: str | Path, header: ScoreHeader, *, or_anew: bool = False) -> Iterator[Self]:
        """A store to add to, which no other command may then: a new one, or one that holds scores of the same.

        With `or_anew` scores of something else are removed.

        Raises:
            ScoreStoreError: The folder holds scores of something else, which is named, or other files.
            RunInUseError: Another command adds to it.
        """
        root = Path(root)
        if not (root / "store.json").exists() and root.exists() and _foreign_files(root):
            raise ScoreStoreError(f"{root}: holds other files ({_foreign_files(root)[0]}, ...) and no score store")
        root.mkdir(parents=True, exist_ok=True)
        store = cls(root, header)
        with _locked(store.lock_file):
            if store.header_file.exists():
                store.header = read_header(root)
                differences = store.header.differences(header)
                if differences and or_anew:
                    store._remove_scores()
                    store.header = header
                    atomic_write(store.header_file, json.dumps(asdict(header), indent=1))
                elif differences:
                    raise ScoreStoreError(
                        f"{root}: holds scores of something else: {'; '.join(differences)}; choose another folder"
                    )
            else:
                atomic_write(store.header_file, json.dumps(asdict(header), indent=1))
            store._clean_up()
            yield store

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the parts; before there are any, as the task has it."""
        parts = self._parts()
        if not parts:
            return pa.schema([*_ROW_SCHEMAS[self.header.task], *SCORED])
        try:
            return pq.read_schema(parts[0][2]).remove_metadata()
        except (pa.ArrowException, OSError) as error:
            raise _damaged(parts[0][2], error) from None

    @property
    def columns(self) -> list[str]:
        """The task's."""
        return [name for name in self.schema.names if name not in SCORED.names]

    def append(self, scored: pa.Table, broken: Sequence[BrokenVideo] = ()) -> None:
        """Add videos: they are on the disk when this returns. The first table decides on the columns of all.

        Raises:
            ScoreStoreError: A video is there already.
        """
        ids = scored["video_id"].to_pylist()
        if twice := [name for name in ids if name in self.ids()]:
            raise ScoreStoreError(f"{self.root}: {len(twice)} videos were scored twice ({', '.join(twice[:3])})")
        if ids:
            parts = self._parts()
            if not parts:
                self.schema = scored.schema.remove_metadata()
            number = parts[-1][1] + 1 if parts else 0
            self._write([scored.select(self.schema.names)], number, number)
            self.ids().update(ids)
            self._merge()
        lines = LineFile(self.broken_file)
        for video in broken:
            lines.append(json.dumps(broken_to_plain(video)))

    def ids(self) -> set[str]:
        """Ids of the videos that are scored.

        Raises:
            ScoreStoreError: A part is damaged.
        """
        if self._ids is None:
            tables = self.parts(["video_id"])
            self._ids = {name for table in tables for name in table["video_id"].to_pylist()}
        return self._ids

    def broken(self) -> list[BrokenVideo]:
        """Videos that couldn't be scored, each with its last reason, in the order of their ids."""
        lines = read_json_lines(self.broken_file)
        found = {video.video_id: video for video in map(broken_from_plain, lines)}
        return [found[name] for name in sorted(found.keys() - self.ids())]

    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(path.stat().st_size for *_, path in self._parts())

    def parts(self, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
        """All rows, a part of some 64 MB at a time, in the order in which they came; all columns, or these of them.

        Raises:
            ScoreStoreError: A part is damaged, or of another store.
        """
        for _, _, path in self._parts():
            yield self._read(path, columns)

    def read(self, columns: Collection[str] | None = None) -> pa.Table:
        """One row per scored video in the order of the manifest, which is that of the ids; the task's columns or these.

        Raises:
            ScoreStoreError: A part is damaged, or of another store.
        """
        names = list(columns if columns is not None else self.columns)
        empty = pa.schema([self.schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *self.in_order(names)])

    def in_order(self, columns: Collection[str]) -> Iterator[pa.Table]:
        """The rows of `read`, some at a time, with a few parts in memory: rows came nearly in this order.

        Raises:
            ScoreStoreError: A part is damaged, or of another store.
        """
        names, paths = list(columns), [path for *_, path in self._parts()]
        part_ids = [self._read(path, ["video_id"]) for path in paths]
        if not paths:
            return
        order = _first_of_each(pa.concat_tables(part_ids)["video_id"])
        starts = np.cumsum([0, *(table.num_rows for table in part_ids)])
        part_of = lru_cache(_PARTS_AT_ONCE)(lambda part: self._read(paths[part], names))
        for begin in range(0, len(order), _ROWS_AT_ONCE):
            rows = order[begin : begin + _ROWS_AT_ONCE]
            parts = np.searchsorted(starts, rows, side="right") - 1
            pieces = [part_of(part).take(rows[parts == part] - starts[part]) for part in np.unique(parts)]
            place = np.argsort(np.argsort(parts, kind="stable"), kind="stable")
            # No column is ever in one piece as a whole: the logits of many views are more than Arrow's lists hold.
            yield pa.concat_tables(pieces).combine_chunks().take(place)

    def in_order_without_views(self) -> Iterator[pa.Table]:
        """The rows of `read`, some at a time, in which the logits of each view are an empty list: the size of the rest.

        Raises:
            ScoreStoreError: A part is damaged, or of another store.
        """
        names, views = self.columns, self.header.num_clips * self.header.num_crops
        for table in self.in_order([name for name in names if name != _VIEWS]):
            if _VIEWS not in names:
                yield table
                continue
            field = self.schema.field(_VIEWS)
            each = pa.array([[[]] * views], field.type).take(pa.array(np.zeros(table.num_rows, np.int64)))
            yield table.append_column(field, each).select(names)

    def read_without_views(self) -> pa.Table:
        """All rows of `in_order_without_views` in one table."""
        empty = pa.schema([self.schema.field(name) for name in self.columns]).empty_table()
        return pa.concat_tables([empty, *self.in_order_without_views()])

    def _parts(self) -> list[tuple[int, int, Path]]:
        """First and last batch and file of each part; without those that are also in a larger one."""
        names = os.listdir(self.root)  # noqa: PTH208 (there may be hundreds: their names are enough)
        matches = [match for name in names if (match := _PART.fullmatch(name))]
        found = [(int(match[1]), int(match[2]), self.root / match[0]) for match in matches]
        found.sort(key=lambda part: (part[0], -part[1]))
        kept: list[tuple[int, int, Path]] = []
        for part in found:
            if not kept or part[0] > kept[-1][1]:
                kept.append(part)
        return kept

    def _read(self, path: Path, columns: Collection[str] | None) -> pa.Table:
        names = list(columns) if columns is not None else self.schema.names
        try:
            if path not in self._checked:
                _check_crc32(path)
                self._checked.add(path)
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                table = file.read(columns=names).select(names)
        except FileNotFoundError:
            raise ScoreStoreError(
                f"{path}: was put into a larger part while it was read: another command adds to this store; wait for "
                "its end"
            ) from None
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _damaged(path, error) from None
        if (schema.metadata or {}).get(_STORE) != self.header.digest.encode():
            raise ScoreStoreError(f"{path}: belongs to another store than {self.header_file}; remove it")
        return table.replace_schema_metadata(None)

    def _write(self, tables: Sequence[pa.Table], first: int, last: int) -> None:
        schema = self.schema.with_metadata({_STORE: self.header.digest})
        whole = pa.concat_tables(tables).cast(schema)
        content = pa.BufferOutputStream()
        pq.write_table(
            whole,
            content,
            compression="zstd",
            use_dictionary=False,
            # The first bytes of neighbouring logits resemble each other.
            use_byte_stream_split=[path for path in _leaves(schema) if "logits" in path],
        )
        written = content.getvalue().to_pybytes()
        atomic_write(self.root / f"scores-{first:08d}-{last:08d}-{zlib.crc32(written):08x}.parquet", written)

    def _merge(self) -> None:
        """Put the last batches together where they are many: hundreds of thousands of files would be slow to read."""
        single = [part for part in self._parts() if part[0] == part[1]]
        size = sum(path.stat().st_size for *_, path in single)
        if len(single) < 2 or (len(single) < _MERGED_BATCHES and size < _MERGED_BYTES):
            return
        self._write([self._read(path, None) for *_, path in single], single[0][0], single[-1][1])
        for *_, path in single:
            path.unlink(missing_ok=True)

    def _remove_scores(self) -> None:
        for path in [*self.root.glob("scores-*.parquet"), self.broken_file]:
            path.unlink(missing_ok=True)

    def _clean_up(self) -> None:
        """Remove what a killed command left: batches that are in a larger part too, and unfinished files."""
        kept = {path for *_, path in self._parts()}
        for path in self.root.iterdir():
            if path.name.endswith(UNFINISHED) or (_PART.fullmatch(path.name) and path not in kept):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            remove_truncated_line(self.broken_file)


def _damaged(path: Path, error: Exception) -> ScoreStoreError:
    return ScoreStoreError(
        f"{path}: is damaged ({' '.join(str(error).split())}); remove it, and give the command that wrote it again: it "
        "scores these videos anew"
    )


def _first_of_each(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Row numbers in the order of the ids, by code points; of equal ids the first."""
    order = pc.sort_indices(ids)
    ordered = ids.take(order).combine_chunks()
    differs = pc.not_equal(ordered.slice(1), ordered.slice(0, max(len(ordered) - 1, 0)))
    first = np.concatenate([[True] * bool(len(ids)), differs.to_numpy(zero_copy_only=False).astype(bool)])
    rows: npt.NDArray[np.int64] = order.to_numpy().astype(np.int64)[first]
    return rows


def _check_crc32(path: Path) -> None:
    """Raise an OSError where a part isn't as it was written."""
    with path.open("rb") as file:
        found = 0
        while piece := file.read(1 << 22):
            found = zlib.crc32(piece, found)
    match = _PART.fullmatch(path.name)
    if match is None or f"{found:08x}" != match[3]:
        raise OSError(f"CRC-32 {found:08x}, not that of its name")


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's paths of the columns that hold floats."""
    return [f"{field.name}{'.list.element' * _depth(field.type)}" for field in schema if _depth(field.type)]


def _depth(kind: pa.DataType) -> int:
    return 1 + _depth(kind.value_type) if pa.types.is_list(kind) else 0


def _foreign_files(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root) if name != "lock" and not name.endswith(UNFINISHED))  # noqa: PTH208


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other commands off while this one adds; the operating system ends the lock with the process."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunInUseError(
                f"{path.parent}: another command adds scores there ({file.read().strip()}); wait for its end, or "
                "choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
