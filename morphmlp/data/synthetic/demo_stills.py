"""Images from the demo's world: one frame of one of its scenes, whose class is what the shape does at that moment.

No single frame shows the demo's classes, which are orders of two events; but each shows the state that events are made
of. An image network that knows these is a start for a video network that has the order left to learn.

DIR/train/<class>/<number>.jpg (val alike), DIR/train.parquet, val.parquet
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morphmlp.data.manifest import SPLITS, manifest_from_rows, write_manifest
from morphmlp.data.synthetic.demo_task import EVENT_FRAMES, FIRST_EVENT, PAIRS, draw_scene, render_events
from morphmlp.data.synthetic.folder import fill_folder
from morphmlp.errors import ManifestError

AT_REST = "at rest"
CLASS_NAMES = tuple(sorted({AT_REST, *(event for pair in PAIRS for event in pair)}))
"""In label order: `at rest`, and the demo's events."""
_JPEG_QUALITY = 95
_STILL = 1
"""Ends the key of a still's draws: they aren't those of a demo video of the same seed and number."""


@dataclass(frozen=True)
class _Still:
    """An image to be written."""

    split: str
    number: int

    @property
    def label(self) -> int:
        return self.number % len(CLASS_NAMES)

    @property
    def image_id(self) -> str:
        return f"{self.split}/{CLASS_NAMES[self.label]}/{self.number:06d}"

    def pixels(self, seed: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([seed, SPLITS.index(self.split), self.number, _STILL])
        scene, event = draw_scene(rng), CLASS_NAMES[self.label]
        at_rest = event == AT_REST
        frames = render_events(scene, [] if at_rest else [event], rng=rng)
        number = int(rng.integers(FIRST_EVENT)) if at_rest else scene.start + int(rng.integers(EVENT_FRAMES))
        frame: NDArray[np.uint8] = frames[number]
        return frame


def write_demo_stills(output: str | Path, *, train: int, val: int, seed: int = 0, threads: int | None = None) -> None:
    """Write so many images per split, one class after the other, the same bytes for the same seed; then the manifests.

    A complete folder that was written with the same numbers keeps its images.

    Raises:
        ManifestError: The folder holds something else, or a number is below 0.
    """
    output, counts = Path(output), {"train": train, "val": val}
    if min(counts.values()) < 0:
        raise ManifestError(f"{output}: {counts} images asked for; there can't be less than none")
    stills = [_Still(split, number) for split, count in counts.items() for number in range(count)]

    def path_of(still: _Still) -> Path:
        return output.absolute() / f"{still.image_id}.jpg"

    def write(still: _Still) -> None:
        path_of(still).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(still.pixels(seed)).save(path_of(still), quality=_JPEG_QUALITY)

    def describe() -> None:
        for split in counts:
            if rows := [still for still in stills if still.split == split]:
                manifest = manifest_from_rows(
                    video_ids=[still.image_id for still in rows],
                    paths=[str(path_of(still)) for still in rows],
                    labels=[still.label for still in rows],
                    splits=[split] * len(rows),
                    sizes_bytes=[path_of(still).stat().st_size for still in rows],
                    class_names=CLASS_NAMES,
                    items="images",
                )
                write_manifest(manifest, output / f"{split}.parquet")

    asked = {"task": "stills of the demo", "seed": seed, **counts}
    fill_folder(output, asked=asked, videos=stills, write=write, describe=describe, threads=threads)
