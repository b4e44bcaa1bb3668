"""Images as files of their own: a folder for each class, or all in one folder."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from morphmlp.data.datasets.imagenet.found import FoundImage, is_image_name, stem_of
from morphmlp.data.datasets.lines import composed
from morphmlp.data.datasets.video_folder import is_text
from morphmlp.data.decoding.stored_frames.frame_names import shown
from morphmlp.errors import ManifestError

_THREADS = 16
"""On a network file system each question waits for its answer."""


def images_in_folder(root: Path, *, passed_over: Counter[str]) -> Iterator[FoundImage]:
    """The images of class folders, however deep they lie there; without class folders, those right in the folder.

    Args:
        root: The folder.
        passed_over: Gets the count of files that aren't images, by extension.

    Raises:
        ManifestError: A folder can't be listed, a class folder holds no image, or a name isn't UTF-8.
    """
    try:
        with os.scandir(root) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ManifestError(f"{root}: can't be listed: {error.strerror}") from None
    folders = [entry.name for entry in listed if entry.is_dir() and not entry.name.startswith(".")]
    if not folders:
        yield from _flat(root, [entry for entry in listed if entry.is_file()], passed_over)
        return
    passed_over.update(_kind(entry.name) for entry in listed if entry.is_file())
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, (found, rest) in zip(folders, pool.map(lambda name: _in_class(root, name), folders), strict=True):
            if not found:
                raise ManifestError(f"{root / name}: holds no images; is it a class? Remove the folder, or fill it")
            passed_over.update(rest)
            yield from found


def _flat(root: Path, files: "list[os.DirEntry[str]]", passed_over: Counter[str]) -> Iterator[FoundImage]:
    for entry in files:
        if is_image_name(entry.name):
            yield _found(f"{root.absolute()}/{entry.name}", entry.name, None, entry.stat().st_size)
        else:
            passed_over[_kind(entry.name)] += 1


def _in_class(root: Path, label: str) -> tuple[list[FoundImage], Counter[str]]:
    found, passed_over = [], Counter[str]()
    top = root / label
    for folder, names, files in os.walk(top, onerror=_refuse):
        names.sort()
        below = os.path.relpath(folder, top)
        for name in sorted(files):
            if is_image_name(name):
                path = f"{os.path.abspath(folder)}/{name}"  # noqa: PTH100 - links stay, and a Path each costs more
                inside = name if below == "." else f"{below}/{name}"
                found.append(_found(path, inside, label, os.stat(path).st_size))  # noqa: PTH116 - the same
            else:
                passed_over[_kind(name)] += 1
    return found, passed_over


def _found(path: str, inside: str, label: str | None, size: int) -> FoundImage:
    if not is_text(path):
        raise ManifestError(f"{shown(path)}: isn't named in UTF-8, which a manifest can't hold (`convmv -t utf8`)")
    folder, slash, name = inside.rpartition("/")
    stem = composed(f"{folder}{slash}{stem_of(name)[0]}")
    return FoundImage(stem, None if label is None else composed(label), path, size)


def _refuse(error: OSError) -> None:
    raise ManifestError(f"{shown(str(error.filename))}: can't be listed: {error.strerror}")


def _kind(name: str) -> str:
    if name.startswith("."):
        return "hidden"
    return os.path.splitext(name)[1].lower() or "without extension"  # noqa: PTH122 - a Path each costs more
