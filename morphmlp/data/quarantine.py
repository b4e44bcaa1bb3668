"""Videos that couldn't be used, each with its reason: counted, listed, never replaced by another video."""

import datetime
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from morphmlp.config.operation import IngestConfig
from morphmlp.data.columns import QUARANTINE
from morphmlp.data.decoding.stored_frames.frame_names import stored_path
from morphmlp.errors import QuarantineLimitError
from morphmlp.files import atomic_file

_LEAST_BY_CHANCE = 10
"""So many more broken videos than the limit leads to expect are no reason to stop while most are still to come."""


@dataclass(frozen=True, kw_only=True)
class BrokenVideo:
    """One video that couldn't be used."""

    video_id: str
    path: str
    size_bytes: int | None
    """Size of the file as it was; None where there was none."""
    mtime: datetime.datetime | None
    """When the file as it was had been changed; None where there was none."""
    stage: str
    """Where it was met: `train`, `val`, `test` or `verify`."""
    error: str
    """Class of the error."""
    message: str
    decoder: str
    decoder_version: str
    first_run: str = ""
    """The run that met it first; empty until the table is written."""

    @property
    def file(self) -> tuple[str, int | None, datetime.datetime | None]:
        """What distinguishes this state of the file from one that was fixed."""
        return self.video_id, self.size_bytes, self.mtime


_BROKEN = TypeAdapter(BrokenVideo)


def broken_to_plain(video: BrokenVideo) -> dict[str, str | int | None]:
    """The fields as plain values that JSON takes."""
    plain: dict[str, str | int | None] = _BROKEN.dump_python(video, mode="json")
    return plain


def broken_from_plain(fields: Mapping[str, str | int | None]) -> BrokenVideo:
    """The video of `broken_to_plain`'s fields."""
    return _BROKEN.validate_python(fields)


class Quarantine:
    """The broken videos of a run, each once per stage, in the order in which they were met."""

    def __init__(self) -> None:
        self._videos: dict[tuple[str, str], BrokenVideo] = {}

    def add(self, videos: Iterable[BrokenVideo]) -> None:
        """Take in videos; one that is known already keeps its first reason."""
        for video in videos:
            self._videos.setdefault((video.stage, video.video_id), video)

    def replace(self, stage: str, videos: Iterable[BrokenVideo]) -> None:
        """Put what a complete new pass over a stage found in the place of what earlier ones did."""
        self._videos = {key: video for key, video in self._videos.items() if key[0] != stage}
        self.add(videos)

    def videos(self, stage: str | None = None) -> list[BrokenVideo]:
        """All of them, or those of one stage."""
        return [video for video in self._videos.values() if stage in (None, video.stage)]

    def check_share(self, *, stage: str, num_videos: int, limit: float) -> None:
        """Stop a run whose data are worse than its configuration allows.

        Raises:
            QuarantineLimitError: More than `limit` of the stage's videos are broken.
        """
        excess = too_many_broken(stage, len(self.videos(stage)), num_videos=num_videos, limit=limit)
        if excess is not None:
            raise self.limit_error(stage, excess, limit=limit)

    def limit_error(self, stage: str, excess: str, *, limit: float) -> QuarantineLimitError:
        """The error that ends a run, in one line: how many, where to look, and which field to change."""
        first = next(iter(self.videos(stage)), None)
        if first is not None and limit == 0:
            return QuarantineLimitError(
                f"{stage} video {first.video_id} can't be used ({first.path}: {first.message}); nothing else may be "
                "left out: fix it, or allow it with ingest.on_broken and ingest.max_quarantined_share"
            )
        named = "" if first is None else f"; the first: {first.path}: {first.message}"
        return QuarantineLimitError(
            f"{excess} can't be used, more than ingest.max_quarantined_share {limit:g} allows{named}; fix them, or "
            "raise that share"
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """The quarantine that an earlier part of the run left; empty where there is none."""
        quarantine = cls()
        if path.exists():
            quarantine.add(BrokenVideo(**row) for row in pq.read_table(path, schema=QUARANTINE).to_pylist())
        return quarantine

    def write(self, path: Path, *, run: str, earlier: Iterable[BrokenVideo] = ()) -> None:
        """Write the table (columns: `morphmlp.data.columns.QUARANTINE`).

        Videos get `run` as the first that met them, unless `earlier` entries know the same state of their file.
        """
        known = {video.file: video.first_run for video in earlier}
        for key, video in self._videos.items():
            if not video.first_run:
                self._videos[key] = replace(video, first_run=known.get(video.file, run))
        rows = [asdict(video) for video in self._videos.values()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as unfinished:  # a run that continues reads it
            pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE), unfinished)


def file_state(path: str) -> tuple[int | None, datetime.datetime | None]:
    """Size and time of change of a video's file or folder as it is now; None where there is none."""
    try:
        status = os.stat(stored_path(path))  # noqa: PTH116 (a Path each costs more, and there are millions)
    except OSError:
        return None, None
    return status.st_size, datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC)


def broken_limit(ingest: IngestConfig) -> float:
    """The share of a split's videos that may be broken: none at all with `on_broken: fail`."""
    return 0.0 if ingest.on_broken == "fail" else ingest.max_quarantined_share


def earlier_broken(manifest: str | Path) -> list[BrokenVideo]:
    """What `prepare.py verify` found broken among a manifest's videos; nothing where it wasn't run."""
    return Quarantine.read(Path(manifest).with_suffix(".quarantine.parquet")).videos()


def too_many_broken(stage: str, broken: int, *, num_videos: int, limit: float, drawn: int | None = None) -> str | None:
    """How many of a split's videos are broken, in words, where that is reason enough to stop; else None.

    The share over the whole split decides. Of videos that were drawn at random it's known long before the last of them:
    a split within its limit has next to never so many more broken ones among the first as to be stopped here.

    `drawn` says how many were looked at so far, where their order is a random one.
    """
    if broken > limit * num_videos:
        return f"{broken} of {num_videos} {stage} videos"
    if drawn is None:
        return None
    expected = limit * drawn
    if broken > expected + 5 * math.sqrt(expected) + _LEAST_BY_CHANCE:  # five standard deviations
        return f"{broken} of the first {drawn} of {num_videos} {stage} videos"
    return None
