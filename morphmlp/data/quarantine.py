"""Videos that couldn't be used, each with its reason: counted, listed, never replaced by another video."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from morphmlp.data.columns import QUARANTINE
from morphmlp.errors import QuarantineLimitError


@dataclass(frozen=True, kw_only=True)
class BrokenVideo:
    """One video that couldn't be used."""

    video_id: str
    path: str
    stage: str
    """Where it was met: `train`, `val` or `test`."""
    error: str
    """Class of the error."""
    message: str
    decoder: str
    decoder_version: str


class Quarantine:
    """The broken videos of a run, each once per stage, in the order in which they were met."""

    def __init__(self) -> None:
        self._videos: dict[tuple[str, str], BrokenVideo] = {}

    def add(self, videos: Iterable[BrokenVideo]) -> None:
        """Take in videos; one that is known already keeps its first reason."""
        for video in videos:
            self._videos.setdefault((video.stage, video.video_id), video)

    def replace(self, stage: str, videos: Iterable[BrokenVideo]) -> None:
        """Put what a whole new pass over a stage found in the place of what earlier ones did."""
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
        broken = self.videos(stage)
        if len(broken) > limit * num_videos:
            raise QuarantineLimitError(limit_message(broken, num_videos=num_videos, limit=limit))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The quarantine that an earlier part of the run left; empty where there is none."""
        quarantine = cls()
        if path.exists():
            rows = pq.read_table(path, schema=QUARANTINE).drop_columns(["run"]).to_pylist()
            quarantine.add(BrokenVideo(**row) for row in rows)
        return quarantine

    def write(self, path: Path, *, run: str) -> None:
        """Write the table (columns: `morphmlp.data.columns.QUARANTINE`)."""
        rows = [{**asdict(video), "run": run} for video in self._videos.values()]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a run that continues reads it.
        unfinished = path.with_name(f".{path.name}.unfinished")
        pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE), unfinished)
        unfinished.replace(path)


def limit_message(broken: Sequence[BrokenVideo], *, num_videos: int, limit: float) -> str:
    """One line: how many, where to look, and which field to change."""
    first = broken[0]
    return (
        f"{len(broken)} of {num_videos} {first.stage} videos can't be used, more than ingest.max_quarantined_share "
        f"{limit:g} allows; the first: {first.path}: {first.message}"
    )
