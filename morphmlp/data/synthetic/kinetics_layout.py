"""Writes synthetic videos the way a download of Kinetics lies on disk, with annotations and manifests.

DIR/train/<class name>/<youtube id>_<start>_<end>.mp4    (val, test alike)
DIR/annotations/train.csv                                label,youtube_id,time_start,time_end,split
DIR/train.parquet                                        made from that CSV
DIR/synthetic.json                                       what was asked for, and whether all is there
"""

import base64
import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from morphmlp.data.datasets.annotations import read_annotations
from morphmlp.data.datasets.kinetics_formats import KINETICS_COLUMNS
from morphmlp.data.manifest import SPLITS, write_manifest
from morphmlp.data.synthetic import demo_task
from morphmlp.data.synthetic.folder import fill_folder
from morphmlp.errors import ManifestError

FRAME_RATE = 30
SAMPLE_RATE = 44_100
REAL_WIDTH, REAL_HEIGHT = 340, 256
"""Of realistic videos, as Kinetics is passed on, pixels."""
_CLASS_NAMES = ("abseiling", "archery", "juggling balls", "riding a bike")
_MARGIN = 40
_AAC_FRAME = 1024
_REPEATABLE = "cpu-independent=1:mbtree=0"
"""With x264's macroblock tree, frames this small come out different from run to run on CPUs with AVX-512."""


@dataclass(frozen=True)
class _Video:
    """A video to be written: its place in the layout and its line in the annotations."""

    split: str
    number: int
    label: int
    class_name: str
    youtube_id: str
    time_start: int
    time_end: int

    @property
    def path(self) -> Path:
        """Path inside the data set's folder."""
        name = f"{self.youtube_id}_{self.time_start:06d}_{self.time_end:06d}.mp4"
        return Path(self.split, self.class_name, name)


def write_demo_dataset(
    output: str | Path, *, train: int, val: int, test: int, seed: int = 0, threads: int | None = None
) -> None:
    """Write the demo task: so many videos per split, one class after the other, the same bytes for the same seed.

    A complete folder that was written with the same numbers is left as it is.

    Raises:
        ManifestError: The folder holds something else.
    """

    def write(video: _Video, path: Path, rng: np.random.Generator) -> None:
        frames = demo_task.render(demo_task.draw_scene(rng), video.label, rng=rng)
        write_video(path, frames)

    counts = {"train": train, "val": val, "test": test}
    asked = {"task": "order of two events", "frames": demo_task.NUM_FRAMES, "seed": seed, **counts}
    _write_dataset(
        Path(output), counts, asked, write, class_names=demo_task.CLASS_NAMES, seconds=1, seed=seed, threads=threads
    )


def write_realistic_videos(
    output: str | Path,
    *,
    train: int,
    val: int = 0,
    test: int = 0,
    class_names: Iterable[str] = _CLASS_NAMES,
    seconds: int = 10,
    seed: int = 0,
) -> None:
    """Write videos of the size, length and coding of Kinetics, in the same layout: moving texture, with sound.

    They carry no task that can be learnt; they make the full-size network and the decoder work as hard as real footage.

    Raises:
        ManifestError: The folder holds something else.
    """

    def write(video: _Video, path: Path, rng: np.random.Generator) -> None:
        frames = realistic_frames(rng, count=seconds * FRAME_RATE)
        write_video(path, frames, crf=25, sound=_sound(rng, seconds=seconds))

    names = tuple(sorted(class_names))
    counts = {"train": train, "val": val, "test": test}
    asked = {"task": "moving texture", "classes": list(names), "seconds": seconds, "seed": seed, **counts}
    _write_dataset(Path(output), counts, asked, write, class_names=names, seconds=seconds, seed=seed)


