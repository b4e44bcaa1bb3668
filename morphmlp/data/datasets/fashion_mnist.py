"""Fashion-MNIST: the four official files, written as JPEGs in the forms in which people hold large sets of images.

Official are 60,000 training and 10,000 test images, 28 x 28 grey levels in 10 classes (Xiao, Rasul, Vollgraf, 2017; MIT
licence). The test images stay the test; of each class a twentieth of the training images, by hash, is validation.
Bytes, ids, labels and splits are the same in each form, so that a training can't tell which one it reads.

folder     DIR/train/<class>/<number>.jpg, DIR/test/...
tar        DIR/shards/train-000000.tar: WebDataset's layout, <number>.jpg next to <number>.cls
parquet    DIR/data/train-00000-of-00006.parquet: the hub's layout, image {bytes, path} and label
every      DIR/train.parquet, val.parquet, test.parquet: the manifests
"""

import gzip
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from morphmlp.data.datasets.imagenet.found import FoundImage, image_cells
from morphmlp.data.datasets.imagenet.parquet import images_in_parquet
from morphmlp.data.datasets.imagenet.tars import add_file, images_in_tar
from morphmlp.data.datasets.splits import SplitRule, assign_splits
from morphmlp.data.manifest import Manifest, manifest_from_rows, write_manifest, writing
from morphmlp.errors import ManifestError
from morphmlp.files import atomic_file, atomic_write

Form = Literal["folder", "tar", "parquet"]

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
_IMAGES_A_SHARD = 10_000
_IMAGES_A_GROUP = 100
"""Of a row group, as the hub has them."""
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
    def file_name(self) -> str:
        """`00017.jpg`."""
        return f"{self.number:05d}.jpg"


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


def write_fashion_mnist(source: Path, output: Path, *, form: Form = "folder") -> dict[str, Manifest]:
    """Write the images and their manifests; returns these by split. The same command again writes the same bytes.

    Raises:
        ManifestError: The files can't be read, or the folder holds something else or can't be written.
    """
    with writing(output):
        _begin(output, form)
        manifests: dict[str, Manifest] = {}
        for split in OFFICIAL:
            found = _WRITERS[form](output.absolute(), split, list(encoded_images(source, split)))
            manifests.update(_manifests(split, list(found)))
        for split, manifest in manifests.items():
            write_manifest(manifest, output / f"{split}.parquet")
    return manifests


def _begin(output: Path, form: Form) -> None:
    """Mark the folder as this data set's in this form; one that holds something else isn't touched."""
    marker, text = output / _MARKER, json.dumps({"form": form, "jpeg quality": _QUALITY}) + "\n"
    if output.is_dir() and any(output.iterdir()) and not (marker.exists() and marker.read_text("utf-8") == text):
        raise ManifestError(f"{output}: holds something else than Fashion-MNIST as {form}; choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(marker, text)


def _folder_of(label: int) -> str:
    return CLASS_NAMES[label].replace("/", "-")


def _write_folders(output: Path, split: str, images: Sequence[OfficialImage]) -> Iterator[FoundImage]:
    for image in images:
        path = output / split / _folder_of(image.label) / image.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.jpeg)
        yield FoundImage(path.stem, image.label, str(path), len(image.jpeg))


def _write_tars(output: Path, split: str, images: Sequence[OfficialImage]) -> Iterator[FoundImage]:
    for number, shard in enumerate(_shards(images)):
        path = output / "shards" / f"{split}-{number:06d}.tar"
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as unfinished, tarfile.open(unfinished, "w") as archive:
            for image in shard:
                add_file(archive, image.file_name, image.jpeg)
                add_file(archive, f"{image.number:05d}.cls", str(image.label).encode())
        yield from images_in_tar(path)


def _write_parquet(output: Path, split: str, images: Sequence[OfficialImage]) -> Iterator[FoundImage]:
    labels = {"names": CLASS_NAMES, "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": labels}}}
    shards = _shards(images)
    for number, shard in enumerate(shards):
        path = output / "data" / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
        path.parent.mkdir(exist_ok=True)
        rows = [{"image": {"bytes": each.jpeg, "path": each.file_name}, "label": each.label} for each in shard]
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
        with atomic_file(path) as unfinished:
            pq.write_table(table, unfinished, row_group_size=_IMAGES_A_GROUP)
        yield from images_in_parquet(path)


_WRITERS: Mapping[Form, Callable[[Path, str, Sequence[OfficialImage]], Iterator[FoundImage]]] = {
    "folder": _write_folders,
    "tar": _write_tars,
    "parquet": _write_parquet,
}
"""Each writes an official split and says where its images lie now."""


def _shards(images: Sequence[OfficialImage]) -> list[Sequence[OfficialImage]]:
    return [images[start : start + _IMAGES_A_SHARD] for start in range(0, len(images), _IMAGES_A_SHARD)]


def _manifests(official: str, images: Sequence[FoundImage]) -> Mapping[str, Manifest]:
    """The manifests of an official split: test, or train and val."""
    labels = [int(image.label or 0) for image in images]
    ids = [f"{official}/{_folder_of(label)}/{image.stem}" for label, image in zip(labels, images, strict=True)]
    classes = [CLASS_NAMES[label] for label in labels]
    kept = ["test" if official == "test" else None] * len(images)
    splits = assign_splits(_RULE, groups=ids, classes=classes, kept=kept)
    rows = {split: [row for row, its in enumerate(splits) if its == split] for split in sorted(set(splits))}
    return {
        split: _manifest(split, [(ids[row], labels[row], images[row]) for row in its]) for split, its in rows.items()
    }


def _manifest(split: str, rows: Sequence[tuple[str, int, FoundImage]]) -> Manifest:
    images = [image for _, _, image in rows]
    return manifest_from_rows(
        video_ids=[image_id for image_id, _, _ in rows],
        paths=[image.path for image in images],
        labels=[label for _, label, _ in rows],
        splits=[split] * len(rows),
        sizes_bytes=[image.size_bytes for image in images],
        class_names=CLASS_NAMES,
        items="images",
        images=image_cells(images),
    )
