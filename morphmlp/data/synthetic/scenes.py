"""Writes a stand-in for ADE20K's scene parsing benchmark: drawn scenes in exactly the layout of ADEChallengeData2016.

DIR/images/{training,validation}/ADE_{train,val}_00000001.jpg      two of them grey, as in the original
DIR/annotations/{training,validation}/ADE_{train,val}_00000001.png
DIR/objectInfo150.txt                                              its eight classes
DIR/train.parquet, val.parquet                                     made from these, as `prepare.py ade20k` does
DIR/synthetic.json                                                 what was asked for, and whether all is there

Classes of one hue have the same two tones, each over half of their area: what a pixel is, its colour can't say, only
the texture around it. Objects stand before each other, nearer ones lower; poles are thin; pixels along the borders of
objects and those of a class that isn't listed are 0, as other objects are there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morphmlp.data.datasets.ade20k import FOLDERS, INFO, read_ade20k
from morphmlp.data.manifest import write_manifest
from morphmlp.data.synthetic.drawing import as_pixels, smooth_background
from morphmlp.data.synthetic.folder import fill_folder

CLASSES = ("wall", "sky", "tree", "grass", "water", "fence, fencing", "pole", "ball")
"""In the order of ADE20K's list; stored as 1 to 8."""
OTHER = 0
GREY = 2
"""So many of the first training images are grey."""
_BROWN, _GREEN, _BLUE = (1.15, 0.95, 0.7), (0.8, 1.15, 0.75), (0.75, 0.95, 1.2)
_HUES = {
    "wall": _BROWN,
    "fence, fencing": _BROWN,
    "pole": _BROWN,
    "tree": _GREEN,
    "grass": _GREEN,
    "sky": _BLUE,
    "water": _BLUE,
    "ball": _BLUE,
}
_TONES = (85.0, 165.0)
_SIDES = (96, 161)
_QUALITY = 92

Plane = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Place(NamedTuple):
    """Coordinates of all pixels, from a point of the thing that is drawn."""

    rows: Plane
    columns: Plane


