"""What is done already: the results of finished videos, kept so that no end of the process loses them.

Results lie as small Parquet parts in a work folder next to the output until a job is through, then as one table. A
video counts as finished while its file, and what was made of it, are as they were.
"""

import fcntl
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue

from morphmlp.data.columns import TIME
from morphmlp.data.decoding.stored_frames.frame_names import stored_path
from morphmlp.data.manifest import writing
from morphmlp.errors import ManifestError
from morphmlp.files import UNFINISHED, atomic_file

RESULT = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("mtime", TIME),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("output", pa.string()),
        pa.field("output_bytes", pa.int64()),
    ]
)
"""First columns of every job's results: the video's file as it was (nulls where there was none), the class and text of
the error (empty when all is well), and the file that was made of it, where the job makes one."""

_SETTINGS = b"settings"
_STAT_THREADS = 16
_STAT_CHUNK = 2048
_CHECKED_AT_ONCE = 2**18
_CHECK_COLUMNS = ["video_id", "path", "size_bytes", "mtime", "error", "output", "output_bytes"]


def stored_bytes(path: str) -> int:
    """Size of a file, or of all files right in a folder."""
    place = Path(stored_path(path))
    if not place.is_dir():
        return place.stat().st_size
    return sum(entry.stat().st_size for entry in place.iterdir() if entry.is_file())


class WorkFolder:
    """Parts of a job that isn't through yet, and the table of an earlier one that is.

    One process at a time may work in the folder. The table, all results of a finished job, need not exist. The schema
    begins with `RESULT`; results of other settings don't count.
    """

    def __init__(self, folder: Path, *, table: Path, schema: pa.Schema, settings: Mapping[str, JsonValue]) -> None:
        self._folder, self._table = folder, table
        self._schema = schema.with_metadata({_SETTINGS: json.dumps(settings, sort_keys=True).encode()})
        self._small: list[Path] = []

    @contextmanager
    def opened(self, *, again: bool = False) -> Iterator[None]:
        """Hold the folder while a job runs.

        With `again` what an earlier job that is through has found is forgotten; an unfinished one continues.

        Raises:
            ManifestError: Another process is at work there, or it can't be written.
        """
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ManifestError(
                    f"{self._folder}: another process is at work there; wait for it, or end it"
                ) from None
            for unfinished in self._folder.glob(f".*{UNFINISHED}"):
                unfinished.unlink()
            if again and not self._parts():
                self._table.unlink(missing_ok=True)
            yield

    def append(self, results: Sequence[pa.Table]) -> None:
        """Keep results for good."""
        if results:
            self._small.append(self._write_part(results))

    def compact(self) -> None:
        """Make one part of those that were appended since the last time."""
        if len(self._small) > 1:
            small, self._small = self._small, []
            # Newest first, as all results are read.
            self._write_part([pq.read_table(path) for path in reversed(small)])
            for path in small:
                path.unlink()

    def finished(self, videos: pa.Table) -> npt.NDArray[np.bool_]:
        """Which of these videos (columns `video_id`, `path`) need not be done again.

        Files are looked at in threads: on a network file system each question waits for its answer.
        """
        known = self._read(_CHECK_COLUMNS)
        places = _places(videos["video_id"], known["video_id"])
        done = np.zeros(videos.num_rows, dtype=bool)
        candidates = np.flatnonzero(places >= 0)
        with ThreadPoolExecutor(_STAT_THREADS) as threads:
            for start in range(0, len(candidates), _CHECKED_AT_ONCE):
                rows = candidates[start : start + _CHECKED_AT_ONCE]
                paths = videos["path"].take(pa.array(rows))
                done[rows] = _still_right(known.take(pa.array(places[rows])), paths, threads)
        return done

    def results(self, video_ids: pa.ChunkedArray) -> pa.Table:
        """The newest result of each of these videos, in their order.

        Raises:
            RuntimeError: One has none; a job must not lose a video in silence.
        """
        known = self._read(self._schema.names)
        places = _places(video_ids, known["video_id"])
        if (missing := int((places < 0).sum())) > 0:
            raise RuntimeError(f"{self._folder}: {missing} of {len(places)} videos have no result")
        return known.take(pa.array(places)).replace_schema_metadata(self._schema.metadata)

    def close(self, results: pa.Table) -> None:
        """The job is through: keep its results as one table, and no parts."""
        _write_parquet(results, self._table)
        shutil.rmtree(self._folder)

    def _write_part(self, tables: Sequence[pa.Table]) -> Path:
        # In the order of the names the parts are in the order of time.
        number = 1 + max((int(path.stem.split("-")[1]) for path in self._parts()), default=0)
        path = self._folder / f"part-{number:08d}-{uuid.uuid4().hex[:8]}.parquet"
        table = pa.concat_tables([table.replace_schema_metadata().cast(self._schema) for table in tables])
        _write_parquet(table.replace_schema_metadata(self._schema.metadata), path)
        return path

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def _read(self, names: list[str]) -> pa.Table:
        """Results of these settings, newest first; names must hold `error`.

        What an earlier job couldn't do is tried again by the next one: that's what it is started for.
        """
        tables = [pa.schema([self._schema.field(name) for name in names]).empty_table()]
        for path in [*reversed(self._parts()), self._table]:
            if path.exists():
                with pq.ParquetFile(path) as file:
                    if (file.schema_arrow.metadata or {}).get(_SETTINGS) == self._schema.metadata[_SETTINGS]:
                        table = file.read(names).replace_schema_metadata().select(names)
                        tables.append(table if path != self._table else table.filter(pc.equal(table["error"], "")))
        return pa.concat_tables(tables)


