"""Moving a network's sizes to the nearest ones that fit together, or that cost what a budget allows."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from statistics import median
from typing import Any, Literal

import torch
from pydantic import JsonValue

from morphmlp.config import ExperimentConfig, ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.shapes import NUM_STAGES, channel_groups, stage_grids, temporal_groups, temporal_tokens
from morphmlp.config.sweep import BudgetConfig
from morphmlp.models.build import build_network
from morphmlp.models.planned_cost import ModelCost

SCALES = tuple(sorted((2 ** (step / 24) for step in range(-72, 73)), key=lambda scale: abs(math.log(scale))))
"""Factors by which depths or widths are tried, nearest to 1 first: an eighth to eight, 3 % apart."""
WARM_UP = 2
ROUNDS = 5
"""Passes of a network whose latency is measured."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a network's shapes and cost depend on."""

    model: ModelConfig
    num_frames: int
    crop_size: int
    segmentation: SegmentationConfig | None = None

    @classmethod
    def of(cls, config: ExperimentConfig) -> "Sizes":
        """Those of an experiment."""
        clip = config.clip
        return cls(
            model=config.model,
            num_frames=clip.num_frames,
            crop_size=clip.crop_size,
            segmentation=config.segmentation,
        )


def nearest_values(values: Mapping[str, JsonValue], sizes: Sizes) -> dict[str, JsonValue]:
    """The values with chunk lengths, or else widths, moved to the nearest that keep the shape rules.

    Only fields that are swept are moved; distances are between logarithms, and of two alike the smaller is taken.
    """
    moved = dict(values)
    model = sizes.model
    grids = stage_grids(model.chunk_crop_size or sizes.crop_size)
    tokens = [grid * grid if model.chunk_shape == "windows" else None for grid in grids]
    widths = [1.0 if stage == NUM_STAGES else model.group_width for stage in range(1, NUM_STAGES + 1)]
    stages = list(zip(model.embed_dims, model.chunk_lengths, tokens, widths, strict=True))
    if "model.chunk_lengths" in values:
        moved["model.chunk_lengths"] = [
            _nearest_chunk(chunk, channels, count, width) for channels, chunk, count, width in stages
        ]
    elif "model.embed_dims" in values:
        moved["model.embed_dims"] = [
            _nearest_multiple(channels, math.ceil(chunk / width)) for channels, chunk, _, width in stages
        ]
    return moved


@lru_cache(maxsize=4096)
def width_unit(channels: int, groups: int, tokens: int | None) -> int:
    """The number of whose multiples a stage's channels are kept when it gets wider or narrower.

    An even multiple of the spatial layers' groups (as published, the chunk length). Where frames are mixed it also
    divides the channels and keeps more than half of their temporal groups, if there is such a one: with few groups the
    temporal layers would be out of all proportion. `tokens` are the time steps that these mix; None without them.
    """
    smallest = math.lcm(groups, 2)
    if tokens is not None:
        temporal = temporal_groups(channels, tokens)
        for unit in range(smallest, channels + 1, smallest):
            if channels % unit == 0 and 2 * temporal_groups(unit, tokens) > temporal:
                return unit
    return smallest


def scaled(sizes: Sizes, adjust: Literal["depths", "embed_dims"], factors: Iterable[float] = SCALES) -> Iterator[Sizes]:
    """The network with its stages' blocks, or channels, times each of the factors, in their order, none twice.

    There is at least one block in each stage, and channels are rounded to multiples of the stage's `width_unit`.
    """
    model = sizes.model
    units: tuple[int, ...] = (1, 1, 1, 1)
    if adjust == "embed_dims":
        tokens = temporal_tokens(sizes.num_frames) if model.temporal == "mixed" else None
        groups = [
            int(channel_groups(length, model.group_width, stage=stage))
            for stage, length in enumerate(model.chunk_lengths, start=1)
        ]
        units = tuple(map(width_unit, model.embed_dims, groups, repeat(tokens)))
    numbers = getattr(model, adjust)
    for changed in dict.fromkeys(tuple(map(_scaled_number, numbers, units, repeat(factor))) for factor in factors):
        changes: dict[str, Any] = {adjust: changed}
        yield replace(sizes, model=replace(model, **changes))


def brought_inside(sizes: Sizes, budget: BudgetConfig, cost: Callable[[Sizes], ModelCost]) -> Sizes | None:
    """The network scaled by the factor nearest to 1 that meets the budget; None where no factor does."""
    return next((found for found in _adjusted(sizes, budget) if not budget_faults(cost(found), budget)), None)


def nearest_to_budget(sizes: Sizes, budget: BudgetConfig, cost: Callable[[Sizes], ModelCost]) -> Sizes:
    """The network scaled to be the least outside of the budget, as ratios."""

    def distance(found: Sizes) -> float:
        outside = [
            ratio for *_, taken, (low, high) in _bounds(cost(found), budget) for ratio in (taken / high, low / taken)
        ]
        return max([1.0, *outside])

    return min(_adjusted(sizes, budget), key=distance)


def budget_faults(cost: ModelCost, budget: BudgetConfig) -> list[str]:
    """Which bounds a network's cost lies outside of, each as a line led by its field."""
    return [
        f"budget.{field}: {taken:.4g} {unit} lie outside of [{low:g}, {high:g}]"
        for field, unit, taken, (low, high) in _bounds(cost, budget)
        if not low <= taken <= high
    ]


def measured_latency_ms(sizes: Sizes) -> float:
    """Milliseconds of a forward pass of one view in fp32, on the GPU where there is one: median over some passes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(
        sizes.model, num_frames=sizes.num_frames, crop_size=sizes.crop_size, segmentation=sizes.segmentation
    )
    model = network.eval().to(device)
    view = torch.zeros(1, *model.input_shape, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(WARM_UP + ROUNDS):
            began = time.perf_counter()
            model(view).sum().item()  # waits for the device
            times.append(1000 * (time.perf_counter() - began))
    return median(times[WARM_UP:])


def _adjusted(sizes: Sizes, budget: BudgetConfig) -> Iterator[Sizes]:
    assert budget.adjust is not None
    return scaled(sizes, budget.adjust)


def _bounds(cost: ModelCost, budget: BudgetConfig) -> list[tuple[str, str, float, tuple[float, float]]]:
    """Field, unit, what the network takes, and its least and most, of each bound that the budget has."""
    known = [
        ("gmacs", "GMAC", cost.gmacs, budget.gmacs),
        ("params", "million parameters", cost.params / 1e6, budget.params),
    ]
    return [(field, unit, taken, bound) for field, unit, taken, bound in known if bound is not None]


@lru_cache(maxsize=4096)
def _nearest_chunk(length: int, channels: int, tokens: int | None, width: float) -> int:
    """The nearest chunk length whose groups are whole and divide the channels, and that divides the tokens if given."""
    lengths = [groups * width for groups in range(1, channels + 1) if channels % groups == 0]
    fitting = [int(one) for one in lengths if one % 1 == 0 and (tokens is None or tokens % one == 0)]
    return _nearest(length, fitting) if fitting else length


@lru_cache(maxsize=65536)
def _scaled_number(number: int, unit: int, factor: float) -> int:
    return _nearest_multiple(round(number * factor), unit)


def _nearest(number: int, candidates: list[int]) -> int:
    return min(candidates, key=lambda candidate: (abs(math.log(candidate / number)), candidate))


def _nearest_multiple(number: int, unit: int) -> int:
    below = max(number // unit, 1) * unit
    return _nearest(max(number, 1), [below, below + unit])
