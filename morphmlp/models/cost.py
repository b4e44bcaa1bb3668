"""What a network costs: parameters, multiply-accumulates, activation memory; on the meta device, so in no time.

Knows networks only: nothing here measures a clock or a GPU.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from morphmlp.config import ModelConfig
from morphmlp.models.backbone import MorphMLP

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


def model_cost(config: ModelConfig, *, num_frames: int, crop_size: int) -> ModelCost:
    """Parameters and GMAC of one view: convolutions, linear layers and norms, as fvcore counts.

    Raises:
        ConfigError: The sizes don't fit together.
    """
    with torch.device("meta"):
        model = MorphMLP(config, num_frames=num_frames, crop_size=crop_size).eval()
        view = torch.empty(1, *model.input_shape)
    norm_macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal norm_macs
        norm_macs += inputs[0].numel() * (LAYER_NORM_MACS if isinstance(module, nn.LayerNorm) else BATCH_NORM_MACS)

    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d | nn.BatchNorm3d):
            module.register_forward_pre_hook(count)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(view)
    return ModelCost(
        params=sum(parameter.numel() for parameter in model.parameters()),
        gmacs=(counter.get_total_flops() / 2 + norm_macs) / 1e9,
    )


def activation_bytes(config: ModelConfig, *, num_frames: int, crop_size: int, clips: int) -> int:
    """Bytes that one training micro-batch of `clips` clips keeps for the backward pass, in fp32, input included.

    Parameters aren't counted; neither are what the allocator adds and what a layer needs only while it runs.

    Raises:
        ConfigError: The sizes don't fit together.
    """
    with torch.device("meta"):
        model = MorphMLP(config, num_frames=num_frames, crop_size=crop_size).train()
        batch = torch.empty(clips, *model.input_shape)
    not_activations = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    # The tensors are held: a freed storage's address could come back for another.
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in not_activations:
            kept[storage] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
