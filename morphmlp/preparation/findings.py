"""Which videos of a data set can't be used, and why: counted, listed, put in words.

Works on the results of any job over a data set.
"""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from morphmlp.data import columns
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.manifest import Manifest, writing
from morphmlp.data.quarantine import BrokenVideo, Quarantine

FACTS = tuple(columns.MANIFEST.field(name) for name in ("num_frames", "fps", "width", "height", "codec", "duration_s"))
"""Columns for what a video holds, in results as in manifests."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job over a data set."""

    text: str
    """The closing table."""
    videos: int
    broken: int


def facts_of(info: VideoInfo) -> dict[str, object]:
    """The cells of `FACTS`."""
    seen = {field.name: getattr(info, field.name) for field in FACTS if field.name != "duration_s"}
    return seen | {"duration_s": info.num_frames / info.fps}


def with_columns(manifest: Manifest, new: Mapping[str, pa.ChunkedArray]) -> Manifest:
    """The manifest with these columns in place of its own."""
    table = manifest.table
    for name, cells in new.items():
        field = columns.MANIFEST.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, cells.cast(field.type).combine_chunks())
    return replace(manifest, table=table)


def write_quarantine(
    path: Path, found: pa.Table, *, stage: str, decoder: str, version: str, now: datetime.datetime | None = None
) -> None:
    """List the videos that can't be used, as `columns.QUARANTINE`.

    A video that was listed before keeps its `first_run` while its file is what it was; what other stages have found
    stays. The rows begin with `morphmlp.preparation.work_folder.RESULT`; `now` names the run, and the version is that
    of the decoder's library.

    Raises:
        ManifestError: The table can't be written.
    """
    try:
        quarantine = Quarantine.read(path)
    except (OSError, pa.ArrowException):  # not ours, or damaged: this job finds all of its stage again
        quarantine = Quarantine()
    before = quarantine.videos(stage)
    names = ["video_id", "path", "size_bytes", "mtime", "error", "message"]
    rows = broken_videos(found).select(names).to_pylist()
    quarantine.replace(
        stage, (BrokenVideo(**row, stage=stage, decoder=decoder, decoder_version=version) for row in rows)
    )
    now = now or datetime.datetime.now(datetime.UTC)
    with writing(path):
        quarantine.write(path, run=f"{stage} {now:%Y-%m-%d %H:%M:%S} UTC", earlier=before)


def broken_videos(found: pa.Table) -> pa.Table:
    """Videos that can't be used."""
    return found.filter(pc.not_equal(found["error"], ""))


def damaged_videos(found: pa.Table) -> pa.Table:
    """Videos that can be used, but not with all of their frames; the worst first."""
    return _usable_with_any(found, "damaged_frames")


def wrong_videos(found: pa.Table) -> pa.Table:
    """Videos that can be used, but of which the decoder gave other frames than were asked for; the worst first."""
    return _usable_with_any(found, "wrong_frames")


def cut_short_videos(found: pa.Table) -> pa.Table:
    """Videos that end too early but can be used."""
    is_short = pc.not_equal(pc.fill_null(found["cut_short"], ""), "")
    return _usable(found.filter(is_short)).sort_by("video_id")


def _usable_with_any(found: pa.Table, count: str) -> pa.Table:
    some = found.filter(pc.greater(pc.fill_null(found[count], 0), 0))
    return _usable(some).sort_by([(count, "descending"), ("video_id", "ascending")])


def _usable(found: pa.Table) -> pa.Table:
    return found.filter(pc.equal(found["error"], ""))


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why videos can't be used."""

    text: str
    """Class and text of the error, with `…` for what differs between videos."""
    videos: int
    example: str
    """Path of one of them."""


def broken_reasons(found: pa.Table) -> list[Reason]:
    """Videos that can't be used by reason, the most frequent first."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in broken_videos(found).select(["path", "error", "message"]).to_pylist():
        text = f"{row['error']}: {row['message'].replace(row['path'], '…')}"
        groups.setdefault(re.sub(r"[0-9]+", "…", text), []).append((text, row["path"]))
    reasons = [
        Reason(
            text=members[0][0] if len({text for text, _ in members}) == 1 else general,
            videos=len(members),
            example=min(path for _, path in members),
        )
        for general, members in groups.items()
    ]
    return sorted(reasons, key=lambda reason: (-reason.videos, reason.text))


def reason_lines(found: pa.Table, *, shown: int) -> list[str]:
    """A line for each reason, the most frequent first, with an example."""
    reasons = broken_reasons(found)
    lines = [f"  {reason.videos:>6,}  {reason.text}, as {reason.example}" for reason in reasons[:shown]]
    return [*lines, f"  and {len(reasons) - shown} more reasons"] if len(reasons) > shown else lines


def total_length_text(found: pa.Table) -> str:
    """Length of all usable videos together, in words."""
    seconds = pc.sum(_usable(found)["duration_s"]).as_py() or 0
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:,.1f} minutes"


def total_size_text(found: pa.Table) -> str:
    """Size of all files together, in words."""
    size = pc.sum(pc.coalesce(found["stored_bytes"], found["size_bytes"])).as_py() or 0
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
