"""Moving a network's sizes to the nearest ones that fit together, or that cost what a budget allows."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from morphmlp.config import ExperimentConfig, ModelConfig
from morphmlp.config.shapes import shape_faults, stage_grids
from morphmlp.config.sweep import BudgetConfig
from morphmlp.models.cost import ModelCost

SCALES = tuple(2 ** (step / 24) for step in range(-72, 73))
"""Factors by which depths or widths are tried: an eighth to eight, 3 % apart."""
_MODEL = TypeAdapter(ModelConfig)


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


def sizes_of(mapping: Mapping[str, JsonValue]) -> tuple[Sizes | None, list[str]]:
    """The sizes of an experiment's content, and the shape rules that they break; None where they can't be read."""
    model, clip = mapping.get("model"), mapping.get("clip")
    if not isinstance(model, dict) or not isinstance(clip, dict):
        return None, []
    frames, crop = clip.get("num_frames"), clip.get("crop_size")
    if not isinstance(frames, int) or not isinstance(crop, int) or frames < 1 or crop < 1:
        return None, []
    try:
        read = _MODEL.validate_python(
            {**model, **{name: tuple(value) for name, value in model.items() if isinstance(value, list)}}
        )
    except ValidationError:
        return None, []
    faults = shape_faults(embed_dims=read.embed_dims, chunk_lengths=read.chunk_lengths, crop_size=crop)
    return Sizes(model=read, num_frames=frames, crop_size=crop), faults


def nearest_values(values: Mapping[str, JsonValue], mapping: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The values with chunk lengths, or else widths, moved to the nearest that keep the shape rules.

    Only fields that are swept are moved; distances are between logarithms, and of two alike the smaller is taken.

    Args:
        values: The swept fields.
        mapping: The experiment with them.
    """
    sizes, faults = sizes_of(mapping)
    moved = dict(values)
    if sizes is None or not faults:
        return moved
    tokens = [grid * grid for grid in stage_grids(sizes.crop_size)]
    stages = list(zip(sizes.model.embed_dims, sizes.model.chunk_lengths, tokens, strict=True))
    if "model.chunk_lengths" in values:
        moved["model.chunk_lengths"] = [
            _nearest(chunk, divisors(math.gcd(channels, count))) for channels, chunk, count in stages
        ]
    elif "model.embed_dims" in values:
        moved["model.embed_dims"] = [_nearest_multiple(channels, chunk) for channels, chunk, _ in stages]
    return moved


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def widened(model: ModelConfig, factor: float) -> ModelConfig:
    """The network with its stages' channels times a factor, each rounded to what its chunk length divides."""
    first, second, third, last = (
        _nearest_multiple(round(channels * factor), math.lcm(chunk, 2))
        for channels, chunk in zip(model.embed_dims, model.chunk_lengths, strict=True)
    )
    return replace(model, embed_dims=(first, second, third, last))


def deepened(model: ModelConfig, factor: float) -> ModelConfig:
    """The network with its stages' blocks times a factor, at least one each."""
    first, second, third, last = (max(1, round(depth * factor)) for depth in model.depths)
    return replace(model, depths=(first, second, third, last))


def brought_inside(sizes: Sizes, budget: BudgetConfig, cost: Callable[[Sizes], ModelCost]) -> Sizes | None:
    """The network deepened or widened (`budget.adjust`) by the factor nearest to 1 that meets the budget.

    Args:
        sizes: The network.
        budget: The bounds on GMAC and parameters, and what to change.
        cost: What a network costs.

    Returns:
        None where no factor meets them.
    """
    change = deepened if budget.adjust == "depths" else widened
    for factor in sorted(SCALES, key=lambda scale: abs(math.log(scale))):
        candidate = replace(sizes, model=change(sizes.model, factor))
        faults = shape_faults(
            embed_dims=candidate.model.embed_dims,
            chunk_lengths=candidate.model.chunk_lengths,
            crop_size=candidate.crop_size,
        )
        if not faults and not any(budget_faults(cost(candidate), budget)):
            return candidate
    return None


def budget_faults(cost: ModelCost, budget: BudgetConfig) -> list[str]:
    """Which bounds a network's cost lies outside of, each as a line led by its field."""
    return list(_outside(cost, budget))


def _outside(cost: ModelCost, budget: BudgetConfig) -> Iterator[str]:
    if budget.gmacs is not None and not budget.gmacs[0] <= cost.gmacs <= budget.gmacs[1]:
        yield f"budget.gmacs: {cost.gmacs:.4g} GMAC lie outside of [{budget.gmacs[0]:g}, {budget.gmacs[1]:g}]"
    millions = cost.params / 1e6
    if budget.params is not None and not budget.params[0] <= millions <= budget.params[1]:
        yield (
            f"budget.params: {millions:.4g} million parameters lie outside of "
            f"[{budget.params[0]:g}, {budget.params[1]:g}]"
        )


def _nearest(number: int, candidates: list[int]) -> int:
    return min(candidates, key=lambda candidate: (abs(math.log(candidate / number)), candidate))


def _nearest_multiple(number: int, unit: int) -> int:
    below = max(number // unit, 1) * unit
    return _nearest(max(number, 1), [below, below + unit])
