"""What segmentation scores without looking at more than one pixel: the least that a network must beat.

The most frequent class everywhere; and of every colour the class that most of its pixels have in training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.errors import ManifestError
from morphmlp.progress import Progress
from morphmlp.tasks.scores import AACC, MIOU
from morphmlp.tasks.segmentation.confusion import areas_of, confusion_of, scores_of_areas

_BITS = 4
"""Of each colour: 4,096 colours."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A rule, and what it scores on all test images."""

    rule: str
    miou: float
    """Percent."""
    aacc: float
    """Percent."""
    images: int


def measure_baselines(train: Path, test: Path, *, progress: Progress) -> list[Baseline]:
    """Count colours and classes in one manifest, and score both rules on another.

    Raises:
        ManifestError: One isn't for segmentation, or their classes differ.
        DecodeError: An image or its map can't be used.
    """
    known, scored = read_manifest(train).available(), read_manifest(test).available()
    for path, manifest in ((train, known), (test, scored)):
        if manifest.task != "segmentation":
            raise ManifestError(f"{path}: is for {manifest.task}, its images have no label maps")
    if known.class_names != scored.class_names:
        raise ManifestError(f"{test}: has other classes than {train}")
    num_classes = len(known.class_names)
    colours = np.zeros((2 ** (3 * _BITS), num_classes), dtype=np.int64)
    progress.phase("counting colours", total=len(known), unit="images")
    for number, (image, labels) in enumerate(_scenes(known, num_classes), 1):
        valid = labels != IGNORED
        pairs = _colours(image)[valid] * num_classes + labels[valid]
        colours += np.bincount(pairs, minlength=colours.size).reshape(colours.shape)
        progress.update(number)
    most = int(colours.sum(axis=0).argmax())
    of_colour = np.where(colours.any(axis=1), colours.argmax(axis=1), most).astype(np.uint8)
    rules = {
        f"{known.class_names[most]!r} everywhere": np.full_like(of_colour, most),
        "the class of each pixel's colour": of_colour,
    }
    confusions = {rule: np.zeros((num_classes, num_classes), dtype=np.int64) for rule in rules}
    progress.phase("scoring", total=len(scored), unit="images")
    for number, (image, labels) in enumerate(_scenes(scored, num_classes), 1):
        for rule, classes in rules.items():
            confusions[rule] += confusion_of(labels, classes[_colours(image)], num_classes=num_classes)
        progress.update(number)
    scores = {rule: scores_of_areas(*areas_of(confusion)) for rule, confusion in confusions.items()}
    return [
        Baseline(rule=rule, miou=float(each[MIOU.key]), aacc=float(each[AACC.key]), images=len(scored))
        for rule, each in scores.items()
    ]


def _scenes(manifest: Manifest, num_classes: int) -> Iterator[tuple[Frames, npt.NDArray[np.uint8]]]:
    """Each image `[h w 3]` with its label map `[h w]`."""
    with IsolatedVideos("pyav", Limits(timeout_s=120.0, timeout_name="for one file", memory_name="one file")) as videos:
        for row in manifest.table.to_pylist():
            image = videos.open(row["path"], num_frames=None, crc32=row["crc32"], image=StoredImage.of(row))
            of_map = StoredImage.of_map(row)
            label_map = videos.open(row["map_path"], num_frames=None, crc32=row["map_crc32"], image=of_map)
            labels = label_map.read([0]).frames[0, ..., 0]
            if (highest := labels[labels != IGNORED].max(initial=0)) >= num_classes:
                raise ManifestError(
                    f"{row['map_path']}: has class {highest}, its manifest {num_classes}: prepare again"
                )
            yield image.read([0]).frames[0], labels


def _colours(image: Frames) -> npt.NDArray[np.int64]:
    """The number of each pixel's colour `[h w]`."""
    red, green, blue = np.moveaxis(image.astype(np.int64) >> (8 - _BITS), -1, 0)
    numbers: npt.NDArray[np.int64] = (red << 2 * _BITS) | (green << _BITS) | blue
    return numbers


def baselines_table(found: list[Baseline]) -> str:
    """One row for each rule."""
    lines = [f"| {each.rule} | {each.miou:.2f} | {each.aacc:.2f} | {each.images:,} |" for each in found]
    return "\n".join(["| rule | mIoU % | aAcc % | images |", "|---|---|---|---|", *lines])
