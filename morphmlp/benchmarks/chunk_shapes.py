"""What maps that chunks don't divide cost: a backbone on large images against as many pixels in crops that fit.

One process, forward passes in evaluation, interleaved rounds; nothing but the network takes part.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import get_args

import torch
from tabulate import tabulate
from torch import Tensor

from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.config.shapes import PUBLISHED_CROP_SIZE
from morphmlp.config.values import ChunkShape
from morphmlp.models import MorphMLP
from morphmlp.models.cost import model_cost
from morphmlp.models.presets import preset

CROPS = "crops"
WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class ShapeCost:
    """One way, medians over the rounds."""

    name: str
    ms_per_megapixel: float
    ratio: float
    """Time of a pixel over its time in crops of the trained size: median over the rounds, pair by pair."""
    macs_ratio: float
    """The same of counted multiply-accumulates."""


def measure_chunk_shapes(
    name: str, *, size: int, images: int, rounds: int, device: torch.device, precision: torch.dtype
) -> list[ShapeCost]:
    """Time each chunk shape on `images` squares of `size` pixels, and crops of 224 of as many pixels, nearly."""
    config = preset(name).model
    crops = round(images * (size / PUBLISHED_CROP_SIZE) ** 2)
    ways: dict[str, tuple[Callable[[], None], int, float]] = {}
    for shape in (CROPS, *get_args(ChunkShape)):
        model = config if shape == CROPS else replace(config, chunk_shape=shape)
        side, count = (PUBLISHED_CROP_SIZE, crops) if shape == CROPS else (size, images)
        torch.manual_seed(0)
        network = MorphMLP(model, num_frames=1, crop_size=PUBLISHED_CROP_SIZE).eval().to(device)
        batch = torch.randn(count, 3, side, side, device=device)
        macs = model_cost(model, num_frames=1, crop_size=PUBLISHED_CROP_SIZE, view_size=side).gmacs * count
        ways[shape] = (_pass(network, batch, precision), count * side**2, macs)
    times: dict[str, list[float]] = {shape: [] for shape in ways}
    for number, shape in interleaved(list(ways), WARM_UP + rounds):
        run, pixels, _ = ways[shape]
        began = time.perf_counter()
        run()
        if number >= WARM_UP:
            times[shape].append((time.perf_counter() - began) / pixels)
    _, crop_pixels, crop_macs = ways[CROPS]
    return [
        ShapeCost(
            name=shape,
            ms_per_megapixel=1e9 * median(times[shape]),
            ratio=median_ratio(times[shape], times[CROPS]),
            macs_ratio=macs / pixels / (crop_macs / crop_pixels),
        )
        for shape, (_, pixels, macs) in ways.items()
    ]


def shapes_table(found: Sequence[ShapeCost]) -> str:
    """A line for each way."""
    rows = [
        (cost.name, f"{cost.ms_per_megapixel:.1f}", f"{cost.ratio:.3f}", f"{cost.macs_ratio:.3f}") for cost in found
    ]
    headers = ("way", "ms a megapixel", "time over crops'", "MACs over crops'")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 3))


def _pass(network: MorphMLP, batch: Tensor, precision: torch.dtype) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode(), torch.autocast(batch.device.type, precision, enabled=precision != torch.float32):
            network.forward_features(batch)[-1].sum().item()  # waits for the device

    return run
