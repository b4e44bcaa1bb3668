"""Matches the videos of annotations with class ids and with the files on disk, for every data set alike.

Every fault is collected with its line. No video is opened. Ids of a list's videos don't depend on where a data set is
mounted: they are paths from the videos' folder on, without extension.
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from morphmlp.data.datasets.lines import AnnotatedVideo, Faults, composed
from morphmlp.data.datasets.video_folder import FOLDER, VideoFolder, sizes_bytes
from morphmlp.data.manifest import Manifest, manifest_from_rows
from morphmlp.errors import ManifestError

_NAMES_SHOWN = 3
_TRIED, _LEVELS_ABOVE = 50, 3
"""Videos and folders that are tried to find out what was meant, and how far above the folder."""
_DRIVE = re.compile(r"[A-Za-z]:(?=/)")


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says, matched with the files on disk; videos that aren't there are marked."""

    manifest: Manifest
    form: str
    """What the file is, in words."""
    class_order: str
    """Where the order of the classes comes from, in words."""
    missing: tuple[str, ...]
    """`FILE:LINE: ...` for each video that isn't there."""
    warnings: tuple[str, ...] = ()
    """What to know before relying on them."""


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """The videos of an annotation file, each once and with its class id; for the texts see `Annotations`."""

    rows: Sequence[AnnotatedVideo]
    labels: Sequence[int]
    class_names: Sequence[str]
    """In label order."""
    form: str
    class_order: str
    looked_for: str | None = None
    """Under which names videos are looked for, in words; None where the annotations name files."""
    warnings: tuple[str, ...] = ()