def _speckle(at: Place, rng: np.random.Generator) -> Mask:
    height, width = at.rows.shape
    coarse = rng.random((height // 2 + 1, width // 2 + 1)) < 0.5
    return np.repeat(np.repeat(coarse, 2, axis=0), 2, axis=1)[:height, :width]


def _clouds(at: Place, rng: np.random.Generator) -> Mask:
    field = smooth_background(rng, 0.0, height=at.rows.shape[0], width=at.rows.shape[1])[..., 0]
    return np.asarray(field > np.median(field))


_TEXTURES: Mapping[str, Callable[[Place, np.random.Generator], Mask]] = {
    "wall": lambda at, rng: at.rows % 6 < 3,
    "fence, fencing": lambda at, rng: at.columns % 6 < 3,
    "pole": lambda at, rng: np.full(at.rows.shape, rng.random() < 0.5),
    "tree": lambda at, rng: (at.rows % 8 < 4) ^ (at.columns % 8 < 4),
    "grass": _speckle,
    "sky": _clouds,
    "water": lambda at, rng: (at.columns + 2 * at.rows) % 12 < 6,
    "ball": lambda at, rng: np.hypot(at.rows, at.columns) % 6 < 3,
}
"""Where each class has its lighter tone."""


def write_ade20k_standin(
    output: str | Path, *, train: int, val: int, seed: int = 0, threads: int | None = None
) -> None:
    """Write scenes and manifests; a complete folder that was written with the same numbers is kept.

    Raises:
        ManifestError: The folder holds something else, or a split would be empty.
    """
    output = Path(output)

    def write(item: tuple[str, int]) -> None:
        split, number = item
        picture, labels = scene(np.random.default_rng([seed, list(FOLDERS).index(split), number]))
        stem = f"{FOLDERS[split]}/ADE_{split}_{number + 1:08d}"
        image = Image.fromarray(picture)
        if split == "train" and number < GREY:
            image = image.convert("L")
        for kind in ("images", "annotations"):
            (output / kind / FOLDERS[split]).mkdir(parents=True, exist_ok=True)
        image.save(output / f"images/{stem}.jpg", quality=_QUALITY)
        Image.fromarray(labels).save(output / f"annotations/{stem}.png")

    def describe() -> None:
        (output / INFO).write_text(_info(output), encoding="utf-8")
        for split, manifest in read_ade20k(output).manifests.items():
            write_manifest(manifest, output / f"{split}.parquet")

    counts = {"train": train, "val": val}
    items = [(split, number) for split, count in counts.items() for number in range(count)]
    fill_folder(
        output,
        asked={"task": "stand-in for ade20k", **counts, "seed": seed},
        videos=items,
        write=write,
        describe=describe,
        threads=threads,
    )


def scene(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture `[h w 3]` and its label map `[h w]`, 0 for pixels of no class and k + 1 for class k."""
    height, width = (int(side) for side in rng.integers(*_SIDES, size=2))
    canvas = _Canvas(height, width, rng)
    horizon = int(height * rng.uniform(0.35, 0.6))
    everywhere = np.ones((height, width), dtype=bool)
    canvas.paint(("sky", "wall")[rng.integers(2)], everywhere, (0, 0))
    canvas.paint(("grass", "water")[rng.integers(2)], canvas.rows >= horizon, (horizon, 0))
    feet = np.sort(rng.uniform(horizon, height, size=rng.integers(3, 7)))  # the nearest is drawn last
    for foot in feet:
        kind = ("tree", "fence, fencing", "ball", None)[rng.choice(4, p=(0.3, 0.3, 0.3, 0.1))]
        size = float(rng.uniform(0.14, 0.26)) * min(height, width)
        centre = (float(foot) - size, float(rng.uniform(0, width)))
        rows, columns = canvas.rows - centre[0], canvas.columns - centre[1]
        inside = {
            "tree": np.hypot(rows, 1.3 * columns) < 1.3 * size,
            "fence, fencing": (np.abs(rows) < 0.8 * size) & (np.abs(columns) < 1.8 * size),
            "ball": np.hypot(rows, columns) < size,
            None: np.abs(rows) + np.abs(columns) < 0.8 * size,
        }[kind]
        canvas.paint(kind, inside, centre)
    canvas.ignore_borders()
    for _ in range(rng.integers(1, 4)):  # after the borders: a pole is hardly more than its border
        left, top = rng.uniform(0, width), rng.uniform(0, 0.4) * height
        bottom = rng.uniform(horizon, height)
        thin = (canvas.columns >= left) & (canvas.columns < left + rng.integers(3, 6))
        canvas.paint("pole", thin & (canvas.rows >= top) & (canvas.rows < bottom), (top, left))
    return as_pixels(canvas.picture, rng=rng), canvas.labels


class _Canvas:
    """A picture and its label map while things are laid over each other."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self._rng = rng
        rows, columns = np.mgrid[:height, :width].astype(float)
        self.rows, self.columns = rows, columns
        self.labels = np.zeros((height, width), dtype=np.uint8)
        self.picture = np.zeros((height, width, 3))
        self._light = smooth_background(rng, 0.0, height=height, width=width)

    def paint(self, kind: str | None, inside: Mask, centre: tuple[float, float]) -> None:
        """Lay a thing of a class over what is there; None: of a class that isn't listed."""
        rng = self._rng
        at = Place(self.rows - centre[0], self.columns - centre[1])
        texture = _TEXTURES["ball" if kind is None else kind](at, rng)
        hue = np.array((1.2, 0.7, 1.1) if kind is None else _HUES[kind]) * rng.uniform(0.95, 1.05, 3)
        tones = np.where(texture, _TONES[1], _TONES[0])[..., None] * hue + 0.5 * self._light
        self.picture[inside] = tones[inside]
        self.labels[inside] = OTHER if kind is None else CLASSES.index(kind) + 1

    def ignore_borders(self) -> None:
        """Take the class from the pixels on both sides of every border."""
        labels, borders = self.labels, np.zeros(self.labels.shape, dtype=bool)
        down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
        borders[1:] |= down
        borders[:-1] |= down
        borders[:, 1:] |= across
        borders[:, :-1] |= across
        labels[borders] = OTHER


def _info(output: Path) -> str:
    """The list of classes with their share of all pixels and the images that have them, in the form of the original."""
    pixels = np.zeros(len(CLASSES) + 1, dtype=np.int64)
    images = {split: np.zeros(len(CLASSES) + 1, dtype=np.int64) for split in FOLDERS}
    for split, folder in FOLDERS.items():
        for path in sorted((output / "annotations" / folder).glob("*.png")):
            with Image.open(path) as label_map:
                counts = np.bincount(np.asarray(label_map).reshape(-1), minlength=len(pixels))
            pixels += counts
            images[split] += counts > 0
    rows = [
        f"{k}\t{pixels[k] / pixels.sum():.4f}\t{images['train'][k]}\t{images['val'][k]}\t{name}"
        for k, name in enumerate(CLASSES, 1)
    ]
    return "\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows, ""])
