"""The manifest: a Parquet table of labelled videos, the only way a data set enters a run.

Knows columns, checks and files. It doesn't know annotation formats (`annotations`) and opens no video. All work on rows
is done on whole Arrow columns, so that ten million videos take seconds.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from morphmlp.data import columns
from morphmlp.errors import ManifestError
from morphmlp.files import atomic_file

SPLITS = ("train", "val", "test")
HOW_TO_PREPARE = (
    "manifests are written by `python pipelines/prepare.py`: `folder DIR --output DIR` takes your own videos, "
    "`imagenet DIR --output DIR` ImageNet in any form, `ade20k DIR --output DIR` and `segmentation --images DIR "
    "--masks DIR --classes FILE --output DIR` images with label maps, "
    "`k400|ssv1|ssv2 --annotations FILE --videos DIR --output FILE.parquet` annotations, and `demo` or "
    "`standin ssv1|ssv2 --output DIR` makes small videos"
)
"""Ends the message where a manifest isn't there."""
ALWAYS_READ = ("video_id", "label", "available")
"""Columns that a manifest in memory always has."""
_OF_IMAGES = pa.schema([*columns.IMAGE, *columns.SCENE])
_MAP_IDENTITY = ("map_crc32", "map_zero_is_ignored")
_MAY_BE_ABSENT = frozenset((*columns.MANIFEST.names[columns.MANIFEST.get_field_index("mtime") :], *_OF_IMAGES.names))
_FIELDS = {field.name: field for field in (*columns.MANIFEST, *_OF_IMAGES)}
_CLASS_NAMES = b"class_names"
_PREPARED, _TASK, _ITEMS = b"prepared", b"task", b"items"
_OPTIONAL = (_PREPARED, _TASK, _ITEMS)
_ROWS_OF_A_PIECE = 2**18
"""Rows that are sorted, hashed and written at a time: tens of MB."""


@dataclass(frozen=True)
class Manifest:
    """Labelled videos and the names of their classes.

    Attributes:
        table: One row per video, columns `columns.MANIFEST`, and of images `columns.IMAGE` and `columns.SCENE`, or
            those that were asked for; each column in one piece, so that rows are taken from it at once (several pieces
            only beyond the 2 GB that Arrow's strings hold).
        class_names: Names in label order.
        prepared: Where the videos are copies that `prepare.py` made: how, and of what, as JSON; else None.
        task: What the labels are for, as an experiment's `task`.
        items: What a row is: `videos` or `images`.
    """

    table: pa.Table
    class_names: tuple[str, ...]
    prepared: str | None = None
    task: str = "classification"
    items: str = "videos"

    def __len__(self) -> int:
        """Videos, those that are missing included."""
        return int(self.table.num_rows)

    def available(self) -> Self:
        """The manifest of the videos whose file was there when it was made; itself where all were."""
        if pc.all(self.table["available"]).as_py():
            return self
        there = self.table.filter(self.table["available"]).combine_chunks()
        return replace(self, table=there)

    def fingerprint(self) -> str:
        """`count:hash` over the sorted video ids with their labels; order, paths and sizes don't matter.

        Of images with label maps the maps' checksums count too, and what their 0 means.
        """
        videos = self.table.select(["video_id", "label"])
        of_maps = [name for name in _MAP_IDENTITY if name in self.table.column_names]
        if of_maps:
            cells = [pc.fill_null(self.table[name].cast(pa.string()), "") for name in of_maps]
            labels = videos["label"].cast(pa.string())
            videos = videos.set_column(1, "label", pc.binary_join_element_wise(labels, *cells, "\t")).combine_chunks()
        digest = hashlib.sha256()
        for piece in _pieces(videos, _order(videos, ["video_id", "label"])):
            for batch in piece.to_batches():
                endings = pc.binary_join_element_wise(batch["label"].cast(pa.string()), "", "\n")
                digest.update(_text(pc.binary_join_element_wise(batch["video_id"], endings, "\t")))
        return f"{len(self)}:{digest.hexdigest()[:12]}"


