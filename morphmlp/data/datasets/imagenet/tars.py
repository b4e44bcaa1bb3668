"""Images in tar archives, found by reading the headers alone: no image is read, and nothing is unpacked.

The official training archive is a tar of one tar for each class, the validation archive is flat, and a WebDataset
shard holds an image and its label next to each other: `key.jpg`, `key.cls` or `key.json`.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple, cast

from morphmlp.data.datasets.imagenet.found import WNID, FoundImage, is_image_name, stem_of
from morphmlp.data.datasets.video_folder import is_text
from morphmlp.data.decoding.stored_frames.frame_names import shown
from morphmlp.errors import ManifestError

_BLOCK = 512
_MOST_FILLED = tarfile.RECORDSIZE + _BLOCK
_LABELS = ("cls", "json")
_LABEL_KEYS = ("label", "cls", "class_index")


class _Member(NamedTuple):
    name: str
    offset: int
    """Of its bytes, from the start of the outer file."""
    size: int


def images_in_tar(path: Path) -> Iterator[FoundImage]:
    """The images of an archive in any of the forms.

    Raises:
        ManifestError: It's no tar, cut short, or an image's label can't be told.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
    with file:
        members = _members(file, where=str(path))
        first = next(members, None)
        if first is None:
            raise ManifestError(f"{path}: holds no files")
        if first.name.endswith(".tar"):
            yield from _of_classes(file, first, members, path)
        elif WNID.fullmatch(path.stem):
            yield from _of_one_class(path.stem, [first, *members], path)
        else:
            yield from _samples([first, *members], path)


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an archive, without times and owners: the same files make the same archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _of_classes(file: IO[bytes], first: _Member, members: Iterator[_Member], path: Path) -> Iterator[FoundImage]:
    """A tar of tars: each is named as its class."""
    for member in [first, *members]:
        if not member.name.endswith(".tar"):
            raise ManifestError(
                f"{path}: holds {member.name} next to {first.name}; it must be a tar of one tar for each class"
            )
        label = Path(member.name).stem
        inner = _members(cast(IO[bytes], _Window(file, member)), where=f"{path}: {member.name}", base=member.offset)
        yield from _of_one_class(label, inner, path)


def _of_one_class(label: str | None, members: "Iterator[_Member] | list[_Member]", path: Path) -> Iterator[FoundImage]:
    for member in members:
        if not is_image_name(member.name):
            raise ManifestError(f"{path}: holds {member.name}, which isn't named as an image")
        yield _found(member, label, path)


def _found(member: _Member, label: str | int | None, path: Path) -> FoundImage:
    return FoundImage(stem_of(member.name)[0], label, str(path), member.size, member.name, member.offset)


def _samples(members: list[_Member], path: Path) -> Iterator[FoundImage]:
    """A WebDataset shard, or a flat archive without any labels."""
    if all(is_image_name(member.name) for member in members):
        yield from _of_one_class(None, members, path)
        return
    with path.open("rb") as file:
        for key, group in groupby(members, key=lambda member: _key_and_kind(member.name)[0]):
            parts = {_key_and_kind(member.name)[1]: member for member in group}
            images = [member for member in parts.values() if is_image_name(member.name)]
            label = next((_label(file, parts[kind], kind) for kind in _LABELS if kind in parts), None)
            if len(images) != 1 or label is None:
                raise ManifestError(
                    f"{path}: sample {key} has {', '.join(sorted(parts))}; it must have an image and its label "
                    f"(.cls with a number, or .json with {' or '.join(_LABEL_KEYS)})"
                )
            yield _found(images[0], label, path)


def _key_and_kind(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the last part of the path."""
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def _label(file: IO[bytes], member: _Member, kind: str) -> int | None:
    content = os.pread(file.fileno(), member.size, member.offset)
    try:
        if kind == "cls":
            return int(content)
        said = json.loads(content)
        return next((int(said[key]) for key in _LABEL_KEYS if key in said), None)
    except (ValueError, TypeError):
        return None


def _members(file: IO[bytes], *, where: str, base: int = 0) -> Iterator[_Member]:
    """The files of an archive, once each header has been read; the archive must be complete."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    cut = ManifestError(f"{where}: is cut short or damaged; get it again")
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (for a generator's time)
    except tarfile.TarError:
        raise ManifestError(f"{where}: isn't an uncompressed tar archive") from None
    try:
        for member in archive:
            if member.isfile():
                if member.offset_data + member.size > size:
                    raise cut
                if not is_text(member.name):
                    raise ManifestError(
                        f"{where}: {shown(member.name)} isn't named in UTF-8, which a manifest can't hold"
                    )
                yield _Member(member.name, base + member.offset_data, member.size)
    except tarfile.TarError:
        raise cut from None
    # `tarfile` takes the end of the file, and any nonsense, for the archive's end. The true one is a block of zeros,
    # filled up to a record; more zeros are a hole that a download left.
    file.seek(archive.offset)
    if file.read(_BLOCK) != bytes(_BLOCK) or size - archive.offset > _MOST_FILLED:
        raise cut


class _Window:
    """A part of a file as a file of its own, for an archive in an archive."""

    def __init__(self, file: IO[bytes], part: _Member) -> None:
        self._file, self._part, self._place = file, part, 0

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self._place = place + (0, self._place, self._part.size)[whence]
        return self._place

    def tell(self) -> int:
        """Where it is."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Bytes up to the end of the part."""
        rest = max(self._part.size - self._place, 0)
        data = os.pread(self._file.fileno(), rest if size < 0 else min(size, rest), self._part.offset + self._place)
        self._place += len(data)
        return data
