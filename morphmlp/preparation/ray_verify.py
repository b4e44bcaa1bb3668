"""Verify a manifest over the cluster: decode everything, fill the manifest, list what's broken, draw it."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from morphmlp.data.manifest import read_manifest, write_manifest, writing
from morphmlp.errors import ManifestError
from morphmlp.files import atomic_file
from morphmlp.preparation.findings import Outcome, broken_videos, write_quarantine
from morphmlp.preparation.overview import overview_figure
from morphmlp.preparation.ray_jobs import do_with_every_video
from morphmlp.preparation.verification import VERIFIED, VerifyTask, filled_manifest, summary, without_cut_short
from morphmlp.preparation.work_folder import WorkFolder
from morphmlp.progress import Progress

_STAGE = "verify"


@dataclass(frozen=True, kw_only=True)
class VerifyFiles:
    """What a verification writes next to its manifest."""

    manifest: Path

    @property
    def quarantine(self) -> Path:
        """Videos that can't be used."""
        return self.manifest.with_suffix(".quarantine.parquet")

    @property
    def found(self) -> Path:
        """One row per video with all that was found."""
        return self.manifest.with_suffix(".verify.parquet")

    @property
    def picture(self) -> Path:
        """The data set on one page."""
        return self.manifest.with_suffix(".png")

    @property
    def log(self) -> Path:
        """What the command said, with the time."""
        return self.manifest.with_suffix(".log.txt")

    @property
    def work(self) -> Path:
        """Results of a verification that isn't through."""
        return self.manifest.with_name(f".{self.manifest.stem}.verify")


def verify_manifest(
    source: Path, output: Path, task: VerifyTask, *, again: bool = False, progress: Progress
) -> Outcome:
    """Decode every video of a manifest in the running Ray session.

    The filled manifest goes to `output`, which may be the source; the other files stand next to it. With `again` videos
    are decoded whose file hasn't changed since an earlier verification.

    Raises:
        ManifestError: It can't be read or written, or not one of its videos is there.
    """
    manifest = read_manifest(source)
    files = VerifyFiles(manifest=output)
    settings = task.settings()
    work = WorkFolder(files.work, table=files.found, schema=VERIFIED, settings=settings)
    videos = manifest.table.select(["video_id", "path", "num_frames", "duration_s"])
    with work.opened(again=again):
        found = do_with_every_video(videos, task, work, title=_STAGE, progress=progress)
        if not pc.any(found["size_bytes"].is_valid()).as_py():
            raise ManifestError(
                f"{source}: not one of its {len(manifest)} videos is there ({found['path'][0]}); is the disk mounted?"
            )
        judged = found if task.keeps_cut_short else without_cut_short(found)
        write_manifest(filled_manifest(manifest, judged), output)
        write_quarantine(
            files.quarantine,
            judged,
            stage=_STAGE,
            decoder=task.decoder,
            version=str(settings["decoder_version"]),
            now=datetime.datetime.now(datetime.UTC),
        )
        _draw(judged, manifest.table["label"], manifest.class_names, files)
        work.close(found)
    return Outcome(
        text=summary(judged, num_classes=len(manifest.class_names)),
        videos=found.num_rows,
        broken=broken_videos(judged).num_rows,
    )


def _draw(found: pa.Table, labels: pa.ChunkedArray, class_names: tuple[str, ...], files: VerifyFiles) -> None:
    figure = overview_figure(found, labels.to_numpy(), class_names, title=files.manifest.stem)
    with writing(files.picture), atomic_file(files.picture) as unfinished:
        figure.savefig(unfinished, format="png")