def manifest_from_rows(
    *,
    video_ids: Sequence[str],
    paths: Sequence[str],
    labels: Sequence[int],
    splits: Sequence[str],
    sizes_bytes: Sequence[int | None],
    class_names: Sequence[str],
    num_frames: Sequence[int | None] | None = None,
    items: str = "videos",
    task: str = Manifest.task,
    images: Mapping[str, Sequence[object]] | None = None,
) -> Manifest:
    """A manifest from one sequence per column.

    Args:
        video_ids: One name for each video.
        paths: Video files, folders of frames (and a template of their names, if needed), or files of packed frames.
        labels: Class ids.
        splits: One of `SPLITS` each.
        sizes_bytes: None marks a missing file.
        class_names: Names in label order.
        num_frames: Frames of each video where the annotations state them.
        items: What a row is: `videos` or `images`.
        task: What the labels are for.
        images: Of images some of the columns `columns.IMAGE` and `columns.SCENE`.
    """
    sizes = pa.array(sizes_bytes, pa.int64())
    content = {
        "video_id": video_ids,
        "path": paths,
        "label": labels,
        "split": splits,
        "available": sizes.is_valid(),
        "size_bytes": sizes,
        "num_frames": num_frames,
        **(images or {}),
    }
    table = _with_all_columns(content, [*columns.MANIFEST.names, *(images or {})], len(sizes))
    return Manifest(table, tuple(class_names), task=task, items=items)


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest, in the order of the video ids; under its name there's always a complete file.

    Raises:
        ManifestError: The manifest doesn't hold together, or the file can't be written.
    """
    path, table = Path(path), manifest.table
    order = _order(table, ["video_id"])
    _check_rows(table, order, len(manifest.class_names), path)
    metadata = {_CLASS_NAMES: json.dumps(manifest.class_names).encode()}
    metadata |= {_TASK: manifest.task.encode(), _ITEMS: manifest.items.encode()}
    if manifest.prepared is not None:
        metadata[_PREPARED] = manifest.prepared.encode()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_file(path) as unfinished,
            pq.ParquetWriter(unfinished, table.schema.with_metadata(metadata)) as file,
        ):
            for piece in _pieces(table, order):
                file.write_table(piece)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a ManifestError where what is written in the block can't be."""
    try:
        yield
    except OSError as error:
        raise ManifestError(f"{path}: can't be written: {error.strerror or error}") from None


def read_manifest(path: str | Path, *, only: Collection[str] | None = None) -> Manifest:
    """Read and check a manifest; its rows come in the order of the video ids.

    Of `only` some columns those are read besides `ALWAYS_READ` and what identifies label maps; what isn't read isn't
    checked.

    Raises:
        ManifestError: No such file, not a manifest, or without a single video that is there.
    """
    path = Path(path)
    with _opened(path) as file:
        names = [
            *columns.MANIFEST.names,
            # What no row has isn't there: empty columns of ten million videos would take memory.
            *(name for name in _OF_IMAGES.names if name in file.schema_arrow.names),
        ]
        names = [name for name in names if only is None or name in {*ALWAYS_READ, *_MAP_IDENTITY, *only}]
        class_names = _class_names(file, path)
        said = file.schema_arrow.metadata or {}
        _refuse(_schema_faults(file.schema_arrow), path)
        # One column after the other: what is held twice for a moment, as read and in one piece, is one column.
        content = {name: _column(file, name, path) for name in names if name in file.schema_arrow.names}
        rows = file.metadata.num_rows
    _refuse(
        [
            f"column {name} has empty cells"
            for name, cells in content.items()
            if not _FIELDS[name].nullable and cells.null_count
        ],
        path,
    )
    table = _with_all_columns(content, names, rows)
    order = _order(table, ["video_id"])
    _check_rows(table, order, len(class_names), path)
    if order is not None:
        table = pa.concat_tables(_pieces(table, order)).combine_chunks()
    prepared, task, items = (None if (text := said.get(key)) is None else text.decode() for key in _OPTIONAL)
    return Manifest(table, class_names, prepared, task or Manifest.task, items or Manifest.items)


