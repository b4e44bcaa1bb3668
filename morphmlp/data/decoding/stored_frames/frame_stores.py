"""Videos whose frames are files of their own: in a folder, or in one ZIP archive, stored as they are.

An archive is one file per video instead of a hundred, with random access to each frame. `unzip` gives the folder back
bit for bit, and the archive's checksums show damage that JPEG itself can't. A single such file is an image, which is a
video of one frame.
"""

import errno
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from morphmlp.data.decoding.protocol import VideoReader, require_content
from morphmlp.data.decoding.stored_frames.frame_names import ordered_names, shown, split_template
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage, image_bytes
from morphmlp.data.decoding.stored_frames.label_maps import LabelMapReader
from morphmlp.data.decoding.stored_frames.stills import ImageReader, Shown, StillsReader
from morphmlp.errors import DecodeError
from morphmlp.files import atomic_file

SUFFIX = ".zip"
"""Ending of the names of packed videos."""

_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format has
_READABLE = 0o100644 << 16


def open_frame_folder(path: str, *, num_frames: int | None = None, by: str = "simplejpeg") -> VideoReader:
    """Open a folder of frames; it's listed once.

    `num_frames` of them are used, where the list promises a number; a template of their names may end the path.

    Raises:
        DecodeError: The folder can't be read, or its frames don't make a video.
    """
    folder, _ = split_template(path)
    names = frame_names(path, num_frames=num_frames)
    return StillsReader(names, lambda name: _load_frame(folder, name), where=folder, by=by)


def open_image(
    path: str,
    image: StoredImage | None = None,
    *,
    crc32: int | None = None,
    by: str = "simplejpeg",
) -> ImageReader:
    """Open an image as a video of one frame, whatever its name says of its kind.

    Args:
        path: The file that is it, or holds it.
        image: Where in the file it lies, and how it's shown, or that it's a label map; None: the file is the image,
            and shown upright.
        crc32: What its bytes must have; None: not checked.
        by: What decodes JPEGs.

    Raises:
        DecodeError: It can't be read, or isn't an image.
    """
    folder, _, name = path.rpartition("/")
    where = f"{folder or '.'}: {shown(name)}"
    if image is not None and image.member is not None:
        where = f"{path}: {shown(image.member)}"
    try:
        data = image_bytes(path, image, crc32=crc32)
    except DecodeError as error:
        raise DecodeError(f"{where} {error}") from None
    if image is not None and image.labels is not None:
        return LabelMapReader(data, labels=image.labels, where=where)
    shown_as: Shown = "as stored" if image is not None and image.as_stored else "upright"
    return ImageReader(data, shown=shown_as, where=where, by=by)


def frame_names(path: str, *, num_frames: int | None = None) -> tuple[str, ...]:
    """Names of a folder's frames, first to last.

    Raises:
        DecodeError: As for `open_frame_folder`.
    """
    folder, template = split_template(path)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        raise DecodeError(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    return ordered_names(names, where=folder, num_frames=num_frames, template=template)


def _load_frame(folder: str, name: str) -> bytes:
    """The bytes of a frame.

    Raises:
        DecodeError: The file can't be read.
    """
    try:
        return Path(folder, name).read_bytes()
    except OSError as error:
        raise DecodeError(f"can't be read: {(error.strerror or str(error)).lower()}") from None


def is_pack(path: str) -> bool:
    """Whether a path is that of packed frames."""
    return path.lower().endswith(SUFFIX)


def open_packed_frames(path: str, *, num_frames: int | None = None, by: str = "simplejpeg") -> VideoReader:
    """Open an archive of frames.

    `num_frames` of them are used, where the list promises a number.

    Raises:
        DecodeError: It's missing, no archive, a compressed one, or its frames don't make a video (see `stills`).
    """
    require_content(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # noqa: BLE001 (zipfile raises several types at damaged directories)
        raise DecodeError(f"{path} is not a readable archive: {error}") from None
    names = ordered_names(archive.namelist(), where=path, num_frames=num_frames)
    compressed = [name for name in names if archive.getinfo(name).compress_type != zipfile.ZIP_STORED]
    if compressed:
        raise DecodeError(f"{path}: {shown(compressed[0])} is compressed; frames must be stored (zip -0)")
    return StillsReader(names, lambda name: _load_entry(archive, name), where=path, by=by)


def pack_frames(folder: str | Path, target: str | Path) -> int:
    """Pack a folder of frames into an archive; the same frames always make the same bytes.

    The archive appears under its name when it's complete, never in part. Frames keep their names; those that a template
    picks are numbered anew, from 1, for an archive has no template.

    Returns:
        How many frames it holds.

    Raises:
        DecodeError: The folder's frames don't make a video, or one can't be read.
        OSError: The archive can't be written, or doesn't give back what was.
    """
    (path, template), target = split_template(str(folder)), Path(target)
    names = frame_names(str(folder))
    stored = [f"{number:05}{Path(name).suffix.lower()}" for number, name in enumerate(names, 1)] if template else names
    with atomic_file(target) as unfinished:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for name, stored_name in zip(names, stored, strict=True):
                entry = zipfile.ZipInfo(stored_name, _NO_DATE)
                entry.create_system, entry.external_attr = 3, _READABLE  # as on Unix, wherever it's made
                archive.writestr(entry, _load_frame(path, name))
        _require_written(unfinished, stored)
    return len(names)


def _require_written(path: Path, names: Sequence[str]) -> None:
    """Read an archive back: its checksums are those of the bytes that were to be written."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_right = archive.namelist() == list(names) and archive.testzip() is None
    except zipfile.BadZipFile:
        is_right = False
    if not is_right:
        raise OSError(errno.EIO, "what was written reads back differently")


def _load_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except Exception as error:  # noqa: BLE001 (checksums, offsets, flags: each has its own type)
        raise DecodeError(f"can't be read from the archive: {error}") from None
