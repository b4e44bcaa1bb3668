"""Matches published annotations with the files on disk and makes a manifest of them.

Every fault of a file is collected, each with its line, before anything is raised. Opens no video.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from morphmlp.data.annotation_formats import (
    KINETICS_LAYOUTS,
    AnnotatedVideo,
    Faults,
    is_kinetics_header,
    read_kinetics,
    read_lines,
    read_list,
    split_of,
)
from morphmlp.data.manifest import Manifest, manifest_from_rows
from morphmlp.data.video_folder import EXTENSIONS, VideoFolder, sizes_bytes
from morphmlp.errors import ManifestError

_NUMBERS = tuple(map(str, range(400)))
"""Stand for the names of Kinetics-400 where a list of class ids comes without them."""


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says, matched with the files on disk.

    Attributes:
        manifest: One row per video; those that aren't there are marked.
        form: What the file is, in words.
        class_order: Where the order of the classes comes from, in words.
        missing: `FILE:LINE: ...` for each video that isn't there.
    """

    manifest: Manifest
    form: str
    class_order: str
    missing: tuple[str, ...]


def read_annotations(
    path: str | Path,
    *,
    videos: str | Path,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> Annotations:
    """Read a path list or the official Kinetics CSV, told apart by the CSV's header.

    A list holds `<relative path>,<class id>` or `<relative path> <class id>` in each line; its video ids are the paths
    without extension. The CSV's video ids are `<youtube id>_<start>_<end>`; for its files see `KINETICS_LAYOUTS`.

    Args:
        path: The annotations.
        videos: Folder that holds the videos.
        split: train, val or test; by default the CSV's own column, or what a list's file name says.
        class_names: Names in label order; by default the CSV's labels in alphabetical order, or the numbers 0 to 399
            for a list.
        allow_missing: Keep videos that aren't there, marked, instead of refusing.

    Raises:
        ManifestError: All faults with their lines, at most `MAX_FAULTS` of them named.
    """
    path = Path(path)
    faults = Faults(path)
    lines = read_lines(path, faults)
    official = bool(lines) and is_kinetics_header(lines[0][1])
    rows = read_kinetics(lines, split, faults) if official else read_list(lines, split or split_of(path), faults)
    rows = _without_repeats(rows, faults)
    class_order = "as given"
    if class_names is None:
        class_names, class_order = _names_seen(rows) if official else (_NUMBERS, "the numbers 0 to 399")
    labels = _label_ids(rows, class_names, faults)

    folder = VideoFolder(videos)
    found = [folder.by_stem(row.names) if official else folder.exact(row.names[0]) for row in rows]
    sizes = sizes_bytes(found)
    missing = Faults(path)
    for row, size in zip(rows, sizes, strict=True):
        if size is None:
            for list_of_faults in (missing,) if allow_missing else (missing, faults):
                list_of_faults.add(row.line, _missing_text(row, folder, official=official))
    hints = []
    if missing and official:
        hints.append(f"{folder.root}: looked for {', '.join(KINETICS_LAYOUTS)} with {' '.join(EXTENSIONS)}")
    if missing:
        hints.append(f"{path}: {len(missing)} of {len(rows)} videos are missing; --allow-missing goes on without")
    faults.raise_if_any(*([] if allow_missing else hints))
    if not rows:
        raise ManifestError(f"{path}: holds no videos")
    manifest = manifest_from_rows(
        video_ids=[row.video_id for row in rows],
        paths=[
            name or folder.absolute(row.names[0] + (EXTENSIONS[0] if official else ""))
            for row, name in zip(rows, found, strict=True)
        ],
        labels=labels,
        splits=[row.split for row in rows],
        sizes_bytes=sizes,
        class_names=class_names,
    )
    form = "official Kinetics CSV" if official else "path list"
    return Annotations(manifest, form, class_order, tuple(missing.lines()))


def _without_repeats(rows: Sequence[AnnotatedVideo], faults: Faults) -> list[AnnotatedVideo]:
    first: dict[str, int] = {}
    kept = []
    for row in rows:
        if row.video_id in first:
            faults.add(row.line, f"duplicate: {row.video_id} stands on line {first[row.video_id]} already")
        else:
            first[row.video_id] = row.line
            kept.append(row)
    return kept


def _names_seen(rows: Sequence[AnnotatedVideo]) -> tuple[tuple[str, ...], str]:
    names = tuple(sorted({str(row.label) for row in rows}))
    return names, f"the {len(names)} labels of this file, alphabetically"


def _label_ids(rows: Sequence[AnnotatedVideo], class_names: Sequence[str], faults: Faults) -> list[int]:
    """The label of each row; -1, with a fault, where it's none of the classes."""
    ids = {name: number for number, name in enumerate(class_names)}

    @cache
    def outside(label: str) -> str:
        close = difflib.get_close_matches(label, class_names, n=1)
        return f"label {label!r} is none of the {len(ids)} classes" + (f"; {close[0]!r} is" if close else "")

    labels = []
    for row in rows:
        label = ids.get(row.label, -1) if isinstance(row.label, str) else row.label
        if isinstance(row.label, str) and label < 0:
            faults.add(row.line, outside(row.label))
        elif not 0 <= label < len(ids):
            faults.add(row.line, f"class id {label} is outside the {len(ids)} classes, 0 to {len(ids) - 1}")
        labels.append(label)
    return labels


def _missing_text(row: AnnotatedVideo, folder: VideoFolder, *, official: bool) -> str:
    if official:
        return f"no video {row.video_id} of {row.label!r}"
    other = folder.other_extension(row.names[0])
    return f"no such file: {folder.absolute(row.names[0])}" + (f"; there is {other}" if other else "")
