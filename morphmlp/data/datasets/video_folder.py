"""The files below a folder of videos, looked up by the names that annotations give them.

Only the folders that annotations speak of are listed, each once: 240,000 names take a second, on a network file system
too, and folders of frames aren't looked into beyond whether they are empty. Extensions match whatever their case, and
accented letters whether they are stored as one character or two (NFC or NFD).
"""

import os
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from morphmlp.data.decoding.stored_frames.frame_names import EXAMPLES, PICTURES, printf_template, shown, stored_path
from morphmlp.errors import ManifestError

EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".3gp", ".wmv")
"""Of videos whose annotations don't say it, in order of preference."""
_OTHER_EXTENSIONS = (".m2ts", ".mts", ".vob", ".ogv", ".asf", ".divx", ".f4v", ".rm", ".rmvb", ".zip", *PICTURES)
"""Not looked for, but taken for extensions where annotations say them."""
FOLDER = "/"
"""Stands among endings for a folder of frames that has the name alone."""
FRAMES = (FOLDER, ".zip")
"""Frames that are stored one by one: in a folder, or packed into one file."""
VIDEOS_OR_FRAMES = (*EXTENSIONS, *FRAMES)
_KNOWN = frozenset((*EXTENSIONS, *_OTHER_EXTENSIONS))
_THREADS = 8
_CHUNK = 1024


class Wanted(Protocol):
    """A video to be looked for: under each of the names, with each of the endings, the most wanted first."""

    @property
    def names(self) -> Sequence[str]:
        """Paths from the folder on, or absolute ones, without their endings."""

    @property
    def endings(self) -> Sequence[str]:
        """Extensions, `FOLDER`, or nothing for a file that has the name alone."""


class VideoFolder:
    """A folder of videos; symbolic links are followed.

    `frame_template` says how frames are named in folders of frames, where that isn't to be found out; the paths of
    these folders end in it.

    Raises:
        ManifestError: There's no such folder, or the template is none.
    """

    def __init__(self, root: str | Path, *, frame_template: str | None = None) -> None:
        self.template = "" if frame_template is None else f"/{_checked_template(frame_template)}"
        self.root = Path(root).absolute()
        require_text(str(self.root), "--videos")
        if not self.root.is_dir():
            raise ManifestError(f"{root}: no such folder of videos (--videos)")
        self._listings: dict[str, _Listing] = {}
        self._listings_of: dict[str, _Listing] = {}
        self._listing_one = threading.RLock()

    def find(self, videos: Sequence[Wanted]) -> list[str | None]:
        """The absolute path of each video; None where there's nothing but, at most, an empty folder.

        Raises:
            ManifestError: A folder can't be listed.
        """
        chunks = [videos[start : start + _CHUNK] for start in range(0, len(videos), _CHUNK)]
        # Threads: looking into a folder of frames is a question to the file system each.
        with ThreadPoolExecutor(_THREADS) as threads:
            return [path for paths in threads.map(lambda chunk: list(map(self._find, chunk)), chunks) for path in paths]

    def expected(self, video: Wanted) -> str:
        """The path that a missing video would have."""
        return self.absolute(video.names[0] + video.endings[0])

    def absolute(self, name: str) -> str:
        """A name from the folder on as a full path, whether it's there or not."""
        return os.path.normpath(os.path.join(self.root, name))  # noqa: PTH118 - a Path each costs more

    def empty_folder(self, video: Wanted) -> str | None:
        """The folder in which frames of a missing video should be, where there is one."""
        path = self.absolute(video.names[0])
        parent, _, name = path.rpartition("/")
        return path if FOLDER in video.endings and self._listing(parent).find(name, is_folder=True) else None

    def other_extension(self, video: Wanted) -> str | None:
        """Name of a file that differs from a missing one only in its extension: most likely what was meant."""
        parent, _, name = self.absolute(video.names[0]).rpartition("/")
        listing = self._listing(parent)
        return next((found for ending in EXTENSIONS if (found := listing.find(name + ending))), None)

    def folders(self, *, most: int) -> list[Path]:
        """The first so many folders right in it."""
        entries = self._listing(str(self.root)).entries
        return [self.root / name for name in sorted(name for name, is_folder in entries.items() if is_folder)[:most]]

    def names_without_text(self) -> list[str]:
        """Names that were met and aren't UTF-8, so that no list can speak of them, with their bytes escaped."""
        found = [f"{listing.path}/{name}" for listing in self._listings.values() for name in listing.without_text]
        return sorted(map(shown, found))

    def _find(self, video: Wanted) -> str | None:
        for name in video.names:
            parent, slash, last = name.rpartition("/")
            listing = self._listing_of(parent + slash)
            for ending in video.endings if listing.entries else ():
                found = listing.find(last, is_folder=True) if ending == FOLDER else listing.find(last + ending)
                path = f"{listing.path}/{found}"
                if found and ending != FOLDER:
                    return path
                if found and _has_entries(path):
                    return path + self.template
        return None

    def _listing_of(self, parent: str) -> "_Listing":
        """The entries of a folder that is named as in annotations."""
        if (known := self._listings_of.get(parent)) is None:
            known = self._listings_of[parent] = self._listing(self.absolute(parent))
        return known

    def _listing(self, folder: str) -> "_Listing":
        """The entries of a folder; none where it isn't there."""
        if (known := self._listings.get(folder)) is not None:
            return known
        with self._listing_one:
            if folder not in self._listings:
                self._listings[folder] = _Listing(self._as_stored(folder))
            return self._listings[folder]

    def _as_stored(self, folder: str) -> str:
        """A folder under the name that it has on disk, which may differ in how its accents are stored."""
        parent, _, name = folder.rpartition("/")
        if folder.isascii() or not parent or Path(folder).is_dir():
            return folder
        listing = self._listing(parent)
        return f"{listing.path}/{listing.find(name, is_folder=True) or name}"


