"""What a full decode of every video tells, and what becomes of it: manifest, quarantine, summary.

Knows the tables and no Ray.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from morphmlp.data import columns
from morphmlp.data.decoding import decoder_by_name
from morphmlp.data.decoding.checksum import file_crc32
from morphmlp.data.decoding.isolated import Limits, isolated_videos
from morphmlp.data.decoding.packed_frames import is_pack
from morphmlp.data.decoding.sources import holds_frame_files
from morphmlp.data.manifest import Manifest
from morphmlp.preparation.findings import (
    broken_videos,
    damaged_videos,
    reason_lines,
    total_length_text,
    total_size_text,
)
from morphmlp.preparation.finished import RESULT, stored_bytes

VERIFIED = pa.schema(
    [
        *RESULT,
        pa.field("stored_bytes", pa.int64()),
        pa.field("crc32", pa.int64()),
        pa.field("num_frames", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("duration_s", pa.float64()),
        pa.field("damaged_frames", pa.int32()),
    ]
)
"""One row per video, all that was found. `stored_bytes` is the file's size, or that of all frames in a folder together;
`damaged_frames` counts those of `num_frames` that are damaged or don't come out. What a broken video doesn't tell is
null."""

_FACTS = ("crc32", "num_frames", "fps", "width", "height", "codec", "duration_s")


@dataclass(frozen=True, kw_only=True)
class VerifyTask:
    """Decodes one video from start to end, in a process apart."""

    decoder: str
    timeout_s: float
    """Time without any progress after which a video is given up, seconds."""
    memory_mb: int = 4096
    """Memory that decoding a video may take, MB."""

    @property
    def schema(self) -> pa.Schema:
        """See `VERIFIED`."""
        return VERIFIED

    def __call__(self, video: Mapping[str, object]) -> dict[str, object]:
        """Everything about a video that can be used.

        Raises:
            DecodeError: It can't.
        """
        path, promised = str(video["path"]), video.get("num_frames")
        videos = isolated_videos(self.decoder, self.limits())
        # The number of frames that the list promises holds for frames stored one by one; a video file tells its own.
        reader = videos.open(path, num_frames=None if promised is None else int(str(promised)))
        info = reader.info
        damaged = reader.scan()
        return {
            "stored_bytes": stored_bytes(path),
            "crc32": None if _holds_frames(path) else file_crc32(path),
            "num_frames": info.num_frames,
            "fps": info.fps,
            "width": info.width,
            "height": info.height,
            "codec": info.codec,
            "duration_s": info.num_frames / info.fps,
            "damaged_frames": damaged,
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
        }


def _holds_frames(path: str) -> bool:
    """Whether frames are stored one by one: an archive has checksums of its own, a folder none."""
    return is_pack(path) or holds_frame_files(path)


def filled_manifest(manifest: Manifest, found: pa.Table) -> Manifest:
    """The manifest with what was found, row by row; ids, labels, splits and paths stay.

    A video that can't be used loses what was known of its content, but for the number of frames that its list promises;
    a file that isn't there is no longer available.
    """
    table = manifest.table
    there = found["size_bytes"].is_valid()
    new = {name: found[name] for name in _FACTS}
    new["num_frames"] = pc.coalesce(found["num_frames"], table["num_frames"])
    new["size_bytes"] = pc.coalesce(found["stored_bytes"], found["size_bytes"])
    new["mtime"] = found["mtime"]
    new["available"] = there
    for name, cells in new.items():
        field = columns.MANIFEST.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, cells.cast(field.type).combine_chunks())
    return replace(manifest, table=table)


def summary(found: pa.Table, *, num_classes: int, shown: int = 10) -> str:
    """The closing table: what there is, what's broken and why, what's damaged.

    Args:
        found: Rows of `VERIFIED`.
        num_classes: Classes of the manifest.
        shown: Reasons and damaged videos to name.
    """
    broken, damaged = broken_videos(found), damaged_videos(found)
    lines = [
        f"{'videos':<9}{found.num_rows:>9,}  of {num_classes} classes, {total_size_text(found)}",
        f"{'usable':<9}{found.num_rows - broken.num_rows:>9,}  {total_length_text(found)}",
        f"{'damaged':<9}{damaged.num_rows:>9,}  usable, but some of their frames are damaged",
        f"{'broken':<9}{broken.num_rows:>9,}  can't be used",
    ]
    lines += reason_lines(found, shown=shown)
    lines += [
        f"  damaged: {row['damaged_frames']} of {row['num_frames']} frames of {row['path']}"
        for row in damaged.slice(0, shown).to_pylist()
    ]
    if damaged.num_rows > shown:
        lines.append(f"  damaged: and {damaged.num_rows - shown} more videos")
    return "\n".join(lines)
