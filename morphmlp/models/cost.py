"""What a network costs: parameters, multiply-accumulates, activation memory; on the meta device, so in no time.

Counted, not measured: no clock and no GPU take part.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from morphmlp.config import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.shapes import NUM_STAGES, Chunks, channel_groups, stage_grids, temporal_groups, temporal_tokens
from morphmlp.config.values import Part
from morphmlp.models.build import build_network
from morphmlp.models.morphfc import ALL_BRANCHES, REWEIGHT_REDUCTION
from morphmlp.models.network import INPUT_CHANNELS
from morphmlp.models.parts import freeze, training_mode
from morphmlp.models.segmentation.network import ResNetSegmentation, decoder

# Per input element, as fvcore counts them, with which the paper's numbers agree.
LAYER_NORM_MACS = 5
BATCH_NORM_MACS = 2

SHARE_IN_16_BIT = 0.6
"""Of the fp32 bytes that 16-bit arithmetic keeps for the backward pass: half, and what norms keep in fp32 next to it
(0.595 for S 16x4 in bf16 on an H200, `tests/gpu/test_network.py`)."""


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """Size and arithmetic of a network."""

    params: int
    """Trainable numbers."""
    gmacs: float
    """Billion multiply-accumulates of one view; what the paper prints as FLOPs."""


def model_cost(
    config: ModelConfig,
    *,
    num_frames: int,
    crop_size: int,
    view_size: int | None = None,
    segmentation: SegmentationConfig | None = None,
) -> ModelCost:
    """Parameters and GMAC of one view: convolutions, linear layers and norms, as fvcore counts.

    `view_size` are the view's rows and columns where they are others than those of the training crop. An auxiliary head
    has parameters, and no part in a view.

    Raises:
        ConfigError: The sizes don't fit together.
    """
    with torch.device("meta"):
        model = build_network(config, num_frames=num_frames, crop_size=crop_size, segmentation=segmentation)
        size = view_size or crop_size
        view = torch.empty(1, *model.input_shape[:-2], size, size)
    return _counted(model, view)


def _counted(module: nn.Module, inputs: object) -> ModelCost:
    """Of a module on meta, in evaluation."""
    norm_macs = 0

    def count(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal norm_macs
        norm_macs += arguments[0].numel() * (LAYER_NORM_MACS if isinstance(norm, nn.LayerNorm) else BATCH_NORM_MACS)

    for part in module.modules():
        if isinstance(part, nn.LayerNorm | nn.BatchNorm2d | nn.BatchNorm3d):
            part.register_forward_pre_hook(count)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(inputs)
    return ModelCost(
        params=sum(parameter.numel() for parameter in module.parameters()),
        gmacs=(counter.get_total_flops() / 2 + norm_macs) / 1e9,
    )


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


def planned_cost(
    config: ModelConfig,
    *,
    num_frames: int,
    crop_size: int,
    view_size: int | None = None,
    segmentation: SegmentationConfig | None = None,
) -> ModelCost:
    """What `model_cost` counts, for sizes that fit together: the same sums by arithmetic alone, in microseconds.

    A decoder, and a ResNet, are counted once for each size.
    """
    if segmentation is not None and segmentation.backbone == "resnet50":
        return _resnet_cost(segmentation, config.num_classes, view_size or crop_size)
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
    head = _decoder_cost(segmentation, dims, config.num_classes, grids)
    return ModelCost(params=total.params + head.params, gmacs=total.macs / 1e9 + head.gmacs)


@lru_cache(maxsize=1024)
def _decoder_cost(
    segmentation: SegmentationConfig, dims: tuple[int, ...], num_classes: int, grids: tuple[int, ...]
) -> ModelCost:
    with torch.device("meta"):
        maps = [torch.empty(1, channels, grid, grid) for channels, grid in zip(dims, grids, strict=True)]
        return _counted(decoder(segmentation, dims, num_classes=num_classes), maps)


@lru_cache(maxsize=1024)
def _resnet_cost(segmentation: SegmentationConfig, num_classes: int, size: int) -> ModelCost:
    with torch.device("meta"):
        model = ResNetSegmentation(segmentation, num_classes=num_classes, crop_size=size)
        return _counted(model, torch.empty(1, *model.input_shape))


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


@dataclass(frozen=True, kw_only=True)
class StageBytes:
    """What the blocks of one stage keep for the backward pass, bytes."""

    kept: int
    """By all of its blocks, their inputs included."""
    inputs: int
    """Of its blocks alone; the rest can be recomputed from these."""
    blocks: int
    """Number of them, all alike."""


@dataclass(frozen=True, kw_only=True)
class ActivationBytes:
    """What a training micro-batch keeps for the backward pass in fp32, bytes."""

    outside: int
    """By what isn't in a block: stem, downsampling, head, and the input."""
    stages: tuple[StageBytes, ...]
    loss: int = 0
    """By the loss of segmentation, in fp32 whatever the arithmetic: log-probabilities of each pixel of the crops."""
    params: int = 0
    """Numbers of the network, which aren't among these bytes."""
    trained: int = 0
    """Of these, the ones that train."""

    def total(self, recomputed_stages: Collection[int] = (), *, in_16_bit: bool = False) -> int:
        """All of it at its greatest, where the blocks of some stages (1-4) are recomputed.

        Of these the inputs are kept, and the rest comes back for one block at a time.
        """
        total, one_block = self.outside, 0
        for number, stage in enumerate(self.stages, start=1):
            if number in recomputed_stages:
                total += stage.inputs
                one_block = max(one_block, (stage.kept - stage.inputs) // stage.blocks)
            else:
                total += stage.kept
        total += one_block
        return self.loss + (int(SHARE_IN_16_BIT * total) if in_16_bit else total)


def activation_bytes(
    config: ModelConfig,
    *,
    num_frames: int,
    crop_size: int,
    clips: int,
    frozen: Collection[Part] = (),
    segmentation: SegmentationConfig | None = None,
) -> ActivationBytes:
    """What one training micro-batch of `clips` clips keeps for the backward pass; less where parts are `frozen`.

    Parameters aren't counted; neither are what the allocator adds and what a layer needs only while it runs.

    Raises:
        ConfigError: The sizes don't fit together.
    """
    with torch.device("meta"):
        model = build_network(config, num_frames=num_frames, crop_size=crop_size, segmentation=segmentation)
        freeze(model, frozen)
        training_mode(model)
        batch = torch.empty(clips, *model.input_shape)
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    # By storage, and the tensors are held: a freed storage's address could come back for another.
    kept, inputs = [[dict[int, Tensor]() for _ in range(NUM_STAGES + 1)] for _ in ("kept", "inputs")]
    stage = 0

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in parameters and not any(storage in tensors for tensors in kept):
            kept[stage][storage] = tensor
        return tensor

    def enter(number: int, block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal stage
        stage = number
        if arguments[0].requires_grad or any(parameter.requires_grad for parameter in block.parameters()):
            inputs[number][arguments[0].untyped_storage()._cdata] = arguments[0]

    def leave(block: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal stage
        stage = 0

    for number, blocks in enumerate(model.stage_blocks(), start=1):
        for block in blocks:
            block.register_forward_pre_hook(partial(enter, number))
            block.register_forward_hook(leave)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(batch)
    return ActivationBytes(
        outside=_bytes(kept[0]),
        loss=0 if segmentation is None else len(outputs) * clips * config.num_classes * crop_size**2 * 4,
        params=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        stages=tuple(
            StageBytes(kept=_bytes(kept[number]), inputs=_bytes(inputs[number]), blocks=len(blocks))
            for number, blocks in enumerate(model.stage_blocks(), start=1)
        ),
    )


def _bytes(tensors: Mapping[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