def below_folder(rows: Sequence[AnnotatedVideo], folder: VideoFolder) -> tuple[list[AnnotatedVideo], tuple[str, ...]]:
    """The videos of a list with the paths that they have here and their ids; and what to know of that.

    Absolute paths that another machine wrote stand for those below the videos' folder that end alike.
    """
    root, resolved = (f"{place}".rstrip("/") + "/" for place in (folder.root, folder.root.resolve()))
    # Without detours; accents as one character, as in all annotations.
    stems = [composed(os.path.normpath(stem)) for stem in _with_slashes([row.names[0] for row in rows])]
    stems = [stem.removeprefix(root).removeprefix(resolved) for stem in stems]
    absolute = [replace(row, names=(stem,)) for row, stem in zip(rows, stems, strict=True) if stem.startswith("/")]
    notes: tuple[str, ...] = ()
    if absolute:
        sample = absolute[:: len(absolute) // _TRIED + 1]
        prefix = None if any(folder.find(sample)) else _prefix_elsewhere(absolute, sample, folder)
        if prefix:
            stems = [stem.removeprefix(prefix) for stem in stems]
            notes = (f"{prefix} in the list is taken for {folder.root}/",)
        else:
            notes = (
                f"{len(absolute)} paths of the list don't lie below {folder.root}, and so their ids name the way there",
            )
    ids = _ids([os.path.relpath(stem, folder.root) if stem.startswith("/") else stem for stem in stems], rows)
    placed = [
        replace(row, names=(stem,), video_id=video_id) for row, stem, video_id in zip(rows, stems, ids, strict=True)
    ]
    return placed, notes


def _with_slashes(paths: Sequence[str]) -> Sequence[str]:
    """Paths of a list that Windows wrote, as they are written elsewhere; others as they are."""
    if any("/" in path for path in paths):
        return paths
    return [_DRIVE.sub("", path.replace("\\", "/")) for path in paths]


def _prefix_elsewhere(
    absolute: Sequence[AnnotatedVideo], sample: Sequence[AnnotatedVideo], folder: VideoFolder
) -> str | None:
    """The shortest beginning of all absolute paths without which some are found below the folder."""
    common = os.path.commonpath([os.path.dirname(row.names[0]) for row in absolute])  # noqa: PTH120 - text, no place
    parts = [part for part in common.split("/") if part]
    for count in range(len(parts) + 1):
        prefix = "".join(f"/{part}" for part in parts[:count]) + "/"
        if any(folder.find([replace(row, names=(row.names[0].removeprefix(prefix),)) for row in sample])):
            return prefix
    return None


def _ids(stems: Sequence[str], rows: Sequence[AnnotatedVideo]) -> list[str]:
    """Paths without extension; with it where two files differ in nothing else."""
    whole = [stem + row.endings[0] if len(row.endings) == 1 else stem for stem, row in zip(stems, rows, strict=True)]
    ids = list(stems)
    while True:
        paths_of = Counter(video_id for video_id, _ in set(zip(ids, whole, strict=True)))
        clashes = [place for place, video_id in enumerate(ids) if paths_of[video_id] > 1 and video_id != whole[place]]
        if not clashes:
            return ids
        for place in clashes:
            ids[place] = whole[place]


def rows_without_repeats(rows: Sequence[AnnotatedVideo], faults: Faults) -> list[AnnotatedVideo]:
    """The first row of each video id; the others are faults."""
    first: dict[str, int] = {}
    kept = []
    for row in rows:
        if row.video_id in first:
            faults.add(row.line, f"duplicate: {row.video_id} stands on line {first[row.video_id]} already")
        else:
            first[row.video_id] = row.line
            kept.append(row)
    return kept


def names_seen(rows: Sequence[AnnotatedVideo]) -> tuple[tuple[str, ...], str]:
    """The labels of a file that names classes, alphabetically; and the words for that order."""
    names = tuple(sorted({str(row.label) for row in rows}))
    return names, f"the {len(names)} labels of this file, alphabetically"


def label_ids(rows: Sequence[AnnotatedVideo], class_names: Sequence[str], faults: Faults) -> list[int]:
    """The class id of each row; out of range, with a fault, where it's none of the classes."""
    ids = {composed(name): number for number, name in enumerate(class_names)}

    @cache
    def outside(label: str) -> str:
        close = difflib.get_close_matches(label, class_names, n=1)
        return f"label {label!r} is none of the {len(ids)} classes" + (f"; {close[0]!r} is" if close else "")

    from_1 = min((row.label for row in rows if isinstance(row.label, int)), default=0) == 1
    labels = []
    for row in rows:
        label = ids.get(composed(row.label), -1) if isinstance(row.label, str) else row.label
        if isinstance(row.label, str) and label < 0:
            faults.add(row.line, outside(row.label))
        elif not 0 <= label < len(ids):
            hint = ", and those of the list seem to count from 1" if from_1 else ""
            faults.add(row.line, f"class id {label} is outside the {len(ids)} classes, 0 to {len(ids) - 1}{hint}")
        labels.append(label)
    return labels


def match_files(
    labelled: LabelledRows, folder: VideoFolder, *, file: Path, faults: Faults, allow_missing: bool
) -> Annotations:
    """Look for the videos and make the manifest; raises all faults that were found by then (`Faults.raise_if_any`)."""
    rows = labelled.rows
    found = folder.find(rows)
    _note_repeated_files(rows, found, faults)
    sizes = sizes_bytes(found)
    missing = Faults(file)
    for row, size in zip(rows, sizes, strict=True):
        if size is None:
            for list_of_faults in (missing,) if allow_missing else (missing, faults):
                list_of_faults.add(row.line, _missing_text(row, folder))
    hints = _hints(labelled, folder) if missing else []
    if missing and not allow_missing:
        hints.append(f"{file}: {len(missing)} of {len(rows)} videos are missing; --allow-missing continues without")
    faults.raise_if_any(*hints)
    if not rows:
        raise ManifestError(f"{file}: holds no videos")
    manifest = manifest_from_rows(
        video_ids=[row.video_id for row in rows],
        paths=[path or folder.expected(row) for row, path in zip(rows, found, strict=True)],
        labels=labelled.labels,
        splits=[row.split for row in rows],
        sizes_bytes=sizes,
        num_frames=[row.num_frames for row in rows],
        class_names=labelled.class_names,
    )
    warnings = (*labelled.warnings, *hints)
    return Annotations(manifest, labelled.form, labelled.class_order, tuple(missing.lines()), warnings)


def _note_repeated_files(rows: Sequence[AnnotatedVideo], found: Sequence[str | None], faults: Faults) -> None:
    """Two paths of a list may lead to one file, as `clip` and `clip.mp4` do."""
    first: dict[str, int] = {}
    for row, path in zip(rows, found, strict=True):
        if path is not None and row.by_path and first.setdefault(path, row.line) != row.line:
            faults.add(row.line, f"duplicate: {path} is that of line {first[path]} already")


def _missing_text(row: AnnotatedVideo, folder: VideoFolder) -> str:
    if empty := folder.empty_folder(row):
        return f"{empty} is an empty folder; it must hold the frames of the video"
    if row.by_path:
        other = folder.other_extension(row)
        return f"no such file: {folder.expected(row)}" + (f"; there is {other}" if other else "")
    in_a_class_folder = len(row.names) > 1
    return f"no video {row.video_id}" + (f" of {row.label!r}" if in_a_class_folder else "")


def _hints(labelled: LabelledRows, folder: VideoFolder) -> list[str]:
    """What may be the matter where videos are missing."""
    hints = [f"{folder.root}: looked for {labelled.looked_for}"] if labelled.looked_for else []
    if other := _other_root(labelled.rows, folder):
        hints.append(f"{folder.root}: holds none of them, but {other} does; give --videos {other}")
    if without_text := folder.names_without_text():
        hints.append(
            f"{folder.root}: {len(without_text)} names there aren't UTF-8 text, so no list can name them; rename them "
            f"(`convmv -t utf8`): {', '.join(without_text[:_NAMES_SHOWN])}"
            + (" ..." if without_text[_NAMES_SHOWN:] else "")
        )
    return hints


def _other_root(rows: Sequence[AnnotatedVideo], folder: VideoFolder) -> Path | None:
    """The folder that was most likely meant, a little above or below, where all of the videos are missing."""
    sample = rows[:: len(rows) // _TRIED + 1]
    if any(folder.find(sample)):
        return None
    for root in (*folder.root.parents[:_LEVELS_ABOVE], *folder.folders(most=_TRIED)):
        with suppress(ManifestError):  # it may not be listed, or its name not be said
            if any(VideoFolder(root).find(sample)):
                return root
    return None


def endings_text(name: str, endings: Sequence[str]) -> str:
    """`<id>.mp4, folders <id>` ...: what is looked for, in words."""
    return ", ".join(f"folders {name}" if ending == FOLDER else f"{name}{ending}" for ending in endings)
