"""Crops of images with label maps through Ray Data against a torch DataLoader with OpenCV, as `ray_images` measures.

Both sides read the same files, carry out the same steps with the same ranges and end with uint8 crops of 512 px and
their maps in the process that reads, from two processes that decode.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from morphmlp.benchmarks.ray_ingest import DECODE_CPUS, Effort, LoaderSide, RaySide, Side, rows_over, time_sides
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.cluster.address import require_no_cluster
from morphmlp.cluster.ray_cluster import ray_session
from morphmlp.config.clip import ClipConfig
from morphmlp.config.operation import ClusterConfig, IngestConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.scenes import LabelMap, TrainScenes, crop_scene
from morphmlp.data.synthetic.photographs import photograph
from morphmlp.files import atomic_file
from morphmlp.progress import Progress

NUM_CLASSES = 150
SCENES = TrainScenes(
    clip=ClipConfig(
        sampling="segments",
        num_frames=1,
        frame_stride=None,
        crop_size=512,
        short_edge=512,
        channel_order="rgb",
        pixel_mean=(0.485, 0.456, 0.406),
        pixel_std=(0.229, 0.224, 0.225),
    ),
    segmentation=SegmentationConfig(
        decoder="semantic_fpn",
        decoder_channels=128,
        dropout=0.1,
        auxiliary_weight=0.0,
        loss_over="all_pixels",
        long_edge=2048,
        resize_ratio=(0.5, 2.0),
        category_limit=0.75,
        flip=0.5,
        photometric=True,
    ),
    num_classes=NUM_CLASSES,
)
BATCH = 16
_SIZES = ((683, 512), (683, 512), (512, 683), (300, 256), (1024, 768))
"""Width and height, pixels; most images of ADE20K have a short side of 512."""
_QUALITY = 50

_FULL = Effort(images=64, rounds=5, read=512, warm_up=256)
_QUICK = Effort(images=16, rounds=2, read=256, warm_up=128)


@dataclass(frozen=True, kw_only=True)
class SceneFigures:
    """Medians over interleaved rounds."""

    ratio_to_opencv: float
    """Crops a second and core over those of a DataLoader with OpenCV."""
    wall_ratio_to_opencv: float
    """Crops a second over the DataLoader's, with as many processes that decode."""
    crops_per_s_core: Mapping[str, float]
    crops_per_s: Mapping[str, float]
    parts_cpu_ms: Mapping[str, float]
    """Where our side spends a crop's CPU time."""
    steps_ratio: float
    """CPU time of the steps from pixels to the crop over that of OpenCV's and numpy's."""
    steps_cpu_ms: Mapping[str, float]
    """Of a crop, decoding left out."""
    kb_per_image: float
    kb_per_map: float
    rounds: int
    crops_per_round: int
    quick: bool
    wall_s: float
    """The whole measurement, seconds."""


def measure_scenes(folder: Path, *, quick: bool, progress: Progress, effort: Effort | None = None) -> SceneFigures:
    """Measure on this machine; the images and maps are made in the folder and kept there.

    Raises:
        ClusterError: `RAY_ADDRESS` names a cluster; CPU times of other machines can't be read.
    """
    require_no_cluster()
    began = time.monotonic()
    effort = effort or (_QUICK if quick else _FULL)
    progress.line(f"making images and maps in {folder}, where they aren't there yet")
    paths, maps = write_scenes(folder.absolute(), effort.images)
    progress.line("the steps from pixels to a crop alone")
    steps = time_steps(paths, maps, rounds=effort.rounds)
    total = effort.read + 2 * effort.warm_up
    request = {
        **{"loader": "opencv", "paths": paths, "maps": maps, "count": total},
        **{"size": SCENES.clip.crop_size, "batch": BATCH, "workers": DECODE_CPUS},
    }
    ingest = IngestConfig(cpus=DECODE_CPUS)
    progress.line("starting Ray")
    with ray_session(ClusterConfig(num_workers=1, device="cpu"), ingest, micro_batches=1) as placement:
        share = placement.ingest_share(ingest, pipelines=1)
        sides: dict[str, Side] = {
            "ours": RaySide(rows_over(paths, total, as_stored=True, maps=maps), share, SCENES, micro_batch=BATCH),
            "opencv": LoaderSide("morphmlp.benchmarks.image_loader_program", request),
        }
        progress.phase("Ray Data, OpenCV", total=effort.rounds, unit="rounds")
        times = time_sides(
            sides, rounds=effort.rounds, warm_up=effort.warm_up, clips=effort.read, on_progress=progress.update
        )
    return SceneFigures(
        ratio_to_opencv=median_ratio(times["opencv"].cpu_s, times["ours"].cpu_s),
        wall_ratio_to_opencv=median_ratio(times["opencv"].wall_s, times["ours"].wall_s),
        crops_per_s_core={name: effort.read / median(side.cpu_s) for name, side in times.items()},
        crops_per_s={name: effort.read / median(side.wall_s) for name, side in times.items()},
        parts_cpu_ms={part: 1000 * median(seconds) / effort.read for part, seconds in times["ours"].parts_s.items()},
        steps_ratio=median_ratio(steps["ours"], steps["opencv"]),
        steps_cpu_ms={name: 1000 * median(seconds) for name, seconds in steps.items()},
        kb_per_image=_mean_kb(paths),
        kb_per_map=_mean_kb(maps),
        rounds=effort.rounds,
        crops_per_round=effort.read,
        quick=quick,
        wall_s=time.monotonic() - began,
    )


