"""What a network costs: parameters, multiply-accumulates, activation memory; on the meta device, so in no time.

Counted, not measured: no clock and no GPU take part.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from morphmlp.config import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.config.shapes import NUM_STAGES, stage_grids, temporal_tokens
from morphmlp.config.values import Part
from morphmlp.models.build import build_network
from morphmlp.models.parts import freeze, training_mode
from morphmlp.models.planned_cost import BATCH_NORM_MACS, LAYER_NORM_MACS, ModelCost, planned_cost
from morphmlp.models.published_form import as_published
from morphmlp.models.sizes import INPUT_CHANNELS

SHARE_IN_16_BIT = 0.6
"""Of the fp32 bytes that 16-bit arithmetic keeps for the backward pass: half, and what norms keep in fp32 next to it
(0.595 for S 16x4 in bf16 on an H200, `tests/gpu/test_network.py`)."""
_BLOCK_MAPS, _OUTSIDE_MAPS = 16, 24
"""Maps of a block's size that `most_activation_bytes` counts for it besides those of its channel MLP, and maps of the
first stage's size for all that is in no block: more than any network keeps (`tests/unit/models/test_cost.py`)."""


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
    return _counted(as_published(model), view)  # whose arithmetic papers count


def _counted(module: nn.Module, inputs: object) -> ModelCost:
    """Of a module on meta, in evaluation."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 (imports Triton, which no training needs)

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
    published: bool = False,
) -> ActivationBytes:
    """What one training micro-batch of `clips` clips keeps for the backward pass; less where parts are `frozen`.

    With `published` it is that of the published order of steps (`as_published`), which keeps more.
    Parameters aren't counted; neither are what the allocator adds and what a layer needs only while it runs.

    Raises:
        ConfigError: The sizes don't fit together.
    """
    with torch.device("meta"):
        model = build_network(config, num_frames=num_frames, crop_size=crop_size, segmentation=segmentation)
        if published:
            as_published(model)
        freeze(model, frozen)
        training_mode(model)
        batch = torch.empty(clips, *model.input_shape)
    kept = _KeptTensors(model)
    for number, blocks in enumerate(model.stage_blocks(), start=1):
        for block in blocks:
            block.register_forward_pre_hook(partial(kept.enter, number))
            block.register_forward_hook(kept.leave)
    with saved_tensors_hooks(kept.keep, lambda tensor: tensor):
        outputs = model(batch)
    return ActivationBytes(
        outside=_bytes(kept.by_stage[0]),
        loss=0 if segmentation is None else len(outputs) * clips * config.num_classes * crop_size**2 * 4,
        params=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        stages=tuple(
            StageBytes(kept=_bytes(kept.by_stage[number]), inputs=_bytes(kept.inputs[number]), blocks=len(blocks))
            for number, blocks in enumerate(model.stage_blocks(), start=1)
        ),
    )


def most_activation_bytes(config: ModelConfig, *, num_frames: int, crop_size: int, clips: int) -> ActivationBytes:
    """At least what `activation_bytes` counts of a classifier in the published order, by arithmetic in no time.

    On meta, torch imports for seconds before it runs a layer. This tells that much memory is enough; what a block's
    recomputation leaves isn't bounded.
    """
    steps = 1 if config.temporal == "none" else temporal_tokens(num_frames)
    maps = [
        4 * clips * steps * side**2 * channels
        for side, channels in zip(stage_grids(crop_size), config.embed_dims, strict=True)
    ]
    params = planned_cost(config, num_frames=num_frames, crop_size=crop_size).params
    kept = int(_BLOCK_MAPS + 4 * config.mlp_ratio)
    return ActivationBytes(
        outside=_OUTSIDE_MAPS * maps[0] + 4 * clips * num_frames * crop_size**2 * INPUT_CHANNELS,
        params=params,
        trained=params,
        stages=tuple(
            StageBytes(kept=depth * kept * size, inputs=depth * size, blocks=depth)
            for depth, size in zip(config.depths, maps, strict=True)
        ),
    )


class _KeptTensors:
    """What a forward pass keeps for the backward pass, by stage; 0 is outside of blocks."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._stage = 0
        # By storage, and the tensors are held: a freed storage's address could come back for another.
        self.by_stage = [dict[int, Tensor]() for _ in range(NUM_STAGES + 1)]
        self.inputs = [dict[int, Tensor]() for _ in range(NUM_STAGES + 1)]
        """Of blocks."""

    def keep(self, tensor: Tensor) -> Tensor:
        """Take a tensor that autograd saves, unless it's a parameter or kept already."""
        storage = tensor.untyped_storage()._cdata
        if storage not in self._parameters and not any(storage in tensors for tensors in self.by_stage):
            self.by_stage[self._stage][storage] = tensor
        return tensor

    def enter(self, number: int, block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Begin a block of stage `number`."""
        self._stage = number
        if arguments[0].requires_grad or any(parameter.requires_grad for parameter in block.parameters()):
            self.inputs[number][arguments[0].untyped_storage()._cdata] = arguments[0]

    def leave(self, *_: object) -> None:
        """End a block."""
        self._stage = 0


def _bytes(tensors: Mapping[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
