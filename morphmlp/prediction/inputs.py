"""What a command is to look at: files, folders of files, and lists of paths on standard input."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from morphmlp.data.datasets.video_folder import EXTENSIONS, is_text, without_extension
from morphmlp.data.decoding.stored_frames.frame_names import PICTURES, shown

STANDARD_INPUT = "-"


def each_path(named: Sequence[str], stdin: BinaryIO, *, images: bool) -> Iterator[tuple[str, str]]:
    """The paths of all that is named, as it is read, each with why there is nothing to open (most often empty).

    `-` are the lines of standard input, a folder is what it holds. With `images` pictures are looked for in folders,
    too; without it a folder that holds pictures alone is a video whose frames are stored one by one. A path that isn't
    there is given all the same: whoever opens it has words for it.
    """
    nothing = (
        f"holds no {'videos or images' if images else 'videos'} (files named {', '.join(_endings(images=images))})"
    )
    for name in named:
        paths = _lines(stdin) if name == STANDARD_INPUT else [name]
        found = False
        for path in paths:
            found = True
            if not Path(path).is_dir():
                yield path, ""
                continue
            inside = list(_in_folder(path, images=images))
            yield from ((one, "") for one in inside)
            if not inside:
                yield path, nothing
        if not found:
            yield "standard input", "names no file; it must have a path on each line"


@contextmanager
def as_text(path: str) -> Iterator[str]:
    """The path under a name that is UTF-8, as tables need it: else a link to it that lasts as long as the block."""
    if is_text(path):
        yield path
        return
    with TemporaryDirectory(prefix="named-") as folder:
        _, extension = without_extension(Path(path).name)
        link = Path(folder) / f"video{extension}"
        link.symlink_to(Path(path).absolute())
        yield str(link)


def without_path(error: Exception, path: str) -> str:
    """The reason why a file can't be used in one line, for where its path is said already, or mustn't be."""
    text = " ".join(str(error).split())
    path = shown(path)
    folder, _, name = path.rpartition("/")
    for said in (f"{folder or '.'}: {name} ", f"{path}: ", f"{path} "):
        text = text.removeprefix(said)
        if folder:  # several decoders each say it; a bare name may be part of any word
            text = text.replace(said, "")
    return text.replace(path, "it") if folder else text


def _lines(stdin: BinaryIO) -> Iterable[str]:
    for line in stdin:
        if path := line.rstrip(b"\r\n"):
            yield os.fsdecode(path)


def _endings(*, images: bool) -> tuple[str, ...]:
    return (*EXTENSIONS, *PICTURES) if images else EXTENSIONS


def _in_folder(folder: str, *, images: bool) -> Iterator[str]:
    """What a folder and those in it hold, in the order of the names; hidden files and folders are passed over."""
    endings = _endings(images=images)
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith("."))
        wanted = [name for name in names if name.lower().endswith(endings)]
        if not images and names and not wanted and all(name.lower().endswith(PICTURES) for name in names):
            yield place
        for name in wanted:
            yield os.path.join(place, name)  # noqa: PTH118 - as the user spells the folder
