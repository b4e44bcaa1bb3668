"""What a network costs by arithmetic alone: parameters and multiply-accumulates, without torch, in microseconds.

`morphmlp.models.cost` counts the same on the networks themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from morphmlp.config import ExperimentConfig, ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.shapes import NUM_STAGES, Chunks, channel_groups, stage_grids, temporal_groups, temporal_tokens
from morphmlp.models.sizes import (
    ALL_BRANCHES,
    FPN_UNITS,
    INPUT_CHANNELS,
    POOLED_SIDES,
    RESNET_DEPTHS,
    RESNET_DIMS,
    REWEIGHT_REDUCTION,
)

# Per input element, as fvcore counts them, with which the paper's numbers agree.
LAYER_NORM_MACS = 5
BATCH_NORM_MACS = 2


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """Size and arithmetic of a network."""

    params: int
    """Trainable numbers."""
    gmacs: float
    """Billion multiply-accumulates of one view; what the paper prints as FLOPs."""


class _Sum:
    """Parameters and multiply-accumulates of layers, added up."""

    def __init__(self) -> None:
        self.params = 0
        self.macs = 0

    def linear(self, inputs: int, outputs: int, sites: int) -> None:
        self.params += inputs * outputs + outputs
        self.macs += inputs * outputs * sites

    def conv(self, inputs: int, outputs: int, kernel: tuple[int, ...], sites: int, *, bias: bool = True) -> None:
        self.params += inputs * outputs * prod(kernel) + (outputs if bias else 0)
        self.macs += inputs * outputs * prod(kernel) * sites

    def norm(self, channels: int, sites: int, *, macs: int = LAYER_NORM_MACS) -> None:
        self.params += 2 * channels
        self.macs += macs * channels * sites

    def unit(self, inputs: int, outputs: int, side: int, sites: int) -> None:
        """A convolution without bias and its BatchNorm."""
        self.conv(inputs, outputs, (side, side), sites, bias=False)
        self.norm(outputs, sites, macs=BATCH_NORM_MACS)

    def times(self, count: int) -> "_Sum":
        self.params *= count
        self.macs *= count
        return self

    def add(self, other: "_Sum") -> None:
        self.params += other.params
        self.macs += other.macs


def experiment_cost(config: ExperimentConfig, *, view_size: int | None = None) -> ModelCost:
    """What an experiment's network costs, at the size of its training or with views of another."""
    return planned_cost(
        config.model,
        num_frames=config.clip.num_frames,
        crop_size=config.clip.crop_size,
        view_size=view_size,
        segmentation=config.segmentation,
    )


