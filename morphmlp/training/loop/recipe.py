"""The published optimisation as small functions: parameter groups and learning rate.

Sources: MorphMLP reference code (MTLab/MorphMLP, commit 62ebe80), which builds on PySlowFast; for images DeiT
(facebookresearch/deit, commit 7e160fe), which builds on timm; for segmentation mmcv 1.x, which mmsegmentation 0.x uses.
"""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from morphmlp.config.schema import OptimConfig
from morphmlp.models.parts import layers_of, part_of

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8


GROUP_KINDS = ("BatchNorm", "decayed", "one-dimensional")
"""Kinds of parameter groups, in the published order; a group's `kind` is one of them."""


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW with the published groups, in the published order: BatchNorm, decayed, one-dimensional.

    Only weights with two or more dimensions decay. The loop sets each group's learning rate before each step: the
    schedule's times the group's `lr_factor`, which is 1 as published. Where layers have rates of their own, each kind
    falls into groups of one factor. Frozen parameters are in no group. The fused form can leave a step out by what the
    device finds, without the host.
    """
    factors = lr_factors(model, optim)
    groups = []
    for kind, parameters in zip(GROUP_KINDS, parameter_groups(model), strict=True):
        by_factor: dict[float, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_factor.setdefault(factors[id(parameter)], []).append(parameter)
        decay = optim.weight_decay if kind == "decayed" else 0.0
        groups += [
            {"params": alike, "weight_decay": decay, "kind": kind, "lr_factor": factor}
            for factor, alike in by_factor.items()
        ]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=ADAM_BETAS, eps=ADAM_EPS, fused=True)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of BatchNorms, with two or more dimensions, and the remaining one-dimensional ones; none is frozen."""
    batch_norm = [
        parameter for module in model.modules() if isinstance(module, _BatchNorm) for parameter in module.parameters()
    ]
    taken = {id(parameter) for parameter in batch_norm}
    others = [parameter for parameter in model.parameters() if id(parameter) not in taken and parameter.requires_grad]
    return (
        [p for p in batch_norm if p.requires_grad],
        [p for p in others if p.ndim > 1],
        [p for p in others if p.ndim <= 1],
    )


def lr_factors(model: nn.Module, optim: OptimConfig) -> dict[int, float]:
    """Each parameter's learning rate as a multiple of the schedule's, by the parameter's `id`.

    Of `L` layers (stem 0, blocks from 1, norm and head last), layer `i` has `layer_decay ** (L - i)`, the head this
    times `head_lr_factor`.
    """
    layers = layers_of([name for name, _ in model.named_parameters()])
    last = max(layers.values(), default=0)
    return {
        id(parameter): optim.layer_decay ** (last - layers[name])
        * (optim.head_lr_factor if part_of(name) == "head" else 1.0)
        for name, parameter in model.named_parameters()
    }


def learning_rate(position: float, *, whole: float, optim: OptimConfig) -> float:
    """The learning rate at a position in a whole training: both in epochs, with fractions, or both in steps.

    With `schedule: steps` it is linear to `lr`, then the rest of half a cosine to `min_lr`, which begins where warm-up
    ends. timm's (`CosineLRScheduler` without `warmup_prefix`) runs from epoch 0 on and changes at whole epochs: after
    20 warm-up epochs of 300 it sets in at 0.989 of `lr`. DeiT steps it after an epoch by the number of that epoch, so
    that each has the rate of the one before, and the first two the rate at which warm-up begins.

    `poly` and `cosine` are mmcv's (`PolyLrUpdaterHook`, `CosineAnnealingLrUpdaterHook` of 1.x, `by_epoch=False`). Its
    `warmup_ratio` is `warmup_lr / lr`, and where a group has a rate of its own, `min_lr` is a share of it.
    """
    warmup = optim.warmup or 0.0
    start = optim.min_lr if optim.warmup_lr is None else optim.warmup_lr
    if optim.schedule in ("cosine", "poly"):
        share = min(position / whole, 1.0)
        falls = (1 + math.cos(math.pi * share)) / 2 if optim.power is None else (1 - share) ** optim.power
        rate = optim.min_lr + (optim.lr - optim.min_lr) * falls
        if position < warmup:
            rate *= 1 - (1 - position / warmup) * (1 - start / optim.lr)
        return rate
    cosine_start = warmup
    if optim.schedule != "steps":
        position, cosine_start = max(math.floor(position) - (optim.schedule == "deit"), 0), 0.0
    if position < warmup:
        return start + (optim.lr - start) * position / warmup
    length = max(whole - cosine_start, 1e-9)
    progress = min((position - cosine_start) / length, 1.0)
    return optim.min_lr + (optim.lr - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
