"""The published optimisation as small functions: parameter groups and learning rate.

Sources: MorphMLP reference code (MTLab/MorphMLP, commit 62ebe80), which builds on PySlowFast.
"""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from morphmlp.config.schema import OptimConfig

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW with the published groups, in the published order: BatchNorm, decayed, one-dimensional.

    Only weights with two or more dimensions decay. All parameters of a group share one learning rate, which
    the loop sets before each step. The fused form can leave a step out by what the device finds, without the host.
    """
    batch_norm, decayed, undecayed = parameter_groups(model)
    groups = [
        {"params": batch_norm, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=ADAM_BETAS, eps=ADAM_EPS, fused=True)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of BatchNorms, with two or more dimensions, and the remaining one-dimensional ones."""
    batch_norm = [
        parameter for module in model.modules() if isinstance(module, _BatchNorm) for parameter in module.parameters()
    ]
    taken = {id(parameter) for parameter in batch_norm}
    others = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    return batch_norm, [p for p in others if p.ndim > 1], [p for p in others if p.ndim <= 1]


def learning_rate(epoch: float, *, epochs: int, optim: OptimConfig) -> float:
    """The learning rate at a fractional epoch: linear from `min_lr` to `lr`, then half a cosine back to `min_lr`."""
    if epoch < optim.warmup_epochs:
        return optim.min_lr + (optim.lr - optim.min_lr) * epoch / optim.warmup_epochs
    length = max(epochs - optim.warmup_epochs, 1e-9)
    progress = min((epoch - optim.warmup_epochs) / length, 1.0)
    return optim.min_lr + (optim.lr - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
