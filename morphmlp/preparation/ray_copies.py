"""Make copies of a data set over the cluster, with a manifest of their own; the originals are only read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from pydantic import JsonValue

from morphmlp.data.manifest import Manifest, read_manifest, write_manifest
from morphmlp.errors import ManifestError
from morphmlp.preparation.copies import COPIED, claim_folder, copies_manifest, making, remove_unfinished
from morphmlp.preparation.copy_tasks import CopyTask
from morphmlp.preparation.findings import (
    Outcome,
    broken_videos,
    cut_short_videos,
    damaged_videos,
    reason_lines,
    total_length_text,
    total_size_text,
    write_quarantine,
)
from morphmlp.preparation.ray_jobs import do_with_every_video
from morphmlp.preparation.work_folder import WorkFolder
from morphmlp.progress import Progress

_REASONS_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class CopyJob:
    """Copies that may be made: what needs no cluster to be known is checked."""

    source: Path
    """The originals' manifest."""
    manifest: Manifest
    task: CopyTask
    made: Mapping[str, JsonValue]
    """How they're made, as their manifest will say it."""


def copy_job(source: Path, task: CopyTask, *, again: bool = False) -> CopyJob:
    """Read the manifest, and mark the folder as that of these copies.

    Raises:
        ManifestError: The manifest can't be read, or the folder may not take the copies or can't be written.
    """
    manifest = read_manifest(source)
    if manifest.items == "images":
        raise ManifestError(f"{source}: holds images; {task.how} copies videos, and images are read where they lie")
    made = making(task.how, task.settings(), manifest)
    claim_folder(task.files, made, source=source, prepared=manifest.prepared, again=again)
    return CopyJob(source=source, manifest=manifest, task=task, made=made)


def make_copies(job: CopyJob, *, progress: Progress) -> Outcome:
    """Copy every video in the running Ray session.

    Raises:
        ManifestError: Not one video could be copied, or the copies can't be written.
    """
    manifest, task, made = job.manifest, job.task, job.made
    files = task.files
    work = WorkFolder(files.work, table=files.found, schema=COPIED, settings=made)
    videos = manifest.table.select(["video_id", "path", "num_frames"])
    with work.opened():
        remove_unfinished(files)
        copied = do_with_every_video(videos, task, work, title=task.how, progress=progress)
        write_quarantine(files.quarantine, copied, stage=task.how, decoder=task.with_what, version=task.version)
        broken = broken_videos(copied).num_rows
        if broken == copied.num_rows:
            (reason, *others) = reason_lines(copied, shown=1)
            raise ManifestError(
                f"{job.source}: not one of its {broken} videos could be copied: {reason.strip()}"
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
        f"{'cut short':<9}{cut_short_videos(copied).num_rows:>9,}  copied up to where their originals end too early",
        f"{'broken':<9}{broken:>9,}  not copied; their rows stay, marked as not available",
        *reason_lines(copied, shown=_REASONS_SHOWN),
    ]
    return Outcome(text="\n".join(lines), videos=copied.num_rows, broken=broken)
