"""Verify a manifest over the cluster: decode everything, fill the manifest, list what's broken, draw it."""

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from morphmlp.data.columns import SCENE
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.inspection import SAMPLED, is_short
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits, isolated_videos
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.data.decoding.sources import file_crc32, holds_frames
from morphmlp.data.decoding.stored_frames.image_bytes import IMAGE_CELLS, StoredImage, image_bytes
from morphmlp.data.decoding.stored_frames.stills import oddities
from morphmlp.data.manifest import Manifest, read_manifest, write_manifest, writing
from morphmlp.errors import DecodeError, ManifestError
from morphmlp.files import FilePath, atomic_file
from morphmlp.preparation.findings import (
    FACTS,
    Outcome,
    broken_videos,
    cut_short_videos,
    damaged_videos,
    facts_of,
    reason_lines,
    total_length_text,
    total_size_text,
    with_columns,
    write_quarantine,
    wrong_videos,
)
from morphmlp.preparation.overview import overview_figure
from morphmlp.preparation.ray_jobs import do_with_every_video
from morphmlp.preparation.work_folder import RESULT, WorkFolder, stored_bytes
from morphmlp.progress import Progress

_STAGE = "verify"
VERIFIED = pa.schema(
    [
        *RESULT,
        pa.field("stored_bytes", pa.int64()),
        pa.field("crc32", pa.int64()),
        *FACTS,
        pa.field("damaged_frames", pa.int32()),
        pa.field("compared_frames", pa.int32()),
        pa.field("wrong_frames", pa.int32()),
        pa.field("cut_short", pa.string()),
        pa.field("oddities", pa.list_(pa.string())),
    ]
)
"""One row per video, all that was found. `stored_bytes` is the file's size, or that of all frames in a folder together;
`damaged_frames` counts those of `num_frames` that are damaged or don't come out; `wrong_frames` those of a sample
(`compared_frames`) that the decoder gave otherwise than a plain decode does; `cut_short` says where a file ends too
early, and is empty where nothing shows that it does; `oddities` names what is unusual about an image of a data set.
What isn't known of a broken video is null."""


@dataclass(frozen=True, kw_only=True)
class VerifyTask:
    """Decodes one video from start to end, in a separate process."""

    decoder: str
    timeout_s: float
    """Time without any progress after which a video is given up, seconds."""
    memory_mb: int = 4096
    """Memory that decoding a video may take, MB."""
    keeps_cut_short: bool = True
    """Whether files that end too early are used up to there; else they count among those that can't be used."""

    schema = VERIFIED

    def __call__(self, video: Mapping[str, object]) -> dict[str, object]:
        """Everything about a video that can be used; for what is raised see `VideoTask`."""
        path, promised = str(video["path"]), video.get("num_frames")
        videos = isolated_videos(self.decoder, self.limits())
        # The number of frames that the list promises holds for frames stored one by one; a video file knows its own.
        image = StoredImage.of(video)
        reader = videos.open(path, num_frames=None if promised is None else int(str(promised)), image=image)
        info = reader.info
        seen = reader.inspect()
        if (of_map := StoredImage.of_map(video)) is not None:
            _require_map(videos, video, of_map, info)
        length_s = info.num_frames / info.fps
        return {
            **_stored(path, image),
            **facts_of(info),
            "damaged_frames": seen.damaged,
            "compared_frames": seen.compared,
            "wrong_frames": seen.wrong,
            "cut_short": seen.cut_short or _less_than_listed(video, info.num_frames, length_s),
        }

    def limits(self) -> Limits:
        """What one video may take, by the names of the command's options."""
        return Limits(
            timeout_s=self.timeout_s,
            memory_mb=self.memory_mb,
            follow_work=True,
            timeout_name="--decode-timeout-s",
            memory_name="--decoder-memory-mb",
        )

    def settings(self) -> dict[str, str | float]:
        """What the findings depend on."""
        return {
            "decoder": self.decoder,
            "decoder_version": decoder_by_name(self.decoder).version,
            "timeout_s": self.timeout_s,
            "compares": SAMPLED,
        }


def _require_map(videos: IsolatedVideos, image: Mapping[str, Any], of_map: StoredImage, info: VideoInfo) -> None:
    """Decode an image's label map.

    Raises:
        DecodeError: It can't be used, isn't what was prepared, or has another size than its image.
    """
    label_map = videos.open(image["map_path"], num_frames=None, crc32=image["map_crc32"], image=of_map)
    label_map.scan()
    sizes = [f"{each.width}x{each.height}" for each in (info, label_map.info)]
    if sizes[0] != sizes[1]:
        raise DecodeError(f"has {sizes[0]} pixels, its label map {image['map_path']} {sizes[1]}")


def _stored(path: str, image: StoredImage | None) -> dict[str, object]:
    """Size and checksum of what is stored, and what an image of a data set is."""
    if image is None:
        return {"stored_bytes": stored_bytes(path), "crc32": None if holds_frames(path) else file_crc32(path)}
    data = image_bytes(path, image)
    return {"stored_bytes": len(data), "crc32": zlib.crc32(data), "oddities": oddities(data, image.member or path)}


def _less_than_listed(video: Mapping[str, object], num_frames: int, length_s: float) -> str:
    """In words how much shorter a video is than its manifest has it; empty where it isn't."""
    listed_s, listed = video.get("duration_s"), video.get("num_frames")
    if listed_s is not None and is_short(length_s, float(str(listed_s))):
        return f"ends at {length_s:.1f} s of the {float(str(listed_s)):.1f} s that the manifest states"
    if listed is not None and is_short(length_s, int(str(listed)) * length_s / num_frames):
        return f"ends after {num_frames} of the {listed} frames that the manifest states"
    return ""