def realistic_frames(rng: np.random.Generator, *, count: int) -> Iterator[NDArray[np.uint8]]:
    """Draw `count` frames: a textured scene that drifts under a shaking camera, and a textured square that circles."""
    scene = _texture(rng, REAL_HEIGHT + 2 * _MARGIN, REAL_WIDTH + 2 * _MARGIN)
    patch = _texture(rng, 64, 64)
    speed = rng.uniform(0.01, 0.04, 2)
    shake = np.cumsum(rng.normal(0, 0.6, (count, 2)), axis=0)
    for frame in range(count):
        drift = 0.8 * _MARGIN * np.sin(speed * frame) + np.clip(shake[frame], -8, 8)
        top, left = np.clip(np.rint(_MARGIN + drift).astype(int), 0, 2 * _MARGIN)
        picture = scene[top : top + REAL_HEIGHT, left : left + REAL_WIDTH].copy()
        angle = frame * speed[0] * 3
        row = int(REAL_HEIGHT / 2 - 32 + 60 * np.sin(angle))
        column = int(REAL_WIDTH / 2 - 32 + 90 * np.cos(angle))
        picture[row : row + 64, column : column + 64] = patch
        yield picture


def _sound(rng: np.random.Generator, *, seconds: float) -> NDArray[np.float32]:
    """A tone in noise, in [-1, 1]."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 800) * time)
    return (tone + 0.02 * rng.standard_normal(time.size)).astype(np.float32)


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Noise of five sizes, from the whole picture down to single pixels, coarse strongest."""
    picture = np.full((height, width, 3), 128.0)
    for cell, strength in ((96, 45.0), (32, 25.0), (12, 12.0), (4, 6.0), (1, 3.0)):
        coarse = rng.normal(0, strength, (-(-height // cell) + 1, -(-width // cell) + 1, 3))
        fine = np.kron(coarse, np.ones((cell, cell, 1)))
        row, column = rng.integers(0, cell, 2)
        picture += fine[row : row + height, column : column + width]
    pixels: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return pixels


def write_video(
    path: Path, frames: Iterable[NDArray[np.uint8]], *, crf: int = 18, sound: NDArray[np.float32] | None = None
) -> None:
    """Encode RGB frames as H.264 (libx264, B-frames, 4:2:0) at 30 frames per second, and mono sound as AAC."""
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": str(crf), "x264-params": _REPEATABLE}
        video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        audio = None if sound is None else container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number, pixels in enumerate(frames):
            if number == 0:
                video.height, video.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None and sound is not None:
            for start in range(0, sound.size, _AAC_FRAME):
                samples = sound[None, start : start + _AAC_FRAME]
                block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                block.sample_rate, block.pts = SAMPLE_RATE, start
                block.time_base = Fraction(1, SAMPLE_RATE)
                container.mux(audio.encode(block))
            container.mux(audio.encode())


def _plan(counts: Mapping[str, int], class_names: tuple[str, ...], *, seed: int, seconds: int) -> list[_Video]:
    videos = []
    for split, count in counts.items():
        for number in range(count):
            digest = hashlib.sha256(f"{seed}/{split}/{number}".encode()).digest()
            start = digest[-1]
            label = number % len(class_names)
            name = base64.urlsafe_b64encode(digest[:9]).decode()[:11]
            videos.append(_Video(split, number, label, class_names[label], name, start, start + seconds))
    return videos


def _write_dataset(
    output: Path,
    counts: Mapping[str, int],
    asked: Mapping[str, object],
    write: Callable[[_Video, Path, np.random.Generator], None],
    *,
    class_names: tuple[str, ...],
    seconds: int,
    seed: int,
    threads: int | None = None,
) -> None:
    if min(counts.values()) < 0:
        raise ManifestError(f"{output}: {dict(counts)} videos asked for; there can't be less than none")
    videos = _plan(counts, class_names, seed=seed, seconds=seconds)

    def write_one(video: _Video) -> None:
        (output / video.path).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, SPLITS.index(video.split), video.number])
        write(video, output / video.path, rng)

    def describe() -> None:
        for split in SPLITS:
            if rows := [video for video in videos if video.split == split]:
                annotations = output / "annotations" / f"{split}.csv"
                _write_csv(annotations, rows)
                found = read_annotations(annotations, videos=output, class_names=class_names)
                write_manifest(found.manifest, output / f"{split}.parquet")

    fill_folder(output, asked=asked, videos=videos, write=write_one, describe=describe, threads=threads)


def _write_csv(path: Path, videos: Iterable[_Video]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(KINETICS_COLUMNS)
        writer.writerows((v.class_name, v.youtube_id, v.time_start, v.time_end, v.split) for v in videos)
