"""The manifest: a Parquet table of labelled videos, the only way a data set enters a run.

Knows columns, checks and files. It doesn't know annotation formats (`annotations`) and opens no video.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from morphmlp.data import columns
from morphmlp.errors import ManifestError

SPLITS = ("train", "val", "test")
_CLASS_NAMES = b"class_names"


@dataclass(frozen=True)
class Manifest:
    """Labelled videos and the names of their classes.

    Attributes:
        table: One row per video, columns `columns.MANIFEST`.
        class_names: Names in label order.
    """

    table: pa.Table
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Videos, those that are missing included."""
        return int(self.table.num_rows)

    def available(self) -> Self:
        """The manifest of the videos whose file was there when it was made."""
        return type(self)(self.table.filter(self.table["available"]), self.class_names)

    def fingerprint(self) -> str:
        """`count:hash` over the sorted video ids with their labels; order, paths and sizes don't matter."""
        ids, labels = self.table["video_id"].to_pylist(), self.table["label"].to_pylist()
        digest = hashlib.sha256()
        for video_id, label in sorted(zip(ids, labels, strict=True)):
            digest.update(f"{video_id}\t{label}\n".encode())
        return f"{len(self)}:{digest.hexdigest()[:12]}"


def manifest_from_rows(
    *,
    video_ids: Sequence[str],
    paths: Sequence[str],
    labels: Sequence[int],
    splits: Sequence[str],
    sizes_bytes: Sequence[int | None],
    class_names: Sequence[str],
) -> Manifest:
    """A manifest from one sequence per column; a size of None marks a missing file."""
    content = {
        "video_id": video_ids,
        "path": paths,
        "label": labels,
        "split": splits,
        "available": [size is not None for size in sizes_bytes],
        "size_bytes": sizes_bytes,
    }
    arrays = [pa.array(content[field.name], field.type) for field in columns.MANIFEST]
    return Manifest(pa.Table.from_arrays(arrays, schema=columns.MANIFEST), tuple(class_names))


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest; under its name there's always a whole file.

    Raises:
        ManifestError: The manifest doesn't hold together, or the file can't be written.
    """
    path = Path(path)
    _check_rows(manifest, path)
    metadata = {_CLASS_NAMES: json.dumps(manifest.class_names).encode()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(manifest.table.replace_schema_metadata(metadata), temporary)
        temporary.replace(path)
    except OSError as error:
        raise ManifestError(f"{path}: can't be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest; its rows come in the order of the video ids.

    Raises:
        ManifestError: No such file, not a manifest, or without a single video that is there.
    """
    path = Path(path)
    table = _read_table(path)
    class_names = _class_names(table, path)
    expected = {field.name: field.type for field in columns.MANIFEST}
    found = {field.name: field.type for field in table.schema}
    faults = [
        *(f"has no column {name}" for name in expected if name not in found),
        *(f"has an unknown column {name}" for name in found if name not in expected),
        *(
            f"column {name} is {found[name]}, not {kind}"
            for name, kind in expected.items()
            if name in found and found[name] != kind
        ),
        *(
            f"column {field.name} has empty cells"
            for field in columns.MANIFEST
            if not field.nullable and field.name in found and table[field.name].null_count
        ),
    ]
    if faults:
        raise ManifestError(f"{path}: is not a manifest: {'; '.join(faults)}; write it with pipelines/prepare.py")
    arrays = [table[field.name].combine_chunks() for field in columns.MANIFEST]
    # In the order of the ids, like the fingerprint: the plan permutes rows, and a manifest that was written again
    # in another order must not change the stream of a run that continues.
    manifest = Manifest(pa.Table.from_arrays(arrays, schema=columns.MANIFEST).sort_by("video_id"), class_names)
    _check_rows(manifest, path)
    return manifest


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The class names, in label order, that a manifest carries.

    Raises:
        ManifestError: No such file, or not a manifest.
    """
    return _class_names(_read_table(Path(path)), Path(path))


def _read_table(path: Path) -> pa.Table:
    try:
        # One plain file: `read_table` would take folder names such as `split=train` for columns.
        with pq.ParquetFile(path) as file:
            return file.read()
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such manifest; make it with `python pipelines/prepare.py k400 --annotations FILE "
            f"--videos DIR --output {path}` (or `demo --output {path.parent}`)"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: is not a Parquet file: {' '.join(str(error).split())}") from None


def _class_names(table: pa.Table, path: Path) -> tuple[str, ...]:
    text = (table.schema.metadata or {}).get(_CLASS_NAMES)
    try:
        names = json.loads(text) if text else None
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ManifestError(f"{path}: is not a manifest: it carries no class names; write it with pipelines/prepare.py")
    return tuple(names)


def _check_rows(manifest: Manifest, path: Path) -> None:
    """Raise for what no run could use: nothing to read, or rows that contradict each other."""
    table, classes = manifest.table, len(manifest.class_names)
    if not len(manifest):
        raise ManifestError(f"{path}: holds no videos")
    faults = []
    if repeated := len(manifest) - pc.count_distinct(table["video_id"]).as_py():
        faults.append(f"{repeated} of {len(manifest)} rows repeat a video_id; each video may stand there once")
    limits = pc.min_max(table["label"]).as_py()
    if limits["min"] < 0 or limits["max"] >= classes:
        faults.append(
            f"labels reach from {limits['min']} to {limits['max']}, its {classes} classes from 0 to {classes - 1}"
        )
    if unknown := sorted(set(pc.unique(table["split"]).to_pylist()) - set(SPLITS)):
        faults.append(f"split is {', '.join(map(repr, unknown))}; it must be one of {', '.join(SPLITS)}")
    if not pc.any(table["available"]).as_py():
        faults.append(f"none of its {len(manifest)} videos is available; write it again where the files are")
    if faults:
        raise ManifestError("\n".join(f"{path}: {fault}" for fault in faults))