def _write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file, complete or not at all."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as unfinished:
            pq.write_table(table, unfinished)


def _places(wanted: pa.ChunkedArray, known: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The first place of each wanted value among the known ones; -1 where there is none."""
    found = pc.index_in(wanted, value_set=known)
    places: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return places


def _still_right(records: pa.Table, paths: pa.ChunkedArray, threads: ThreadPoolExecutor) -> npt.NDArray[np.bool_]:
    """Whether results are those of the files at `paths` as they are now, and what was made of those is still there."""
    sizes, times = _states(paths, threads)
    same: npt.NDArray[np.bool_] = pc.equal(records["path"], paths).to_numpy().astype(bool)
    same &= sizes == _numbers(records["size_bytes"])
    same &= times == _numbers(records["mtime"].cast(pa.int64()))
    outputs = records["output"]
    if outputs.null_count < len(outputs):
        sizes, _ = _states(outputs, threads)
        same &= outputs.is_null().to_numpy() | (sizes == _numbers(records["output_bytes"]))
    return same


def _states(paths: pa.ChunkedArray, threads: ThreadPoolExecutor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sizes and times of change (microseconds) of files; -1 where there is none."""
    pieces = [paths.slice(start, _STAT_CHUNK) for start in range(0, len(paths), _STAT_CHUNK)]
    states = np.concatenate(list(threads.map(_piece_states, pieces)))
    return states[:, 0], states[:, 1]


def _piece_states(paths: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    states = np.full((len(paths), 2), -1, dtype=np.int64)
    place_of: dict[str, int] = {}
    for place, path in enumerate(paths.to_pylist()):
        with suppress(OSError):
            if path in place_of:  # a file that holds many images
                states[place] = states[place_of[path]]
            elif path is not None:
                place_of[path] = place
                status = os.stat(stored_path(path))  # noqa: PTH116 (a Path each costs more, and there are millions)
                fraction, seconds = math.modf(status.st_mtime)  # rounded as `datetime` does it
                states[place] = status.st_size, int(seconds) * 1_000_000 + round(fraction * 1e6)
    return states


def _numbers(cells: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = pc.fill_null(cells, -1).to_numpy()
    return numbers
