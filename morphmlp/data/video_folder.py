"""The files below a folder of videos: listed once, then looked up by name.

One listing instead of a question per video: 240,000 names take a second, on a network file system too.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from morphmlp.errors import ManifestError

EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
"""Of videos whose annotations don't say it, in order of preference."""
_STAT_THREADS = 8
_STAT_CHUNK = 2048


class VideoFolder:
    """An index of the files below a folder; symbolic links are followed.

    Raises:
        ManifestError: There's no such folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        if not self.root.is_dir():
            raise ManifestError(f"{root}: no such folder of videos (--videos)")
        self._files = set(_files_below(self.root))
        self._by_stem: dict[str, str] = {}
        for extension in reversed(EXTENSIONS):
            ending = len(extension)
            self._by_stem.update((name[:-ending], name) for name in self._files if name.endswith(extension))

    def exact(self, name: str) -> str | None:
        """The absolute path of a file named from the folder on, or None."""
        path = self.absolute(name)
        inside = os.path.relpath(path, self.root)
        there = Path(path).is_file() if inside.startswith("..") else inside in self._files
        return path if there else None

    def by_stem(self, stems: Iterable[str]) -> str | None:
        """The absolute path of the first file there is, named from the folder on and without extension."""
        for stem in stems:
            if name := self._by_stem.get(stem):
                return f"{self.root}/{name}"
        return None

    def absolute(self, name: str) -> str:
        """A name from the folder on as a full path, whether it's there or not."""
        return os.path.normpath(f"{self.root}/{name}" if not name.startswith("/") else name)

    def other_extension(self, name: str) -> str | None:
        """A file that differs from a missing one only in its extension: most likely what was meant."""
        return self._by_stem.get(name.rsplit(".", 1)[0])


def sizes_bytes(paths: Sequence[str | None]) -> list[int | None]:
    """Sizes of files; None stays None, and so does a link that leads nowhere."""
    chunks = [paths[start : start + _STAT_CHUNK] for start in range(0, len(paths), _STAT_CHUNK)]
    with ThreadPoolExecutor(_STAT_THREADS) as threads:
        return [size for sizes in threads.map(_sizes, chunks) for size in sizes]


def _sizes(paths: Sequence[str | None]) -> list[int | None]:
    sizes: list[int | None] = []
    for path in paths:
        try:
            sizes.append(None if path is None else os.stat(path).st_size)  # noqa: PTH116 - a Path each costs more
        except OSError:
            sizes.append(None)
    return sizes


def _files_below(root: Path) -> list[str]:
    """Names of all files below a folder, from the folder on, with forward slashes."""
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [("", str(root))]
    while waiting:
        prefix, folder = waiting.pop()
        status = os.stat(folder)  # noqa: PTH116 - the same
        if (status.st_dev, status.st_ino) in seen:  # a link back up
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    names.append(prefix + entry.name)
    return names
