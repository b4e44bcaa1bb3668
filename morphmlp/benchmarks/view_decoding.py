"""What 30 views of a video cost from one decode, against 30 decodes of one view each; in CPU time of this process."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from morphmlp.benchmarks.clip_kinds import CLIP
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.config.schema import TestConfig
from morphmlp.data.clips.augment import evaluation_crops
from morphmlp.data.clips.extract import ViewClips
from morphmlp.data.clips.sampling import view_indices
from morphmlp.data.decoding.backends import decoder_by_name

VIEWS = TestConfig(num_clips=10, num_crops=3)
"""As many as video models are tested on; the published ones are fewer."""
Clips = npt.NDArray[np.uint8]
TOGETHER, APART = "together", "apart"


@dataclass(frozen=True, kw_only=True)
class ViewDecoding:
    """Medians over videos and rounds."""

    views30_ratio: float
    """CPU time of 30 views of one decode over that of 30 decodes."""
    together_cpu_ms: float
    """CPU milliseconds of a video, its 30 views from one decode."""
    apart_cpu_ms: float
    """The same from a decode for each view."""
    views: int
    videos: int
    rounds: int


def measure_view_decoding(
    paths: Sequence[str], *, rounds: int, on_progress: Callable[[int], None] = lambda done: None
) -> ViewDecoding:
    """Measure on some videos, the two ways interleaved, and make sure that both give the same pixels."""
    ways: dict[str, Callable[[str], Clips]] = {TOGETHER: _together, APART: _apart}
    for path in paths:  # warms up as well
        if not np.array_equal(_together(path), _apart(path)):
            raise RuntimeError(f"{path}: views of one decode aren't those of a decode each")
    cpu_s: dict[str, list[float]] = {name: [] for name in ways}
    for number, name in interleaved(list(ways), rounds):
        for path in paths:
            began = time.process_time()
            ways[name](path)
            cpu_s[name].append(time.process_time() - began)
        on_progress(number + 1)
    return ViewDecoding(
        views30_ratio=median_ratio(cpu_s[TOGETHER], cpu_s[APART]),
        together_cpu_ms=1000 * median(cpu_s[TOGETHER]),
        apart_cpu_ms=1000 * median(cpu_s[APART]),
        views=VIEWS.num_clips * VIEWS.num_crops,
        videos=len(paths),
        rounds=rounds,
    )


def _together(path: str) -> Clips:
    return ViewClips(clip=CLIP, views=VIEWS).extract(decoder_by_name("pyav").open(path)).clips


def _apart(path: str) -> Clips:
    count = VIEWS.num_clips * VIEWS.num_crops
    return np.concatenate([_one_view(path, view) for view in range(count)])


def _one_view(path: str, view: int) -> Clips:
    """One view from a decode of its own: a loader's that takes each view for a sample."""
    clip, crop = divmod(view, VIEWS.num_crops)
    reader = decoder_by_name("pyav").open(path)
    decoded = reader.read(view_indices(CLIP, reader.info, VIEWS.num_clips)[clip].tolist())
    crops = evaluation_crops(
        torch.from_numpy(decoded.frames),
        short_edge=CLIP.short_edge,
        crop_size=CLIP.crop_size,
        num_crops=VIEWS.num_crops,
        single_crop=VIEWS.single_crop,
        interpolation=CLIP.interpolation,
        centre_rounding=CLIP.centre_rounding,
    )
    return crops[crop][None].numpy()