def is_manifest(path: str | Path) -> bool:
    """Whether a Parquet file has a manifest's first columns."""
    try:
        return bool(pq.read_schema(path).names[:2] == columns.MANIFEST.names[:2])
    except (pa.ArrowException, OSError):
        return False


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The class names, in label order, that a manifest carries.

    Raises:
        ManifestError: No such file, or not a manifest.
    """
    with _opened(Path(path)) as file:
        return _class_names(file, Path(path))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        # One plain file: `read_table` would take folder names such as `split=train` for columns.
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such manifest; {HOW_TO_PREPARE}") from None
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from None


def _not_parquet(path: Path, error: Exception) -> ManifestError:
    return ManifestError(f"{path}: is not a Parquet file: {' '.join(str(error).split())}")


def _class_names(file: pq.ParquetFile, path: Path) -> tuple[str, ...]:
    text = (file.schema_arrow.metadata or {}).get(_CLASS_NAMES)
    try:
        names = json.loads(text) if text else None
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ManifestError(f"{path}: is not a manifest: it carries no class names; write it with pipelines/prepare.py")
    return tuple(names)


def _schema_faults(schema: pa.Schema) -> list[str]:
    expected = {name: field.type for name, field in _FIELDS.items()}
    found = {field.name: field.type for field in schema}
    return [
        *(f"has no column {name}" for name in expected if name not in found and name not in _MAY_BE_ABSENT),
        *(f"has an unknown column {name}" for name in found if name not in expected),
        *(
            f"column {name} is {found[name]}, not {kind}"
            for name, kind in expected.items()
            if name in found and found[name] != kind
        ),
    ]


def _refuse(faults: Sequence[str], path: Path) -> None:
    if faults:
        raise ManifestError(f"{path}: is not a manifest: {'; '.join(faults)}; write it with pipelines/prepare.py")


def _column(file: pq.ParquetFile, name: str, path: Path) -> pa.ChunkedArray:
    try:
        return file.read(columns=[name]).combine_chunks()[name]
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from None


def _with_all_columns(content: dict[str, object], names: Sequence[str], rows: int) -> pa.Table:
    """The named columns in their types; one that has no content is null in every row."""
    schema = pa.schema([_FIELDS[name] for name in names])
    arrays = []
    for field in schema:
        cells = content.get(field.name)
        if cells is None:
            arrays.append(pa.nulls(rows, field.type))
        else:
            arrays.append(cells if isinstance(cells, pa.Array | pa.ChunkedArray) else pa.array(cells, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _order(table: pa.Table, names: Sequence[str]) -> pa.Array | None:
    """Row numbers in ascending order of the named columns, strings by code points; None where the ids ascend already.

    Manifests lie on disk in this order and are read in it: the plan permutes rows, and a manifest that was made again
    in another order must not change the stream of a run that continues.
    """
    if _ascends(table["video_id"]):
        return None
    return pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names])


def _ascends(ids: pa.ChunkedArray) -> bool:
    """Whether each id is greater than the one before it: in order, and none twice."""
    # `all` of nothing is true.
    return bool(pc.all(pc.less(ids.slice(0, max(len(ids) - 1, 0)), ids.slice(1))).as_py())


def _pieces(table: pa.Table, order: pa.Array | None) -> Iterator[pa.Table]:
    """All rows in an order, a piece at a time; rows of their own order are not copied."""
    table = table if order is None else table.combine_chunks()
    for start in range(0, table.num_rows, _ROWS_OF_A_PIECE):
        if order is None:
            yield table.slice(start, _ROWS_OF_A_PIECE)
        else:
            yield table.take(order.slice(start, _ROWS_OF_A_PIECE))


def _text(lines: pa.StringArray) -> memoryview:
    """The bytes of all strings of an array that a kernel has just made, one after the other."""
    _, offsets, data = lines.buffers()
    ends = memoryview(offsets).cast("i")
    return memoryview(data)[ends[lines.offset] : ends[lines.offset + len(lines)]]


def _check_rows(table: pa.Table, order: pa.Array | None, classes: int, path: Path) -> None:
    """Raise for what no run could use: nothing to read, or rows that contradict each other."""
    if not table.num_rows:
        raise ManifestError(f"{path}: holds no videos")
    faults = []
    if order is not None:
        ids = table["video_id"].take(order)
        repeated = pc.sum(pc.equal(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py()
    if order is not None and repeated:
        faults.append(f"{repeated} of {len(ids)} rows repeat a video_id; each video may stand there once")
    limits = pc.min_max(table["label"]).as_py()
    if limits["min"] < 0 or limits["max"] >= classes:
        faults.append(
            f"labels reach from {limits['min']} to {limits['max']}, its {classes} classes from 0 to {classes - 1}"
        )
    splits = pc.unique(table["split"]).to_pylist() if "split" in table.column_names else []
    if unknown := sorted(set(splits) - set(SPLITS)):
        faults.append(f"split is {', '.join(map(repr, unknown))}; it must be one of {', '.join(SPLITS)}")
    if not pc.any(table["available"]).as_py():
        faults.append(f"none of its {table.num_rows} videos is available; write it again where the files are")
    if faults:
        raise ManifestError("\n".join(f"{path}: {fault}" for fault in faults))
