"""An image as it's found, whatever holds it, before its label is a number."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of the names of images, in small letters; their content alone says what they are."""
WNID = re.compile(r"n[0-9]{8}")
_HUB_SUFFIX = re.compile(r"_(n[0-9]{8})$")


class FoundImage(NamedTuple):
    """One image."""

    stem: str
    """Its name without folders and extension; unique in its class, and the same in every storage form."""
    label: str | int | None
    """Name of its class, or its number in the order of the classes; None: the devkit says it."""
    path: str
    size_bytes: int
    member: str | None = None
    offset: int | None = None
    blocks: tuple[int, int, int] | None = None
    """Offset, length and unpacked size of the Snappy blocks that hold it; see `StoredImage`."""


def image_cells(images: Sequence[FoundImage]) -> Mapping[str, Sequence[object]]:
    """The columns `morphmlp.data.columns.IMAGE` of images, shown as stored; without those that none of them needs."""
    cells: dict[str, Sequence[object]] = {"as_stored": [True] * len(images)}
    if any(image.member is not None for image in images):
        cells["member"] = [image.member for image in images]
        cells["offset"] = [image.offset for image in images]
        cells["length"] = [image.size_bytes for image in images]
    if any(image.blocks is not None for image in images):
        for number, name in enumerate(("blocks_offset", "blocks_length", "blocks_unpacked")):
            cells[name] = [None if image.blocks is None else image.blocks[number] for image in images]
    return cells


def is_image_name(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def stem_of(name: str) -> tuple[str, str | None]:
    """A file's name without folders and extension, and the WordNet id in it.

    The hub's names end in it (`ILSVRC2012_val_00000293_n01440764.JPEG`), which the official ones don't: it's cut off.
    """
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    if (ending := _HUB_SUFFIX.search(stem)) is not None:
        return stem[: ending.start()], ending[1]
    start = WNID.match(stem)
    return stem, None if start is None else start[0]
