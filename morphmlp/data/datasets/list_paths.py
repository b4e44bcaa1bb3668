"""What the paths of a list mean below the videos' folder, and the video ids that follow from them.

Ids don't depend on where a data set is mounted: they are paths from the videos' folder on, without extension.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from morphmlp.data.datasets.lines import AnnotatedVideo, composed
from morphmlp.data.datasets.video_folder import VideoFolder

_TRIED = 50
"""Videos of a list that are looked for to find out what its paths begin with."""
_DRIVE = re.compile(r"[A-Za-z]:(?=/)")


def below_folder(rows: Sequence[AnnotatedVideo], folder: VideoFolder) -> tuple[list[AnnotatedVideo], tuple[str, ...]]:
    """The videos of a list with the paths that they have here and their ids; and what to know of that.

    Absolute paths that another machine wrote stand for those below the videos' folder that end alike.
    """
    root, resolved = (f"{place}".rstrip("/") + "/" for place in (folder.root, folder.root.resolve()))
    stems = [_posix(stem) for stem in _with_slashes([row.names[0] for row in rows])]
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


def _posix(path: str) -> str:
    """Without detours; accents as one character, as in all annotations."""
    return composed(os.path.normpath(path))


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
