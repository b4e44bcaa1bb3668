"""Writes a stand-in for ImageNet-1K: drawn images in exactly the form of the official archives, with their traps.

DIR/ILSVRC2012_img_train.tar         a tar of one tar for each class, <wnid>.tar with <wnid>_<number>.JPEG
DIR/ILSVRC2012_img_val.tar           flat, ILSVRC2012_val_00000001.JPEG and so on
DIR/ILSVRC2012_devkit_t12.tar.gz     data/meta.mat (IDs, which aren't the order of the classes, and inner synsets),
                                     data/ILSVRC2012_validation_ground_truth.txt (an ID a line)
DIR/train.parquet, val.parquet       made from these, as `prepare.py imagenet` does
DIR/synthetic.json                   what was asked for, and whether all is there

As in the original, a training image is a PNG, and some are CMYK or grey, under the name .JPEG all the same. Some more
have an EXIF orientation, or EXIF data that are damaged. The class of an image is its colour and shape.
"""

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image
from scipy.io import savemat

from morphmlp.data.datasets.imagenet.devkit import ARCHIVE, FOLDER
from morphmlp.data.datasets.imagenet.prepare import find_sources, read_images
from morphmlp.data.datasets.imagenet.tars import add_file
from morphmlp.data.manifest import write_manifest
from morphmlp.data.synthetic.drawing import Shape, as_pixels, distance_from_shape, painted, smooth_background
from morphmlp.data.synthetic.folder import fill_folder
from morphmlp.errors import ManifestError

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


class Synset(NamedTuple):
    """A class: its WordNet id, its words, and what is drawn."""

    wnid: str
    words: str
    colour: tuple[float, float, float]
    shape: Shape


CLASSES = (
    Synset("n09900001", "red disc, cherry", (215, 40, 30), "disc"),
    Synset("n01100002", "blue disc, marble", (30, 60, 215), "disc"),
    Synset("n07700003", "red box, brick", (215, 40, 30), "square"),
    Synset("n02200004", "blue box, crate", (30, 60, 215), "square"),
    Synset("n13300005", "red diamond, kite", (215, 40, 30), "diamond"),
    Synset("n04400006", "blue diamond, tile", (30, 60, 215), "diamond"),
)
"""In the order of their IDs, 1 to 6; labels go by the order of the WordNet ids."""
ODD = ("PNG", "CMYK", "grey", "EXIF orientation", "damaged EXIF")
"""What the first training images are, one each; the first validation image is CMYK."""
_INNER = (("n00000010", "thing", (1, 3, 5)), ("n00000011", "object, physical object", (2, 4, 6)))
"""Synsets above the classes, with the IDs of their children."""
_SIDES = (56, 96)
_QUALITY = 92
_TURNED = 6


def write_imagenet_standin(
    output: str | Path, *, train: int, val: int, seed: int = 0, threads: int | None = None
) -> None:
    """Write the archives and the manifests; a complete folder that was written with the same numbers is kept.

    Raises:
        ManifestError: The folder holds something else, or a split would be empty.
    """
    output = Path(output)
    if min(train, val) < 1:
        raise ManifestError(
            f"{output}: {train} training and {val} validation images asked for; there must be some of each"
        )
    content = {
        TRAIN: lambda: _training_archive(train, seed),
        VAL: lambda: _archive(_validation(val, seed)),
        ARCHIVE: lambda: gzip.compress(_devkit(val, seed), mtime=0),
    }

    def write(name: str) -> None:
        (output / name).write_bytes(content[name]())

    def describe() -> None:
        for split, manifest in read_images(find_sources(output)).manifests.items():
            write_manifest(manifest, output / f"{split}.parquet")

    asked = {"task": "stand-in for imagenet", "train": train, "val": val, "seed": seed}
    fill_folder(
        output,
        asked=asked,
        videos=list(content),
        write=write,
        describe=describe,
        threads=threads,
    )


def _training_archive(count: int, seed: int) -> bytes:
    files: dict[str, dict[str, bytes]] = {synset.wnid: {} for synset in CLASSES}
    for number in range(count):
        synset = CLASSES[number % len(CLASSES)]
        odd = ODD[number] if number < len(ODD) else None
        # Numbers with gaps, and in no order, as the official ones are.
        name = f"{synset.wnid}_{(number * 7919 + 13) % 20011}.JPEG"
        files[synset.wnid][name] = _image(synset, (seed, 0, number), odd=odd)
    return _archive({f"{wnid}.tar": _archive(images) for wnid, images in files.items() if images})


def _validation(count: int, seed: int) -> dict[str, bytes]:
    return {
        f"ILSVRC2012_val_{number + 1:08d}.JPEG": _image(
            CLASSES[number_of_class], (seed, 1, number), odd="CMYK" if number == 0 else None
        )
        for number, number_of_class in enumerate(_validation_classes(count, seed))
    }


def _validation_classes(count: int, seed: int) -> Sequence[int]:
    """The class of each validation image, in no order, as evenly as can be."""
    order: list[int] = np.random.default_rng([seed, 2]).permutation(np.arange(count) % len(CLASSES)).tolist()
    return order


def _image(synset: Synset, key: Sequence[int], *, odd: str | None) -> bytes:
    rng = np.random.default_rng(key)
    height, width = (int(side) for side in rng.integers(*_SIDES, size=2))
    below = smooth_background(rng, rng.uniform(60, 180), height=height, width=width)
    radius = rng.uniform(0.2, 0.35) * min(height, width)
    column, row = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    rows, columns = np.mgrid[:height, :width].astype(float)
    distance = distance_from_shape(synset.shape, columns - column, rows - row, np.array(radius))
    image = Image.fromarray(as_pixels(painted(below, distance, synset.colour), rng=rng))
    if odd in ("CMYK", "grey"):
        image = image.convert("CMYK" if odd == "CMYK" else "L")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = _TURNED
    options: dict[str, Any] = {} if odd == "PNG" else {"quality": _QUALITY}
    if odd in ("EXIF orientation", "damaged EXIF"):
        options["exif"] = exif if odd == "EXIF orientation" else b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
    target = io.BytesIO()
    image.save(target, "PNG" if odd == "PNG" else "JPEG", **options)
    return target.getvalue()


def _devkit(val: int, seed: int) -> bytes:
    rows = [
        (number, synset.wnid, synset.words, f"a {synset.words}", 0, np.zeros(0), 0, 0)
        for number, synset in enumerate(CLASSES, 1)
    ]
    rows += [
        (len(CLASSES) + number, wnid, words, words, len(children), np.array(children), 1, 0)
        for number, (wnid, words, children) in enumerate(_INNER, 1)
    ]
    names = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    synsets = np.empty((len(rows), 1), dtype=[(name, object) for name in names])
    for place, row in enumerate(rows):
        synsets[place, 0] = row
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{number + 1}\n" for number in _validation_classes(val, seed))
    # The first 116 bytes are words for people, with the time in them.
    header = b"MATLAB 5.0 MAT-file".ljust(116)
    files = {
        "meta.mat": header + meta.getvalue()[116:],
        "ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    return _archive({str(PurePosixPath(FOLDER, "data", name)): content for name, content in files.items()})


def _archive(files: Mapping[str, bytes]) -> bytes:
    """A tar of files, the same for the same ones."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            add_file(archive, name, content)
    return target.getvalue()
