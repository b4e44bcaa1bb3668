"""Writes stand-ins for Something-Something V1 and V2: generated videos in exactly the official layouts and formats.

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
from morphmlp.data.synthetic import something_scenes as scenes
from morphmlp.data.synthetic.folder import fill_folder
from morphmlp.errors import ManifestError

_FOLDERS: Mapping[Version, str] = {"ssv1": "20bn-something-something-v1", "ssv2": "20bn-something-something-v2"}
SPLIT_WORDS = {"train": "train", "val": "validation"}
"""A split in the names of official files."""
_GREATEST_ID = 220_847
_JPEG_QUALITY = 90
_PLACEHOLDERS = {"disc": "a coin", "square": "a box", "diamond": "a tile"}


@dataclass(frozen=True)
class _Video:
    """A video to be written."""

    video_id: str
    split: str
    label: int
    scene: scenes.Scene
    noise_seed: tuple[int, ...]

    def frames(self) -> NDArray[np.uint8]:
        return scenes.render(self.scene, self.label, rng=np.random.default_rng(self.noise_seed))


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
            scene = scenes.draw_scene(np.random.default_rng(key))
            label = number % len(scenes.TEMPLATES)
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
        stream = container.add_stream("libvpx-vp9", rate=scenes.FRAME_RATE, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_ssv1(output: Path, videos: Sequence[_Video], seed: int) -> dict[str, Path]:
    """Write labels, CSVs and frame lists; returns the lists by split."""
    templates = [without_brackets(template) for template in scenes.TEMPLATES]
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
    ids = {without_brackets(template): str(label) for label, template in enumerate(scenes.TEMPLATES)}
    _write_lines(output / _labels_file("ssv2"), [json.dumps(ids)])
    annotations = {}
    for split, word in SPLIT_WORDS.items():
        if rows := [_ssv2_entry(video) for video in videos if video.split == split]:
            annotations[split] = output / f"something-something-v2-{word}.json"
            _write_lines(annotations[split], ["[" + ",\n".join(json.dumps(row) for row in rows) + "]"])
    return annotations


def _ssv2_entry(video: _Video) -> dict[str, object]:
    thing, template = _PLACEHOLDERS[video.scene.shape], scenes.TEMPLATES[video.label]
    sentence = template.replace("[something]", thing).lower()
    return {"id": video.video_id, "label": sentence, "template": template, "placeholders": [thing]}


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
