"""Moving a network's sizes to the nearest ones that fit together, or that cost what a budget allows."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from statistics import median

import torch
from pydantic import JsonValue

from morphmlp.config import ExperimentConfig, ModelConfig
from morphmlp.config.shapes import stage_grids, temporal_groups, temporal_tokens
from morphmlp.config.sweep import BudgetConfig
from morphmlp.models import MorphMLP
from morphmlp.models.cost import ModelCost

SCALES = tuple(sorted((2 ** (step / 24) for step in range(-72, 73)), key=lambda scale: abs(math.log(scale))))
"""Factors by which depths or widths are tried, nearest to 1 first: an eighth to eight, 3 % apart."""
WARM_UP = 2
ROUNDS = 5
"""Passes of a network whose latency is measured."""
Four = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a network's shapes and cost depend on."""

    model: ModelConfig
    num_frames: int
    crop_size: int

    @classmethod
    def of(cls, config: ExperimentConfig) -> "Sizes":
        """Those of an experiment."""
        return cls(model=config.model, num_frames=config.clip.num_frames, crop_size=config.clip.crop_size)


def nearest_values(values: Mapping[str, JsonValue], sizes: Sizes) -> dict[str, JsonValue]:
    """The values with chunk lengths, or else widths, moved to the nearest that keep the shape rules.

    Only fields that are swept are moved; distances are between logarithms, and of two alike the smaller is taken.

    Args:
        values: The swept fields.
        sizes: The network with them; it may break the rules.
    """
    moved = dict(values)
    tokens = [grid * grid for grid in stage_grids(sizes.crop_size)]
    stages = list(zip(sizes.model.embed_dims, sizes.model.chunk_lengths, tokens, strict=True))
    if "model.chunk_lengths" in values:
        moved["model.chunk_lengths"] = [
            _nearest_divisor(chunk, math.gcd(channels, count)) for channels, chunk, count in stages
        ]
    elif "model.embed_dims" in values:
        moved["model.embed_dims"] = [_nearest_multiple(channels, chunk) for channels, chunk, _ in stages]
    return moved


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def widened(sizes: Sizes, factor: float) -> Sizes:
    """The network with its stages' channels times a factor, each rounded to a multiple of its `width_unit`."""
    return _with_widths(sizes, _times(sizes.model.embed_dims, _width_units(sizes), factor))


def deepened(sizes: Sizes, factor: float) -> Sizes:
    """The network with its stages' blocks times a factor, at least one each."""
    return _with_depths(sizes, _times(sizes.model.depths, (1, 1, 1, 1), factor))


@lru_cache(maxsize=4096)
def width_unit(channels: int, chunk: int, tokens: int | None) -> int:
    """The number of whose multiples a stage's channels are kept when it gets wider or narrower.

    An even multiple of the chunk length. Where frames are mixed it also divides the channels and keeps more than half
    of their temporal groups, if there is such a one: with few groups the temporal layers would be out of all
    proportion.

    Args:
        channels: Of the stage now.
        chunk: Its chunk length.
        tokens: Time steps that the temporal layers mix; None where there are none.
    """
    smallest = math.lcm(chunk, 2)
    if tokens is not None:
        groups = temporal_groups(channels, tokens)
        for unit in range(smallest, channels + 1, smallest):
            if channels % unit == 0 and 2 * temporal_groups(unit, tokens) > groups:
                return unit
    return smallest


def brought_inside(sizes: Sizes, budget: BudgetConfig, cost: Callable[[Sizes], ModelCost]) -> Sizes | None:
    """The network deepened or widened (`budget.adjust`) by the factor nearest to 1 that meets the budget.

    Args:
        sizes: The network; it keeps the shape rules.
        budget: The bounds on GMAC and parameters, and what to change.
        cost: What a network costs.

    Returns:
        None where no factor meets them.
    """
    return next((scaled for scaled in _scaled(sizes, budget) if not budget_faults(cost(scaled), budget)), None)


