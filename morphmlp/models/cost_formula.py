"""What a network costs, by arithmetic alone: what `model_cost` counts on a built network, in microseconds.

For planning many networks; layer by layer the same sums, and held against `model_cost` in the tests.
"""

from math import prod

from morphmlp.config import ModelConfig
from morphmlp.config.shapes import stage_grids, temporal_groups, temporal_tokens
from morphmlp.models.cost import BATCH_NORM_MACS, LAYER_NORM_MACS, ModelCost
from morphmlp.models.morphfc import ALL_BRANCHES, REWEIGHT_REDUCTION

INPUT_CHANNELS = 3


class _Sum:
    """Parameters and multiply-accumulates of layers, added up."""

    def __init__(self) -> None:
        self.params = 0
        self.macs = 0

    def linear(self, inputs: int, outputs: int, sites: int) -> None:
        self.params += inputs * outputs + outputs
        self.macs += inputs * outputs * sites

    def conv(self, inputs: int, outputs: int, kernel: tuple[int, ...], sites: int) -> None:
        self.params += inputs * outputs * prod(kernel) + outputs
        self.macs += inputs * outputs * prod(kernel) * sites

    def norm(self, channels: int, sites: int, *, macs: int = LAYER_NORM_MACS) -> None:
        self.params += 2 * channels
        self.macs += macs * channels * sites

    def times(self, count: int) -> "_Sum":
        self.params *= count
        self.macs *= count
        return self

    def add(self, other: "_Sum") -> None:
        self.params += other.params
        self.macs += other.macs


def planned_cost(config: ModelConfig, *, num_frames: int, crop_size: int) -> ModelCost:
    """Parameters and GMAC of one view of a network whose sizes fit together."""
    image = config.temporal == "none"
    steps = 1 if image else temporal_tokens(num_frames)
    grids, dims, total = stage_grids(crop_size), config.embed_dims, _Sum()
    half = dims[0] // 2
    total.conv(INPUT_CHANNELS, half, (3, 3) if image else (3, 3, 3), steps * (-(-crop_size // 2)) ** 2)
    total.norm(half, steps * (-(-crop_size // 2)) ** 2, macs=BATCH_NORM_MACS)
    total.conv(half, dims[0], (3, 3), steps * grids[0] ** 2)
    total.norm(dims[0], steps * grids[0] ** 2, macs=BATCH_NORM_MACS)
    for stage, (channels, grid, depth) in enumerate(zip(dims, grids, config.depths, strict=True)):
        sites = steps * grid**2
        if stage:
            total.conv(dims[stage - 1], channels, (3, 3), sites)
            total.norm(channels, sites)
        tokens = steps if config.temporal == "mixed" else None
        total.add(_block(config, channels, sites=sites, tokens=tokens, last=stage == len(dims) - 1).times(depth))
    total.norm(dims[-1], steps * grids[-1] ** 2)
    total.linear(dims[-1], config.num_classes, 1)
    return ModelCost(params=total.params, gmacs=total.macs / 1e9)


def _block(config: ModelConfig, channels: int, *, sites: int, tokens: int | None, last: bool) -> _Sum:
    block = _Sum()
    if tokens is not None:
        groups = temporal_groups(channels, tokens)
        size = tokens * (channels // groups)
        block.norm(channels, sites)
        block.linear(size, size, groups * sites // tokens)
        block.linear(channels, channels, sites)
    block.norm(channels, sites)
    names = set(config.branches or ALL_BRANCHES)
    branches = len(names) - (last and {"height", "width"} <= names)  # stage 4 has one for both
    for _ in range(branches):
        block.linear(channels, channels, sites)
    if branches > 1:
        block.linear(channels, channels // REWEIGHT_REDUCTION, 1)
        block.linear(channels // REWEIGHT_REDUCTION, branches * channels, 1)
    block.linear(channels, channels, sites)
    block.norm(channels, sites)
    hidden = int(channels * config.mlp_ratio)
    block.linear(channels, hidden, sites)
    block.linear(hidden, channels, sites)
    return block
