"""Images through Ray Data against a torch DataLoader with torchvision's transforms and against timm's loader.

All sides read the same files, cut the same kind of crop (RandomResizedCrop, flip) and end with uint8 batches in the
process that reads, from two processes that decode. CPU time is counted as in `ray_ingest`.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from morphmlp.benchmarks.image_decoders import DecoderCost, compare_image_decoders
from morphmlp.benchmarks.ray_ingest import DECODE_CPUS, Effort, LoaderSide, RaySide, Side, rows_over, time_sides
from morphmlp.benchmarks.rounds import median_ratio
from morphmlp.cluster.address import require_no_cluster
from morphmlp.cluster.ray_cluster import ray_session
from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.config.operation import ClusterConfig, IngestConfig
from morphmlp.data.clips.extract import TrainClips
from morphmlp.data.synthetic.photographs import write_photographs
from morphmlp.progress import Progress

CLIP = ClipConfig(
    sampling="segments", num_frames=1, frame_stride=None, crop_size=224, short_edge=256, channel_order="rgb"
)
AUGMENT = AugmentConfig(
    repeats=1,
    short_edge=None,
    rand_augment=None,
    scale=(0.08, 1.0),
    aspect=(0.75, 1.3333),
    flip=0.5,
    erase=0.0,
    interpolation="bicubic",
)
"""DeiT's crop and flip; RandAugment and erasing have their own cost, on whatever device carries them out."""
BATCH = 64
_OURS = "ours"

_FULL = Effort(images=128, rounds=7, read=4096, warm_up=2048)
_QUICK = Effort(images=48, rounds=2, read=1024, warm_up=1024)


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """Medians over interleaved rounds."""

    ratio_to_torchvision: float
    """Images a second and core over those of a DataLoader with torchvision's transforms and Pillow."""
    ratio_to_timm: float
    """The same over timm's loader."""
    wall_ratio_to_torchvision: float
    """Images a second over the DataLoader's, with as many processes that decode."""
    wall_ratio_to_timm: float
    images_per_s_core: Mapping[str, float]
    images_per_s: Mapping[str, float]
    parts_cpu_ms: Mapping[str, float]
    """Where our side spends an image's CPU time."""
    decoders: Mapping[str, DecoderCost]
    """Whole files in memory to RGB, by library."""
    kb_per_image: float
    rounds: int
    images_per_round: int
    quick: bool
    wall_s: float
    """The whole measurement, seconds."""


def measure_images(folder: Path, *, quick: bool, progress: Progress, effort: Effort | None = None) -> ImageFigures:
    """Measure on this machine; the images are made in the folder and kept there.

    Raises:
        ClusterError: `RAY_ADDRESS` names a cluster; CPU times of other machines can't be read.
    """
    require_no_cluster()
    began = time.monotonic()
    effort = effort or (_QUICK if quick else _FULL)
    progress.line(f"making images in {folder}, where they aren't there yet")
    paths = write_photographs(folder.absolute(), effort.images)
    progress.line("decoding them by each library")
    decoders = compare_image_decoders(paths, rounds=effort.rounds)
    total = effort.read + 2 * effort.warm_up
    request = {"paths": paths, "count": total, "size": CLIP.crop_size, "batch": BATCH, "workers": DECODE_CPUS}
    request["augment"] = asdict(AUGMENT)
    ingest = IngestConfig(cpus=DECODE_CPUS)
    progress.line("starting Ray")
    with ray_session(ClusterConfig(num_workers=1, device="cpu"), ingest, micro_batches=1) as placement:
        share = placement.ingest_share(ingest, pipelines=1)
        program = "morphmlp.benchmarks.image_loader_program"
        sides: dict[str, Side] = {
            _OURS: RaySide(
                rows_over(paths, total, as_stored=True),
                share,
                TrainClips(clip=CLIP, augment=AUGMENT),
                micro_batch=BATCH,
            ),
            **{name: LoaderSide(program, {**request, "loader": name}) for name in ("torchvision", "timm")},
        }
        progress.phase("Ray Data, torchvision, timm", total=effort.rounds, unit="rounds")
        times = time_sides(
            sides, rounds=effort.rounds, warm_up=effort.warm_up, clips=effort.read, on_progress=progress.update
        )
    ours = times[_OURS]
    return ImageFigures(
        ratio_to_torchvision=median_ratio(times["torchvision"].cpu_s, ours.cpu_s),
        ratio_to_timm=median_ratio(times["timm"].cpu_s, ours.cpu_s),
        wall_ratio_to_torchvision=median_ratio(times["torchvision"].wall_s, ours.wall_s),
        wall_ratio_to_timm=median_ratio(times["timm"].wall_s, ours.wall_s),
        images_per_s_core={name: effort.read / median(side.cpu_s) for name, side in times.items()},
        images_per_s={name: effort.read / median(side.wall_s) for name, side in times.items()},
        parts_cpu_ms={part: 1000 * median(seconds) / effort.read for part, seconds in ours.parts_s.items()},
        decoders=decoders,
        kb_per_image=sum(Path(path).stat().st_size for path in paths) / len(paths) / 1000,
        rounds=effort.rounds,
        images_per_round=effort.read,
        quick=quick,
        wall_s=time.monotonic() - began,
    )


def images_table(figures: ImageFigures) -> str:
    """One line for each figure, in words."""
    rates = ", ".join(
        f"{name} {rate:.0f} ({figures.images_per_s[name]:.0f} with {DECODE_CPUS} processes)"
        for name, rate in figures.images_per_s_core.items()
    )
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in figures.parts_cpu_ms.items())
    decoders = ", ".join(
        f"{name} {cost.version} {cost.cpu_ms:.2f} ms"
        + (f" (up to {cost.most_off} levels off)" if cost.most_off else "")
        for name, cost in sorted(figures.decoders.items(), key=lambda item: item[1].cpu_ms)
    )
    return "\n".join(
        [
            f"images a second and core: {rates}; images of {figures.kb_per_image:.0f} KB to 224x224 crops",
            f"{figures.ratio_to_torchvision:.2f} times a torch DataLoader's with torchvision and Pillow, "
            f"{figures.ratio_to_timm:.2f} times timm's loader; medians of {figures.rounds} interleaved rounds of "
            f"{figures.images_per_round:,} images",
            f"CPU ms of an image: {parts}",
            f"decoding alone, with Pillow's pixels: {decoders}",
        ]
    )