@dataclass(frozen=True, kw_only=True)
class VerifyFiles:
    """What a verification writes next to its manifest."""

    manifest: Path
    quarantine = FilePath("{manifest.parent}/{manifest.stem}.quarantine.parquet")
    """Videos that can't be used."""
    found = FilePath("{manifest.parent}/{manifest.stem}.verify.parquet")
    """One row per video with all that was found."""
    picture = FilePath("{manifest.parent}/{manifest.stem}.png")
    """The data set on one page."""
    log = FilePath("{manifest.parent}/{manifest.stem}.log.txt")
    """What the command said, with the time."""
    work = FilePath("{manifest.parent}/.{manifest.stem}.verify")
    """Results of a verification that isn't through."""


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
    of_images = [name for name in (*IMAGE_CELLS, *SCENE.names) if name in manifest.table.column_names]
    videos = manifest.table.select(["video_id", "path", "num_frames", "duration_s", *of_images])
    with work.opened(again=again):
        found = do_with_every_video(videos, task, work, title=_STAGE, progress=progress)
        if not pc.any(found["size_bytes"].is_valid()).as_py():
            raise ManifestError(
                f"{source}: not one of its {len(manifest)} videos is there ({found['path'][0]}); is the disk mounted?"
            )
        judged = found if task.keeps_cut_short else without_cut_short(found)
        write_manifest(filled_manifest(manifest, judged), output)
        version = str(settings["decoder_version"])
        write_quarantine(files.quarantine, judged, stage=_STAGE, decoder=task.decoder, version=version)
        # Of label maps `label` is no class.
        labels = None if manifest.task == "segmentation" else manifest.table["label"].to_numpy()
        figure = overview_figure(judged, labels, manifest.class_names, title=output.stem)
        with writing(files.picture), atomic_file(files.picture) as unfinished:
            figure.savefig(unfinished, format="png")
        work.close(found)
    return Outcome(
        text=summary(judged, num_classes=len(manifest.class_names)),
        videos=found.num_rows,
        broken=broken_videos(judged).num_rows,
    )


def filled_manifest(manifest: Manifest, found: pa.Table) -> Manifest:
    """The manifest with what was found, row by row; ids, labels, splits and paths stay.

    A video that can't be used loses what was known of its content, but for the number of frames that its list promises;
    a file that isn't there is no longer available, nor is one that is left out for being cut short.
    """
    left_out = pc.and_(pc.not_equal(pc.fill_null(found["cut_short"], ""), ""), pc.not_equal(found["error"], ""))
    there = pc.and_(found["size_bytes"].is_valid(), pc.invert(left_out))
    new = {field.name: found[field.name] for field in FACTS}
    new["crc32"] = found["crc32"]
    new["num_frames"] = pc.coalesce(found["num_frames"], manifest.table["num_frames"])
    new["size_bytes"] = pc.coalesce(found["stored_bytes"], found["size_bytes"])
    new["mtime"] = found["mtime"]
    new["available"] = there
    return with_columns(manifest, new)


def without_cut_short(found: pa.Table) -> pa.Table:
    """What was found, with every video that was cut short counted among those that can't be used."""
    reason = pc.fill_null(found["cut_short"], "")
    leaves_out = pc.and_(pc.not_equal(reason, ""), pc.equal(found["error"], ""))
    for name, cells in (("error", pa.scalar(DecodeError.__name__)), ("message", reason)):
        place = found.schema.get_field_index(name)
        found = found.set_column(place, found.schema.field(name), pc.if_else(leaves_out, cells, found[name]))
    return found


def summary(found: pa.Table, *, num_classes: int, shown: int = 10) -> str:
    """The closing table: what there is, what's broken and why, what's damaged, wrong or cut short.

    `shown` reasons are named, and as many videos of each kind.
    """
    broken, damaged, wrong, short = (
        part(found) for part in (broken_videos, damaged_videos, wrong_videos, cut_short_videos)
    )
    lines = [
        f"{'videos':<9}{found.num_rows:>9,}  of {num_classes} classes, {total_size_text(found)}",
        f"{'usable':<9}{found.num_rows - broken.num_rows:>9,}  {total_length_text(found)}",
        f"{'damaged':<9}{damaged.num_rows:>9,}  usable, but some of their frames are damaged",
        f"{'wrong':<9}{wrong.num_rows:>9,}  this decoder gives other frames of them than a plain decode does",
        f"{'cut short':<9}{short.num_rows:>9,}  usable up to where they end too early",
        f"{'broken':<9}{broken.num_rows:>9,}  can't be used",
    ]
    odd = Counter(oddity for of_image in found["oddities"].drop_null().to_pylist() for oddity in of_image)
    if odd:
        lines.append(f"  images read as they are: {', '.join(f'{n:,} {oddity}' for oddity, n in odd.most_common())}")
    lines += reason_lines(found, shown=shown)
    for kind, videos, words in (
        ("damaged", damaged, "{damaged_frames} of {num_frames} frames of {path}"),
        ("wrong", wrong, "{wrong_frames} frames, of {compared_frames} compared of {path}"),
        ("cut short", short, "{path} {cut_short}"),
    ):
        lines += [f"  {kind}: {words.format(**row)}" for row in videos.slice(0, shown).to_pylist()]
        if videos.num_rows > shown:
            lines.append(f"  {kind}: and {videos.num_rows - shown} more videos")
    return "\n".join(lines)
