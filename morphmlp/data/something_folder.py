"""The videos of Something-Something in one folder: `<id>/` with frames, `<id>.zip` with packed frames, or a video file.

The folder is listed once, which takes a moment for 220,000 entries; the frames themselves are looked at when they are
decoded.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from morphmlp.data.annotation_formats import AnnotatedVideo
from morphmlp.data.video_folder import EXTENSIONS
from morphmlp.errors import ManifestError

FRAMES = ("", ".zip")
"""A folder of frames, frames packed into one file: what a frame list and the official V1 annotations speak of."""
VIDEOS_OR_FRAMES = (".webm", *(extension for extension in EXTENSIONS if extension != ".webm"), *FRAMES)
"""Video files first, as V2 is distributed."""
_THREADS = 8
_CHUNK = 1024


class SomethingFolder:
    """An index of one folder, not of what lies below; symbolic links are followed.

    Args:
        root: The folder.
        endings: What may follow a video's id, the most wanted first.

    Raises:
        ManifestError: There's no such folder.
    """

    def __init__(self, root: str | Path, endings: Sequence[str]) -> None:
        self.root = Path(root).absolute()
        if not self.root.is_dir():
            raise ManifestError(f"{root}: no such folder of videos (--videos)")
        self._endings = tuple(endings)
        self.hint = f"{self.root}: looked for " + ", ".join(
            f"<id>{ending}" if ending else "folders <id>" for ending in endings
        )
        with os.scandir(self.root) as entries:
            self._is_folder = {entry.name: entry.is_dir() for entry in entries}

    def find(self, rows: Sequence[AnnotatedVideo]) -> list[str | None]:
        """The path of each video, None where there's nothing but, at most, an empty folder."""
        video_ids = [row.video_id for row in rows]
        chunks = [video_ids[start : start + _CHUNK] for start in range(0, len(video_ids), _CHUNK)]
        # Threads: looking into a folder of frames is a question to the file system each.
        with ThreadPoolExecutor(_THREADS) as threads:
            return [path for paths in threads.map(self._find_all, chunks) for path in paths]

    def expected(self, row: AnnotatedVideo) -> str:
        """The path that a missing video would have."""
        return f"{self.root}/{row.video_id}{self._endings[0]}"

    def missing_text(self, row: AnnotatedVideo) -> str:
        """What to say of a video that `find` doesn't find."""
        if self._is_folder.get(row.video_id) and "" in self._endings:
            return f"{self.root}/{row.video_id} is an empty folder; it must hold the frames of the video"
        return f"no video {row.video_id}"

    def _find_all(self, video_ids: Sequence[str]) -> list[str | None]:
        return [self._find(video_id) for video_id in video_ids]

    def _find(self, video_id: str) -> str | None:
        for ending in self._endings:
            path = f"{self.root}/{video_id}{ending}"
            is_folder = self._is_folder.get(video_id + ending)
            if is_folder is None or is_folder == bool(ending):
                continue
            if not is_folder or _has_entries(path):
                return path
        return None


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return True  # It can't be opened: decoding says why, which "empty" would not.
