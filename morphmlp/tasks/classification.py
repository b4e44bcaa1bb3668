"""Classification: soft targets, MixUp and CutMix, loss.

Sources: MorphMLP reference code (MTLab/MorphMLP, commit 62ebe80), which builds on PySlowFast.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from morphmlp.config.schema import MixingConfig


def soft_targets(labels: Int[Tensor, "b"], *, num_classes: int, label_smoothing: float) -> Float[Tensor, "b k"]:
    """True class `1 - s + s / K`, the others `s / K`."""
    rest = label_smoothing / num_classes
    targets = torch.full((len(labels), num_classes), rest, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - label_smoothing + rest)


def mix(
    clips: Float[Tensor, "b c t h w"], targets: Float[Tensor, "b k"], *, mixing: MixingConfig, rng: np.random.Generator
) -> tuple[Float[Tensor, "b c t h w"], Float[Tensor, "b k"]]:
    """MixUp or CutMix over one micro-batch; clip i is mixed with clip `b - 1 - i`.

    Published: a fair coin chooses between the two; one share and one box hold for all clips and frames.
    """
    use_cutmix = mixing.cutmix > 0 and (mixing.mixup == 0 or rng.random() < 0.5)
    if use_cutmix:
        box = cutmix_box(rng.beta(mixing.cutmix, mixing.cutmix), height=clips.shape[-2], width=clips.shape[-1], rng=rng)
        rows, columns = box
        mixed = clips.clone()
        mixed[..., rows, columns] = clips.flip(0)[..., rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / (clips.shape[-2] * clips.shape[-1])
    elif mixing.mixup > 0:
        share = rng.beta(mixing.mixup, mixing.mixup)
        mixed = clips * share + clips.flip(0) * (1 - share)
    else:
        return clips, targets
    return mixed, targets * share + targets.flip(0) * (1 - share)


def cutmix_box(share: float, *, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box with side ratio `sqrt(1 - share)`, uniform centre, clipped at the border."""
    ratio = math.sqrt(1 - share)
    box_height, box_width = int(height * ratio), int(width * ratio)
    centre_row, centre_column = int(rng.integers(0, height)), int(rng.integers(0, width))
    return (
        slice(max(centre_row - box_height // 2, 0), min(centre_row + box_height // 2, height)),
        slice(max(centre_column - box_width // 2, 0), min(centre_column + box_width // 2, width)),
    )


def soft_target_loss_sum(logits: Float[Tensor, "b k"], targets: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Soft-target cross-entropy summed over clips; targets aren't normalised again."""
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum()
