"""The parts of a network by the names of its parameters: what freezing and layer-wise learning rates go by.

A stage begins with the step down to its size (`patch_embed2` belongs to stage 2), and the last norm of a classifier
belongs to stage 4. A decoder for segmentation belongs to the head with the norms of the maps that it sees: all of this
starts fresh together. Names of a ResNet are torchvision's.
"""

import re
from collections.abc import Collection
from typing import cast

from torch import nn

from morphmlp.config.shapes import NUM_STAGES
from morphmlp.config.values import Part

_BACKBONE = re.compile(r"(patch_embed|blocks|layer)(\d)\b\.?(\d+)?")
"""Beginning of a name; the groups are what it is, its stage from 1, and a block's number in the stage from 0."""
_STEM = re.compile(r"patch_embed1\b|(conv|bn)1\b")


def part_of(name: str) -> Part:
    """The part that a parameter or module belongs to; what the backbone doesn't know is the head's."""
    if _STEM.match(name):
        return "stem"
    found = _BACKBONE.match(name)
    if found is None:
        return "stage4" if name.partition(".")[0] == "norm" else "head"
    return cast(Part, f"stage{found[2]}")


def layers_of(names: Collection[str]) -> dict[str, int]:
    """The layer of each parameter, counted from the input as in BEiT: the stem 0, blocks from 1, then norm and head.

    The step down to a stage counts with the stage's first block.
    """
    depths = [0] * NUM_STAGES
    for name in names:
        found = _BACKBONE.match(name)
        if found is not None and found[3] is not None:
            depths[int(found[2]) - 1] = max(depths[int(found[2]) - 1], int(found[3]) + 1)
    return {name: _layer(name, depths) for name in names}


def _layer(name: str, depths: list[int]) -> int:
    if part_of(name) == "stem":
        return 0
    found = _BACKBONE.match(name)
    if found is None:
        return sum(depths) + 1
    return 1 + sum(depths[: int(found[2]) - 1]) + int(found[3] or 0)


def freeze(model: nn.Module, parts: Collection[Part]) -> None:
    """Let no gradient reach the weights of these parts; `training_mode` leaves them in evaluation then."""
    for name, parameter in model.named_parameters():
        if part_of(name) in parts:
            parameter.requires_grad_(False)


def training_mode(model: nn.Module) -> None:
    """Put a model in training mode, but for modules of which nothing trains.

    As in mmpretrain, frozen BatchNorms keep their statistics and frozen blocks drop no path: noise in
    features that can't adapt to it would only blur what the trained layers see.
    """
    model.train()
    _evaluate_frozen(model)


def _evaluate_frozen(module: nn.Module) -> None:
    trains = [parameter.requires_grad for parameter in module.parameters()]
    if trains and not any(trains):
        module.eval()
    elif not all(trains):
        for child in module.children():
            _evaluate_frozen(child)