class _Listing:
    """The entries of one folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.entries: dict[str, bool] = {}
        self._by_key: dict[str, list[str]] = {}
        self.without_text: list[str] = []
        try:
            with os.scandir(path or "/") as entries:
                self.entries = {entry.name: entry.is_dir() for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise ManifestError(f"{shown(path)}: can't be listed: {error.strerror or error}") from None
        for name in self.entries:
            if (key := _key(name)) != name:
                self._by_key.setdefault(key, []).append(name)
            if not is_text(name):
                self.without_text.append(name)

    def find(self, name: str, *, is_folder: bool = False) -> str | None:
        """The name of an entry as it is on disk; None where there's no such file, or no such folder."""
        if self.entries.get(name) is is_folder:
            return name
        key = _key(name)
        alike = (key, *sorted(self._by_key.get(key, ())))
        return next((found for found in alike if self.entries.get(found) is is_folder), None)


def without_extension(name: str) -> tuple[str, str]:
    """A name and its extension; what stands behind another dot (`v1.2`) is part of the name."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if stem and f".{extension.lower()}" in _KNOWN else (name, "")


def _key(name: str) -> str:
    """What names that mean the same have in common."""
    stem, extension = without_extension(name)
    name = stem + extension.lower()
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _checked_template(text: str) -> str:
    if (template := printf_template(text)) is None:
        raise ManifestError(
            f"--frame-template: {text!r} must be a file name with one number and .jpg or .png, as img_%05d.jpg or "
            f"img_{{:05}}.jpg; without it, frames are named as {EXAMPLES}"
        )
    return template


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8: Python keeps other bytes of it as lone surrogates, which no table takes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_text(path: str, what: str) -> None:
    """Refuse a path that no manifest can hold: one that isn't UTF-8."""
    if not is_text(path):
        raise ManifestError(
            f"{what}: {shown(path)} isn't UTF-8 text, which a manifest can't hold; rename it (`convmv -t utf8`), "
            "or reach it by a symbolic link"
        )


def sizes_bytes(paths: Sequence[str | None]) -> list[int | None]:
    """Sizes of files; None stays None, and so does a link that leads nowhere."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as threads:
        return [size for sizes in threads.map(_sizes, chunks) for size in sizes]


def _sizes(paths: Iterable[str | None]) -> list[int | None]:
    sizes: list[int | None] = []
    for path in paths:
        try:
            sizes.append(None if path is None else os.stat(stored_path(path)).st_size)  # noqa: PTH116 - a Path each costs more
        except OSError:
            sizes.append(None)
    return sizes


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return True  # It can't be opened: decoding says why, which "empty" would not.
