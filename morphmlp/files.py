"""Files that are complete under their name or not there at all, even after a crash of the machine."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".unfinished"
"""How the hidden names end that files have while they are written; a killed process leaves one behind."""


class FilePath:
    """The path of one of an object's files, by a pattern over the object's fields."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __get__(self, owner: object, kind: type) -> Path:
        return Path(self._pattern.format(**vars(owner)))


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A path to write a file to: it takes its name, in the same folder, when the block ends well, else it is removed.

    Without `sync` the disk needn't have it then, and a crash of the machine may leave a file of the right name with
    holes in it; for what can be made again and has a checksum.

    Raises:
        OSError: The file can't be written; what was there under its name is still there.
    """
    # Random, not the process's number: two nodes that share the folder may have the same.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(3)}{UNFINISHED}")
    try:
        yield unfinished
        if sync:
            fsync(unfinished)
        unfinished.replace(path)
    finally:
        with suppress(OSError):  # what keeps it from being written may keep it from being removed
            unfinished.unlink(missing_ok=True)
    if sync:
        fsync_folder(path.parent)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a whole file; what is raised is as for `atomic_file`."""
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def fsync(path: Path | str) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path | str) -> None:
    """Wait until the names in a folder are on the disk, where its file system can say so."""
    with suppress(OSError):
        fsync(path)