def planned_cost(
    config: ModelConfig,
    *,
    num_frames: int,
    crop_size: int,
    view_size: int | None = None,
    segmentation: SegmentationConfig | None = None,
) -> ModelCost:
    """What `model_cost` counts, for sizes that fit together: the same sums by arithmetic alone, without torch.

    An auxiliary head has parameters, and no part in a view.
    """
    if segmentation is not None and segmentation.backbone == "resnet50":
        total = _resnet(stage_grids(view_size or crop_size), half=-(-(view_size or crop_size) // 2))
        total.add(_decoder(segmentation, RESNET_DIMS, config.num_classes, stage_grids(view_size or crop_size)))
        return ModelCost(params=total.params, gmacs=total.macs / 1e9)
    image = config.temporal == "none"
    steps = 1 if image else temporal_tokens(num_frames)
    size = view_size or crop_size
    grids, dims, total, chunks = stage_grids(size), config.embed_dims, _Sum(), config.chunks(crop_size)
    half = dims[0] // 2
    total.conv(INPUT_CHANNELS, half, (3, 3) if image else (3, 3, 3), steps * (-(-size // 2)) ** 2)
    total.norm(half, steps * (-(-size // 2)) ** 2, macs=BATCH_NORM_MACS)
    total.conv(half, dims[0], (3, 3), steps * grids[0] ** 2)
    total.norm(dims[0], steps * grids[0] ** 2, macs=BATCH_NORM_MACS)
    for stage, (channels, grid, depth) in enumerate(zip(dims, grids, config.depths, strict=True)):
        sites = steps * grid**2
        if stage:
            total.conv(dims[stage - 1], channels, (3, 3), sites)
            total.norm(channels, sites)
        tokens = steps if config.temporal == "mixed" else None
        total.add(_block(config, chunks[stage], grid=grid, steps=steps, tokens=tokens).times(depth))
    if segmentation is None:
        total.norm(dims[-1], steps * grids[-1] ** 2)
        total.linear(dims[-1], config.num_classes, 1)
        return ModelCost(params=total.params, gmacs=total.macs / 1e9)
    for channels, grid in zip(dims, grids, strict=True):
        total.norm(channels, grid**2)
    total.add(_decoder(segmentation, dims, config.num_classes, grids))
    return ModelCost(params=total.params, gmacs=total.macs / 1e9)


def _block(config: ModelConfig, chunks: Chunks, *, grid: int, steps: int, tokens: int | None) -> _Sum:
    """Of a block of the stage of these chunks, on `steps` maps of `grid` x `grid` tokens."""
    block, channels, last = _Sum(), config.embed_dims[chunks.stage - 1], chunks.stage == NUM_STAGES
    sites = steps * grid**2
    if tokens is not None:
        groups = temporal_groups(channels, tokens)
        size = tokens * (channels // groups)
        block.norm(channels, sites)
        block.linear(size, size, groups * sites // tokens)
        block.linear(channels, channels, sites)
    block.norm(channels, sites)
    names = set(config.branches or ALL_BRANCHES)
    branches = len(names) - (last and {"height", "width"} <= names)  # stage 4 has one for both
    groups = int(channel_groups(chunks.length, config.group_width, stage=chunks.stage))
    size = chunks.length * (channels // groups)
    for _ in range(branches - ("channel" in names)):  # on a square map as many by columns as by rows
        block.linear(size, size, steps * groups * chunks.count(grid, grid))
    if "channel" in names:
        block.linear(channels, channels, sites)
    if branches > 1 and config.branch_sum == "weighted":
        block.linear(channels, channels // REWEIGHT_REDUCTION, 1)
        block.linear(channels // REWEIGHT_REDUCTION, branches * channels, 1)
    block.linear(channels, channels, sites)
    block.norm(channels, sites)
    hidden = int(channels * config.mlp_ratio)
    block.linear(channels, hidden, sites)
    block.linear(hidden, channels, sites)
    return block


def _decoder(segmentation: SegmentationConfig, dims: Sequence[int], classes: int, grids: Sequence[int]) -> _Sum:
    """Of a decoder on square maps of these channels, rows and columns, as `segmentation.decoders` builds it."""
    total, channels = _Sum(), segmentation.decoder_channels
    add = _fpn if segmentation.decoder == "semantic_fpn" else _upernet
    add(total, dims, channels, grids)
    total.conv(channels, classes, (1, 1), grids[0] ** 2)
    if segmentation.decoder == "upernet" and segmentation.auxiliary_weight > 0:
        total.unit(dims[2], channels // 2, 3, 0)
        total.conv(channels // 2, classes, (1, 1), 0)
    return total


def _fpn(total: _Sum, dims: Sequence[int], channels: int, grids: Sequence[int]) -> None:
    neck = 2 * channels
    for size, grid, units in zip(dims, grids, FPN_UNITS, strict=True):
        total.conv(size, neck, (1, 1), grid**2)
        total.conv(neck, neck, (3, 3), grid**2)
        for unit in range(units):
            total.unit(channels if unit else neck, channels, 3, (grid * 2**unit) ** 2)


def _upernet(total: _Sum, dims: Sequence[int], channels: int, grids: Sequence[int]) -> None:
    for side in POOLED_SIDES:
        total.unit(dims[-1], channels, 1, side**2)
    total.unit(dims[-1] + len(POOLED_SIDES) * channels, channels, 3, grids[-1] ** 2)
    for size, grid in zip(dims[:-1], grids[:-1], strict=True):
        total.unit(size, channels, 1, grid**2)
        total.unit(channels, channels, 3, grid**2)
    total.unit(len(dims) * channels, channels, 3, grids[0] ** 2)


def _resnet(grids: Sequence[int], *, half: int) -> _Sum:
    """Of a ResNet-50 v1.5's four stages on square maps, and of its stem, whose convolution gives `half` rows."""
    total, inputs, before = _Sum(), 64, grids[0]
    total.unit(INPUT_CHANNELS, inputs, 7, half**2)
    for outputs, depth, grid in zip(RESNET_DIMS, RESNET_DEPTHS, grids, strict=True):
        for block in range(depth):
            total.unit(inputs, outputs // 4, 1, before**2)
            total.unit(outputs // 4, outputs // 4, 3, grid**2)
            total.unit(outputs // 4, outputs, 1, grid**2)
            if not block:
                total.unit(inputs, outputs, 1, grid**2)
            inputs, before = outputs, grid
    return total
