"""Writes stand-ins for Something-Something V1 and V2: generated videos in exactly the official layouts and formats.

A hand moves a shape, and the class says how.
Four classes are two mirrored pairs: a film of "from left to right", mirrored, is one of "from right to left". Whoever
mirrors training clips can't distinguish them. Pushing and pulling differ in where the hand is, behind the shape or in
front; a single frame of a push to the right could as well come from a pull to the left. The other four stay what they
are in a mirror. Templates are those of the data set.

DIR/20bn-something-something-v1/<id>/00001.jpg        frames, five digits, from 1
DIR/something-something-v1-{train,validation}.csv     <id>;<template>
DIR/something-something-v1-labels.csv                 one template per line, in no order
DIR/somesomev1_rgb_{train,validation}_split.txt       <id> <frame count> <class id>, the published list

DIR/20bn-something-something-v2/<id>.webm             VP9, 12 frames per second
DIR/something-something-v2-{train,validation}.json    list of objects: id, label, template, placeholders
DIR/something-something-v2-labels.json                template -> class id, as text

DIR/train.parquet, val.parquet                        made from these, as `prepare.py ssv1` and `ssv2` do
DIR/synthetic.json                                    what was asked for, and whether all is there
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morphmlp.data.datasets.annotations import read_annotations
from morphmlp.data.datasets.something import SOMETHING, Version, read_templates, without_brackets
from morphmlp.data.manifest import write_manifest
from morphmlp.data.synthetic.drawing import SHAPES, Shape, as_pixels, distance_from_shape, painted, smooth_background
from morphmlp.data.synthetic.folder import fill_folder
from morphmlp.errors import ManifestError

TEMPLATES = (
    "Moving [something] away from the camera",
    "Moving [something] down",
    "Moving [something] towards the camera",
    "Moving [something] up",
    "Pulling [something] from left to right",
    "Pulling [something] from right to left",
    "Pushing [something] from left to right",
    "Pushing [something] from right to left",
)
"""In label order, which is alphabetical."""

WIDTH, HEIGHT = 48, 36
FRAME_RATE = 12
"""Frames per second, as the data sets are distributed."""
NUM_FRAMES = (18, 48)
"""Least and greatest length of a video."""
_HAND_HALF_WIDTH = 2.5
_FOLDERS: Mapping[Version, str] = {"ssv1": "20bn-something-something-v1", "ssv2": "20bn-something-something-v2"}
SPLIT_WORDS = {"train": "train", "val": "validation"}
"""A split in the names of official files."""
_GREATEST_ID = 220_847
_JPEG_QUALITY = 90
_PLACEHOLDERS = {"disc": "a coin", "square": "a box", "diamond": "a tile"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Every random choice of a video, except its class."""

    num_frames: int
    """Length of the video."""
    begin: float
    """Share of the video before the motion."""
    end: float
    """Share of the video when it is over."""
    shape: Shape
    """What is moved."""
    radius: float
    """Half width of the shape, pixels."""
    centre: tuple[float, float]
    """Column and row of the middle of its way, pixels."""
    way: float
    """Length of its way, pixels; towards or away from the camera it grows or shrinks instead."""
    hand_on_left: bool
    """Side of the hand where the class doesn't say it."""
    colour: tuple[float, float, float]
    """Colour of the shape, RGB 0-255."""
    hand_colour: tuple[float, float, float]
    """Colour of the hand, RGB 0-255."""
    background: NDArray[np.float32]
    """Rows x columns x RGB, 0-255."""


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; a scene is as likely as its mirror image."""
    green, blue = rng.uniform(120, 220, 2)
    return Scene(
        num_frames=int(rng.integers(NUM_FRAMES[0], NUM_FRAMES[1] + 1)),
        begin=rng.uniform(0, 0.2),
        end=rng.uniform(0.8, 1),
        shape=SHAPES[rng.integers(len(SHAPES))],
        radius=rng.uniform(3.5, 5),
        centre=(WIDTH / 2 + rng.uniform(-2, 2), HEIGHT / 2 + rng.uniform(-3, 3)),
        way=rng.uniform(10, 15),
        hand_on_left=bool(rng.integers(2)),
        colour=(rng.uniform(30, 80), green, blue),
        hand_colour=(rng.uniform(200, 235), rng.uniform(150, 175), rng.uniform(115, 140)),
        background=smooth_background(rng, rng.uniform(40, 105), height=HEIGHT, width=WIDTH),
    )


def render(scene: Scene, label: int, *, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
    """The frames of a scene under one of `TEMPLATES`: `t h w 3`, RGB; with camera noise where `rng` draws it."""
    across, down, growth, hand_on_left = _motion(scene, label)
    columns = np.arange(WIDTH)[None, None, :] + 0.5 - (scene.centre[0] + across)[:, None, None]
    rows = np.arange(HEIGHT)[None, :, None] + 0.5 - (scene.centre[1] + down)[:, None, None]
    radius = (scene.radius * growth)[:, None, None]
    frames = painted(scene.background, distance_from_shape(scene.shape, columns, rows, radius), scene.colour)
    offset = (radius + _HAND_HALF_WIDTH) * (-1 if hand_on_left else 1)
    # An arm that comes in from below and ends in a fist next to the shape.
    hand = np.maximum(np.abs(columns - offset) - _HAND_HALF_WIDTH, -3.5 - rows)
    return as_pixels(painted(frames, hand, scene.hand_colour), rng=rng)


def _motion(scene: Scene, label: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], bool]:
    """Shift across, shift down and growth of the shape, each by frame; and whether the hand is on its left."""
    template = TEMPLATES[label]
    progress = np.clip((np.linspace(0, 1, scene.num_frames) - scene.begin) / (scene.end - scene.begin), 0, 1)
    along = (progress - 0.5) * scene.way
    still, as_is = np.zeros_like(along), np.ones_like(along)
    if template.endswith(("from left to right", "from right to left")):
        rightwards = template.endswith("right")
        pushed = template.startswith("Pushing")
        return (along if rightwards else -along), still, as_is, rightwards == pushed
    if template.endswith(("up", "down")):
        return still, (along if template.endswith("down") else -along), as_is, scene.hand_on_left
    towards = "towards" in template
    return still, still, 0.65 * 2.3 ** (progress if towards else 1 - progress), scene.hand_on_left


@dataclass(frozen=True)
class _Video:
    """A video to be written."""

    video_id: str
    split: str
    label: int
    scene: Scene
    noise_seed: tuple[int, ...]

    def frames(self) -> NDArray[np.uint8]:
        return render(self.scene, self.label, rng=np.random.default_rng(self.noise_seed))


def write_standin(
    output: str | Path, *, version: Version, train: int, val: int, seed: int = 0, threads: int | None = None
) -> None:
    """Write so many videos per split, one class after the other, the same bytes for the same seed; then the manifests.

    A complete folder that was written with the same numbers keeps its videos.

    Raises:
        ManifestError: The folder holds something else.
    """
    output = Path(output)
    if min(train, val) < 0 or train + val > _GREATEST_ID:
        raise ManifestError(
            f"{output}: {train} training and {val} validation videos asked for; there can be 0 to {_GREATEST_ID}"
        )
    videos = _plan({"train": train, "val": val}, seed)
    folder = output / _FOLDERS[version]

    def write(video: _Video) -> None:
        if version == "ssv1":
            _write_frames(folder / video.video_id, video.frames())
        else:
            folder.mkdir(exist_ok=True)
            _write_vp9(folder / f"{video.video_id}.webm", video.frames())

    def describe() -> None:
        annotations = _write_ssv1(output, videos, seed) if version == "ssv1" else _write_ssv2(output, videos)
        for split, path in annotations.items():
            found = read_annotations(
                path,
                data_set=SOMETHING[version],
                videos=folder,
                class_names=read_templates(output / _labels_file(version)),
            )
            write_manifest(found.manifest, output / f"{split}.parquet")

    asked = {"task": f"stand-in for {version}", "train": train, "val": val, "seed": seed}
    fill_folder(output, asked=asked, videos=videos, write=write, describe=describe, threads=threads)


def _plan(counts: Mapping[str, int], seed: int) -> list[_Video]:
    # Ids in no order, so that they give nothing away; neither do the official ones.
    ids = np.random.default_rng([seed, len(counts)]).permutation(_GREATEST_ID)[: sum(counts.values())] + 1
    videos: list[_Video] = []
    for split_number, (split, count) in enumerate(counts.items()):
        for number in range(count):
            key = (seed, split_number, number)
            scene = draw_scene(np.random.default_rng(key))
            label = number % len(TEMPLATES)
            videos.append(_Video(str(ids[len(videos)]), split, label, scene, noise_seed=(*key, 1)))
    return videos


def _labels_file(version: Version) -> str:
    return "something-something-v1-labels.csv" if version == "ssv1" else "something-something-v2-labels.json"


def _write_frames(folder: Path, frames: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(frames, start=1):
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=_JPEG_QUALITY)


def _write_vp9(path: Path, frames: NDArray[np.uint8]) -> None:
    # Without this the container gets a random number of its own.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0"}
        stream = container.add_stream("libvpx-vp9", rate=FRAME_RATE, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_ssv1(output: Path, videos: Sequence[_Video], seed: int) -> dict[str, Path]:
    """Write labels, CSVs and frame lists; returns the lists by split."""
    templates = [without_brackets(template) for template in TEMPLATES]
    shuffled = np.random.default_rng(seed).permutation(templates).tolist()
    _write_lines(output / _labels_file("ssv1"), shuffled)
    lists = {}
    for split, word in SPLIT_WORDS.items():
        if rows := [video for video in videos if video.split == split]:
            _write_lines(
                output / f"something-something-v1-{word}.csv",
                [f"{video.video_id};{templates[video.label]}" for video in rows],
            )
            lists[split] = output / f"somesomev1_rgb_{word}_split.txt"
            _write_lines(lists[split], [f"{video.video_id} {video.scene.num_frames} {video.label}" for video in rows])
    return lists


def _write_ssv2(output: Path, videos: Sequence[_Video]) -> dict[str, Path]:
    """Write labels and annotations; returns the annotations by split."""
    ids = {without_brackets(template): str(label) for label, template in enumerate(TEMPLATES)}
    _write_lines(output / _labels_file("ssv2"), [json.dumps(ids)])
    annotations = {}
    for split, word in SPLIT_WORDS.items():
        if rows := [_ssv2_entry(video) for video in videos if video.split == split]:
            annotations[split] = output / f"something-something-v2-{word}.json"
            _write_lines(annotations[split], ["[" + ",\n".join(json.dumps(row) for row in rows) + "]"])
    return annotations


def _ssv2_entry(video: _Video) -> dict[str, object]:
    thing, template = _PLACEHOLDERS[video.scene.shape], TEMPLATES[video.label]
    sentence = template.replace("[something]", thing).lower()
    return {"id": video.video_id, "label": sentence, "template": template, "placeholders": [thing]}


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
