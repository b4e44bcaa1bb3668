"""What a worker that trains on CPUs sets for its memory: what is freed is kept.

The C library gives maps of tens of megabytes back to the system when they are freed, and the system clears the pages of
the next one, which takes a good part of a step (`benchmark.py step-orders`). A worker's maps are the same at every
step, so that keeping them costs no more than one step needs at most.
"""

from collections.abc import Mapping

from morphmlp.config import ExperimentConfig
from morphmlp.config.shapes import LARGE_MAP_BYTES, stage_grids, temporal_tokens

KEPT: Mapping[str, str] = {
    "MALLOC_MMAP_MAX_": "0",  # no memory that is given back as soon as it is freed,
    "MALLOC_TRIM_THRESHOLD_": str(2**62),  # nor from the end of the heap;
    "MALLOC_ARENA_MAX": "1",  # and one heap: Ray trains in a thread, whose own would be too small for maps
}
"""Read by glibc where a process starts; elsewhere nobody takes notice."""


def memory_settings(config: ExperimentConfig, device: str) -> dict[str, str]:
    """Variables of the environment in which a worker on such a device starts; none where all maps are small."""
    return dict(KEPT) if device == "cpu" and _largest_map(config) >= LARGE_MAP_BYTES else {}


def _largest_map(config: ExperimentConfig) -> int:
    """Bytes of what a micro-batch has between the linear layers of a channel MLP, in fp32."""
    model, clip = config.model, config.clip
    clips = config.train.micro_batch_size * config.augment.repeats
    times = 1 if model.temporal == "none" else temporal_tokens(clip.num_frames)
    widths = zip(stage_grids(clip.crop_size), model.embed_dims, strict=True)
    return max(clips * times * side**2 * int(channels * model.mlp_ratio) * 4 for side, channels in widths)