def write_scenes(folder: Path, count: int) -> tuple[list[str], list[str]]:
    """Paths of so many JPEGs and of their maps, each the same whenever it's made; those that are there are kept.

    A map has a dozen classes in regions with smooth borders; they carry no task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths, maps = [], []
    for number in range(count):
        path, label_path = folder / f"{number:05}.jpg", folder / f"{number:05}.png"
        if not path.exists() or not label_path.exists():
            rng = np.random.default_rng(number)
            width, height = _SIZES[rng.integers(len(_SIZES))]
            with atomic_file(path) as unfinished:
                Image.fromarray(photograph(rng, height=height, width=width)).save(unfinished, "JPEG", quality=_QUALITY)
            heights = [ndimage.gaussian_filter(rng.standard_normal((height, width)), 20) for _ in range(12)]
            stored = rng.choice(NUM_CLASSES + 1, 12, replace=False).astype(np.uint8)[np.argmax(heights, axis=0)]
            with atomic_file(label_path) as unfinished:
                Image.fromarray(stored).save(unfinished, "PNG")
        paths.append(str(path))
        maps.append(str(label_path))
    return paths, maps


def time_steps(paths: list[str], maps: list[str], *, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a crop in each round, decoding left out."""
    from morphmlp.benchmarks.opencv_scenes import opencv_crop  # noqa: PLC0415 (OpenCV is no dependency)

    torch.set_num_threads(1)
    scenes = [_pixels(path, label_path) for path, label_path in zip(paths, maps, strict=True)]

    def ours(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], label_map: LabelMap, number: int) -> None:
        draw = SCENES.draw(label_map, ClipKey(seed=0, epoch=number, video_id="v"))
        crop_scene(image, label_map, draw, size=SCENES.clip.crop_size, fill=SCENES.fill)

    ways: dict[str, Callable[..., object]] = {
        "ours": ours,
        "opencv": lambda image, label_map, _: opencv_crop(image, label_map, size=SCENES.clip.crop_size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number, name in interleaved(list(ways), rounds + 1):
        began = time.thread_time()
        for place, (image, label_map) in enumerate(scenes):
            ways[name](image, label_map, number * len(scenes) + place)
        if number:  # the first round makes tables
            seconds[name].append((time.thread_time() - began) / len(scenes))
    return seconds


def scenes_table(figures: SceneFigures) -> str:
    """One line for each figure, in words."""
    rates = ", ".join(
        f"{name} {rate:.0f} ({figures.crops_per_s[name]:.0f} with {DECODE_CPUS} processes)"
        for name, rate in figures.crops_per_s_core.items()
    )
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in figures.parts_cpu_ms.items())
    return "\n".join(
        [
            f"crops of 512x512 a second and core: {rates}; images of {figures.kb_per_image:.0f} KB, maps of "
            f"{figures.kb_per_map:.0f} KB",
            f"{figures.ratio_to_opencv:.2f} times a torch DataLoader's with OpenCV; medians of {figures.rounds} "
            f"interleaved rounds of {figures.crops_per_round:,} crops",
            f"CPU ms of a crop: {parts}",
            f"the steps from pixels to a crop alone: {figures.steps_cpu_ms['ours']:.2f} ms, "
            f"{figures.steps_ratio:.2f} times OpenCV's and numpy's {figures.steps_cpu_ms['opencv']:.2f} ms",
        ]
    )


def _pixels(path: str, label_path: str) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], LabelMap]:
    with Image.open(path) as image, Image.open(label_path) as label_map:
        return np.array(image), np.array(label_map)


def _mean_kb(paths: list[str]) -> float:
    return sum(Path(path).stat().st_size for path in paths) / len(paths) / 1000
