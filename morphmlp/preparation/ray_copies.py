"""Make copies of a data set over the cluster, with a manifest of their own; the originals are only read."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from morphmlp.data.manifest import read_manifest, write_manifest
from morphmlp.errors import ManifestError
from morphmlp.preparation.copies import COPIED, CopyFiles, claim_folder, copies_manifest, making, remove_unfinished
from morphmlp.preparation.copy_tasks import CopyTask
from morphmlp.preparation.findings import (
    broken_videos,
    damaged_videos,
    quarantine_table,
    read_quarantine,
    reason_lines,
    total_length_text,
    total_size_text,
)
from morphmlp.preparation.finished import WorkFolder, write_whole
from morphmlp.preparation.ray_jobs import do_with_every_video
from morphmlp.progress import Progress

_REASONS_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Copies:
    """What came of it."""

    files: CopyFiles
    text: str
    """The closing table."""
    videos: int
    broken: int


def make_copies(source: Path, task: CopyTask, *, again: bool = False, progress: Progress) -> Copies:
    """Copy every video of a manifest in the running Ray session.

    Args:
        source: The originals' manifest.
        task: What to make of each, and where.
        again: Copies of copies are meant.
        progress: Told how far it is.

    Raises:
        ManifestError: The manifest can't be read, the folder may not take the copies, or can't be written.
    """
    manifest = read_manifest(source)
    files = task.files
    made = making(task.how, task.settings(), manifest)
    claim_folder(files, made, source=source, prepared=manifest.prepared, again=again)
    work = WorkFolder(files.work, table=files.found, schema=COPIED, settings=made)
    videos = manifest.table.select(["video_id", "path", "num_frames"])
    with work.opened():
        remove_unfinished(files)
        copied = do_with_every_video(videos, task, work, title=task.how, progress=progress)
        quarantine = quarantine_table(
            copied,
            read_quarantine(files.quarantine),
            stage=task.how,
            decoder=task.with_what,
            version=task.version,
            now=datetime.datetime.now(datetime.UTC),
        )
        write_whole(quarantine, files.quarantine)
        broken = broken_videos(copied).num_rows
        if broken == copied.num_rows:
            (reason, *others) = reason_lines(copied, shown=1)
            raise ManifestError(
                f"{source}: not one of its {broken} videos could be copied: {reason.strip()}"
                f"{''.join(others)}; all of them are in {files.quarantine}"
            )
        copies = copies_manifest(manifest, copied, made)
        write_manifest(copies, files.manifest)
        work.close(copied)
    written = (pc.sum(copied["output_bytes"]).as_py() or 0) / 1e6
    lines = [
        f"{'videos':<9}{copied.num_rows:>9,}  {total_size_text(copied)}",
        f"{'copied':<9}{copied.num_rows - broken:>9,}  {written:,.1f} MB, {total_length_text(copied)}",
        f"{'damaged':<9}{damaged_videos(copied).num_rows:>9,}  copied, with the damage of their originals",
        f"{'broken':<9}{broken:>9,}  not copied; their rows stay, marked as not available",
        *reason_lines(copied, shown=_REASONS_SHOWN),
    ]
    text = "\n".join(lines)
    return Copies(files=files, text=text, videos=copied.num_rows, broken=broken)