def nearest_to_budget(sizes: Sizes, budget: BudgetConfig, cost: Callable[[Sizes], ModelCost]) -> Sizes:
    """The network deepened or widened to be the least outside of the budget, as ratios; arguments as above."""
    return min(_scaled(sizes, budget), key=lambda scaled: _distance(cost(scaled), budget))


def budget_faults(cost: ModelCost, budget: BudgetConfig) -> list[str]:
    """Which bounds a network's cost lies outside of, each as a line led by its field."""
    return list(_outside(cost, budget))


def measured_latency_ms(sizes: Sizes) -> float:
    """Milliseconds of a forward pass of one view in fp32, on the GPU where there is one: median over some passes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MorphMLP(sizes.model, num_frames=sizes.num_frames, crop_size=sizes.crop_size).eval().to(device)
    view = torch.zeros(1, *model.input_shape, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(WARM_UP + ROUNDS):
            began = time.perf_counter()
            model(view).sum().item()  # waits for the device
            times.append(1000 * (time.perf_counter() - began))
    return median(times[WARM_UP:])


def _scaled(sizes: Sizes, budget: BudgetConfig) -> Iterator[Sizes]:
    """All that `budget.adjust` can make of a network, the least changed first, none twice."""
    model, deepen = sizes.model, budget.adjust == "depths"
    numbers, units = (model.depths, (1, 1, 1, 1)) if deepen else (model.embed_dims, _width_units(sizes))
    for scaled in dict.fromkeys(_times(numbers, units, factor) for factor in SCALES):
        yield _with_depths(sizes, scaled) if deepen else _with_widths(sizes, scaled)


def _times(numbers: Four, units: Four, factor: float) -> Four:
    first, second, third, last = map(_scaled_number, numbers, units, repeat(factor))
    return first, second, third, last


def _with_widths(sizes: Sizes, widths: Four) -> Sizes:
    return replace(sizes, model=replace(sizes.model, embed_dims=widths))


def _with_depths(sizes: Sizes, depths: Four) -> Sizes:
    return replace(sizes, model=replace(sizes.model, depths=depths))


def _width_units(sizes: Sizes) -> Four:
    model = sizes.model
    tokens = temporal_tokens(sizes.num_frames) if model.temporal == "mixed" else None
    first, second, third, last = map(width_unit, model.embed_dims, model.chunk_lengths, repeat(tokens))
    return first, second, third, last


def _outside(cost: ModelCost, budget: BudgetConfig) -> Iterator[str]:
    if budget.gmacs is not None and not budget.gmacs[0] <= cost.gmacs <= budget.gmacs[1]:
        yield f"budget.gmacs: {cost.gmacs:.4g} GMAC lie outside of [{budget.gmacs[0]:g}, {budget.gmacs[1]:g}]"
    millions = cost.params / 1e6
    if budget.params is not None and not budget.params[0] <= millions <= budget.params[1]:
        yield (
            f"budget.params: {millions:.4g} million parameters lie outside of "
            f"[{budget.params[0]:g}, {budget.params[1]:g}]"
        )


def _distance(cost: ModelCost, budget: BudgetConfig) -> float:
    """How far outside of the budget a cost is: the greatest logarithm of its ratio to a bound; 0 inside."""
    distance = 0.0
    for taken, bound in ((cost.gmacs, budget.gmacs), (cost.params / 1e6, budget.params)):
        if bound is not None and taken > bound[1]:
            distance = max(distance, math.log(taken / bound[1]))
        elif bound is not None and taken < bound[0]:
            distance = max(distance, math.log(bound[0] / taken))
    return distance


@lru_cache(maxsize=4096)
def _nearest_divisor(number: int, of: int) -> int:
    return _nearest(number, divisors(of))


@lru_cache(maxsize=65536)
def _scaled_number(number: int, unit: int, factor: float) -> int:
    return _nearest_multiple(round(number * factor), unit)


def _nearest(number: int, candidates: list[int]) -> int:
    return min(candidates, key=lambda candidate: (abs(math.log(candidate / number)), candidate))


def _nearest_multiple(number: int, unit: int) -> int:
    below = max(number // unit, 1) * unit
    return _nearest(max(number, 1), [below, below + unit])
