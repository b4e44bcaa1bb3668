"""Fashion-MNIST: the four official files, written as JPEGs in the forms in which people hold large sets of images.

Official are 60,000 training and 10,000 test images, 28 x 28 grey levels in 10 classes (Xiao, Rasul, Vollgraf, 2017; MIT
licence). The test images stay the test; of each class a twentieth of the training images, by hash, is validation.

DIR/train/<class>/<number>.jpg, DIR/test/...          class folders
DIR/train.parquet, val.parquet, test.parquet          manifests
"""

import gzip
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morphmlp.data.datasets.splits import SplitRule, assign_splits
from morphmlp.data.manifest import Manifest, manifest_from_rows, write_manifest, writing
from morphmlp.errors import ManifestError
from morphmlp.files import atomic_write

CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""In label order."""
OFFICIAL = {"train": "train", "test": "t10k"}
"""The official splits, and what their files' names begin with."""
WHERE = "Debian's package dataset-fashion-mnist has them in /usr/share/datasets/fashion-mnist"
_RULE = SplitRule(shares=(19, 1))
_IMAGES, _LABELS = 0x803, 0x801
"""First four bytes of a file: unsigned bytes in three dimensions, and in one."""
_QUALITY = 95
_MARKER = "fashion-mnist.json"


@dataclass(frozen=True, kw_only=True)
class OfficialImage:
    """One image, encoded."""

    split: str
    """The official one, train or test."""
    number: int
    """Its place in the official file, from 0."""
    label: int
    jpeg: bytes

    @property
    def image_id(self) -> str:
        """Its id in the manifests, and its path without extension in class folders: `train/Ankle boot/00000`."""
        return f"{self.split}/{CLASS_NAMES[self.label].replace('/', '-')}/{self.number:05d}"


def read_idx(source: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey levels `[n 28 28]` and labels `[n]` of an official split, from its `.gz` files or unpacked ones.

    Raises:
        ManifestError: A file is missing, damaged or of another kind, or the two don't belong together.
    """
    prefix = OFFICIAL[split]
    pixels = _idx_array(source, f"{prefix}-images-idx3-ubyte", _IMAGES)
    labels = _idx_array(source, f"{prefix}-labels-idx1-ubyte", _LABELS)
    if len(pixels) != len(labels):
        raise ManifestError(f"{source}: {prefix} has {len(pixels)} images and {len(labels)} labels; get them again")
    if not len(labels) or labels.max() >= len(CLASS_NAMES):
        raise ManifestError(f"{source}: labels of {prefix} must be 0 to {len(CLASS_NAMES) - 1}, of at least one image")
    return pixels, labels


def _idx_array(source: Path, name: str, magic: int) -> NDArray[np.uint8]:
    packed, plain = source / f"{name}.gz", source / name
    path = plain if plain.exists() and not packed.exists() else packed
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path == packed else data
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file; {WHERE}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ManifestError(f"{path}: can't be read: {error}; get it again") from None
    dimensions = magic & 0xFF
    head = struct.unpack_from(f">{1 + dimensions}I", data.ljust(16, b"\0"))
    begin, shape = 4 * len(head), head[1:]
    if head[0] != magic or len(data) - begin != np.prod(shape, dtype=np.int64):
        raise ManifestError(
            f"{path}: is damaged or another file: it has {len(data)} bytes and begins with {head[0]:#010x}; an idx "
            f"file of {dimensions} dimensions begins with {magic:#010x} and its sizes; get it again"
        )
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def encoded_images(source: Path, split: str) -> Iterator[OfficialImage]:
    """The images of an official split as grey JPEGs, in their order.

    Raises:
        ManifestError: As `read_idx`.
    """
    for number, (pixels, label) in enumerate(zip(*read_idx(source, split), strict=True)):
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
        yield OfficialImage(split=split, number=number, label=int(label), jpeg=buffer.getvalue())


def write_fashion_mnist(source: Path, output: Path) -> dict[str, Manifest]:
    """Write the images and their manifests; returns these by split. The same command again writes the same bytes.

    Raises:
        ManifestError: The files can't be read, or the folder holds something else or can't be written.
    """
    with writing(output):
        _begin(output)
        manifests: dict[str, Manifest] = {}
        for official in OFFICIAL:
            images, paths = [], []
            for image in encoded_images(source, official):
                path = output / f"{image.image_id}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image.jpeg)
                images.append(image)
                paths.append(path)
            manifests.update(_manifests(images, paths))
        for split, manifest in manifests.items():
            write_manifest(manifest, output / f"{split}.parquet")
    return manifests


def _begin(output: Path) -> None:
    """Mark the folder as this data set's; one that holds something else isn't touched."""
    marker = output / _MARKER
    if output.is_dir() and any(output.iterdir()) and not marker.exists():
        raise ManifestError(f"{output}: holds something else than Fashion-MNIST; choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(marker, json.dumps({"data set": "Fashion-MNIST", "jpeg quality": _QUALITY}) + "\n")


def _manifests(images: Sequence[OfficialImage], paths: Sequence[Path]) -> Mapping[str, Manifest]:
    """The manifests of an official split: test, or train and val."""
    ids = [image.image_id for image in images]
    classes = [CLASS_NAMES[image.label] for image in images]
    kept = ["test" if image.split == "test" else None for image in images]
    splits = assign_splits(_RULE, groups=ids, classes=classes, kept=kept)
    rows = {split: [row for row, its in enumerate(splits) if its == split] for split in sorted(set(splits))}
    return {
        split: manifest_from_rows(
            video_ids=[ids[row] for row in chosen],
            paths=[str(paths[row].absolute()) for row in chosen],
            labels=[images[row].label for row in chosen],
            splits=[split] * len(chosen),
            sizes_bytes=[len(images[row].jpeg) for row in chosen],
            class_names=CLASS_NAMES,
            items="images",
        )
        for split, chosen in rows.items()
    }
