"""Copies of a data set: where they lie, how they say what they are, and what becomes of their manifest.

`<folder>/<name>.parquet` is the manifest of the copies, `<folder>/<name>/` holds them. A copy of a copy is made only
when asked for, and a folder never holds copies of two makings.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from morphmlp.data.columns import TIME
from morphmlp.data.manifest import Manifest, writing
from morphmlp.errors import ManifestError
from morphmlp.files import UNFINISHED, FilePath, atomic_write
from morphmlp.preparation.findings import FACTS, with_columns
from morphmlp.preparation.work_folder import RESULT

COPIED = pa.schema(
    [
        *RESULT,
        pa.field("stored_bytes", pa.int64()),
        pa.field("output_mtime", TIME),
        pa.field("crc32", pa.int64()),
        *FACTS,
        pa.field("damaged_frames", pa.int32()),
        pa.field("cut_short", pa.string()),
    ]
)
"""One row per video: its source (`stored_bytes`: its size, that of a folder with all that's in it), the copy
(`output`), and what the copy holds. `damaged_frames` counts the source's damage, which is in the copy too; `cut_short`
says where the source ends too early. Nulls where no copy could be made."""

MARKER = "prepared.json"
_ELSEWHERE = "give another folder (--output)"
_LONGEST_NAME = 180
"""File systems take 255 bytes, and a name grows while it's being written."""
_SHARDS = 2
"""Hexadecimal digits of the folders between: 256 folders keep each of them small."""


@dataclass(frozen=True, kw_only=True)
class CopyFiles:
    """The files of one data set's copies."""

    folder: Path
    name: str

    manifest = FilePath("{folder}/{name}.parquet")
    """Manifest of the copies."""
    quarantine = FilePath("{folder}/{name}.quarantine.parquet")
    """Videos of which no copy could be made."""
    found = FilePath("{folder}/{name}.copies.parquet")
    """One row per video with all that's known of its copy."""
    log = FilePath("{folder}/{name}.log.txt")
    """What the command said, with the time."""
    videos = FilePath("{folder}/{name}")
    """The copies."""
    work = FilePath("{folder}/.{name}.work")
    """Results of a job that isn't through."""

    def copy_of(self, video_id: str, suffix: str) -> Path:
        """Where a video's copy lies: a readable name, whatever characters the id has."""
        digest = hashlib.sha256(video_id.encode()).hexdigest()
        name = quote(video_id, safe=" ()[]+,=@")
        if name.startswith("."):
            name = f"%2E{name[1:]}"
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}-{digest[:16]}"
        return self.videos / digest[:_SHARDS] / f"{name}{suffix}"


def making(how: str, settings: Mapping[str, JsonValue], source: Manifest) -> dict[str, JsonValue]:
    """How copies are made, and of what; what their manifest carries as `prepared`."""
    return {
        "how": how,
        "settings": dict(settings),
        "source": source.fingerprint(),
        "source_prepared": None if source.prepared is None else json.loads(source.prepared),
    }


def claim_folder(
    files: CopyFiles, made: Mapping[str, JsonValue], *, source: Path, prepared: str | None, again: bool
) -> None:
    """Make sure that the folder may take these copies, and mark it as theirs.

    `made` is what `making` says of them, `prepared` how the source was made itself (None: originals); with `again`
    copies of copies are meant.

    Raises:
        ManifestError: They may not go there, or would be copies of copies.
    """
    if files.manifest.absolute() == source.absolute():
        raise ManifestError(f"{files.folder}: holds {source.name} itself; {_ELSEWHERE}")
    if prepared is not None and not again:
        raise ManifestError(
            f"{source}: its videos are copies already (made by {json.loads(prepared).get('how')}), and each generation "
            "loses quality; take the manifest of the originals, or say --again"
        )
    for marker in sorted(files.folder.glob(f"*/{MARKER}")):
        there = _read_marker(marker)
        # Splits of one data set lie in one folder, made in one way; each from its own source.
        alike = made if marker.parent == files.videos else {name: made[name] for name in ("how", "settings")}
        if any(there.get(name) != value for name, value in alike.items()):
            differ = ", ".join(_differences(there, alike))
            raise ManifestError(f"{marker.parent}: holds copies of another making ({differ}); {_ELSEWHERE}")
    marker = files.videos / MARKER
    taken = files.manifest.exists() or (files.videos.is_dir() and any(files.videos.iterdir()))
    if taken and not marker.exists():
        raise ManifestError(f"{files.folder}: holds something else by the name of {files.name}; {_ELSEWHERE}")
    with writing(files.folder):
        files.videos.mkdir(parents=True, exist_ok=True)
        atomic_write(marker, json.dumps(made, indent=2) + "\n")


def copies_manifest(source: Manifest, copied: pa.Table, made: Mapping[str, JsonValue]) -> Manifest:
    """The manifest of the copies: same ids, labels, splits and classes, so the same fingerprint.

    A video without a copy keeps its row, and its path is that of the source; it isn't available. `copied` are rows of
    `COPIED`, in the order of the source.
    """
    new = {
        "path": pc.coalesce(copied["output"], source.table["path"]),
        "available": copied["output"].is_valid(),
        "size_bytes": copied["output_bytes"],
        "mtime": copied["output_mtime"],
        "crc32": copied["crc32"],
        **{field.name: copied[field.name] for field in FACTS},
    }
    return replace(with_columns(source, new), prepared=json.dumps(made, sort_keys=True))


def remove_unfinished(files: CopyFiles) -> None:
    """Clear away what a killed job was writing."""
    for path in files.videos.glob(f"*/.*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def _read_marker(marker: Path) -> dict[str, JsonValue]:
    try:
        there = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = None
    if not isinstance(there, dict):
        raise ManifestError(f"{marker}: can't be read, so nobody knows what lies next to it; {_ELSEWHERE}")
    return there


def _differences(there: Mapping[str, JsonValue], asked: Mapping[str, JsonValue]) -> list[str]:
    """What differs, as `crf 20, asked for 22`."""
    old, new = _flat(there), _flat(asked)
    return [f"{name} {old.get(name)}, asked for {new[name]}" for name in sorted(new) if old.get(name) != new[name]]


def _flat(made: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    settings = made.get("settings")
    rest = {name: value for name, value in made.items() if name != "settings"}
    return {**rest, **settings} if isinstance(settings, dict) else rest
