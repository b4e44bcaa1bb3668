"""Files that hold the same: copies of one video must not be trained on and tested on."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

from morphmlp.data.decoding.stored_frames.frame_stores import frame_names
from morphmlp.errors import DecodeError
from morphmlp.progress import Progress


def same_content(paths: Sequence[str], progress: Progress) -> list[list[int]]:
    """Places of the paths that hold the same bytes, two or more each.

    Only what has the same size is read: files, and folders of frames by their number and the sizes of their ends. What
    can't be read is like nothing else.
    """
    by_size: dict[Hashable, list[int]] = defaultdict(list)
    for place, path in enumerate(paths):
        by_size[_size(path) or (path, place)].append(place)
    suspects = [place for places in by_size.values() if len(places) > 1 for place in places]
    by_content: dict[str, list[int]] = defaultdict(list)
    if suspects:
        progress.phase("compare files of one size", total=len(suspects), unit="files")
    for done, place in enumerate(suspects, 1):
        by_content[_digest(paths[place]) or f"unreadable {place}"].append(place)
        progress.update(done)
    return [places for places in by_content.values() if len(places) > 1]


def _size(path: str) -> tuple[int, ...] | None:
    """What equal content has in common; None where it can't be told, or is nothing."""
    try:
        files = _files(path)
        ends = [os.stat(file).st_size for file in (files[0], files[-1])]  # noqa: PTH116 (a Path each costs more)
    except (OSError, DecodeError):
        return None
    return (len(files), *ends) if any(ends) else None


def _files(path: str) -> list[str]:
    return [f"{path}/{name}" for name in frame_names(path)] if os.path.isdir(path) else [path]  # noqa: PTH112 (the same)


def _digest(path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        for file in _files(path):
            with Path(file).open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    except (OSError, DecodeError):
        return None
    return digest.hexdigest()
