"""The operations of a norm, as torch sees them; see `morphmlp.models.fused.ops`."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

GRADIENT_PROGRAMS = 256
"""So many programs at most share the gradients of a norm's weight and bias; fewer where maps are small."""


@torch.library.custom_op("morphmlp::norm", mutates_args=())
def norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype, with_frame: bool
) -> tuple[Tensor, Tensor]:
    """A contiguous map, `[b t h w c]`, normalised by its last axis, of a kind; and its mean over time `[b 1 h w c]`.

    The mean is in fp32 (fp64 for fp64), and empty unless `with_frame`.
    """
    from morphmlp.models.fused import norm_launch  # needs Triton

    y: Tensor
    frame: Tensor
    y, frame = _results(x, weight, bias, eps, kind, with_frame)
    norm_launch.forward(x, weight, bias, y, frame, eps=eps)
    return y, frame


@norm.register_fake
def _results(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, kind: torch.dtype, with_frame: bool
) -> tuple[Tensor, Tensor]:
    frame = (x.shape[0], 1, *x.shape[2:]) if with_frame else (0,)
    return x.new_empty(x.shape, dtype=kind), x.new_empty(frame, dtype=_exact(x))


@torch.library.custom_op("morphmlp::norm_gradient", mutates_args=())
def norm_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, of_frame: Tensor | None, of_uses: Sequence[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a norm's input, and of its weight and bias, `[p c]` each, in parts to be summed.

    Args:
        gradient: Of the normalised map, contiguous.
        x: The norm's input.
        weight: The norm's.
        of_frame: The gradient of the mean over time.
        of_uses: Gradients of other uses of the input, two at most, contiguous: added to its gradient.
        eps: The norm's.
    """
    from morphmlp.models.fused import norm_launch

    found: tuple[Tensor, Tensor, Tensor] = _gradient_results(gradient, x, weight, of_frame, of_uses, eps)
    norm_launch.gradient(gradient, x, weight, of_frame, tuple(of_uses), found, eps=eps)
    return found


@norm_gradient.register_fake
def _gradient_results(
    gradient: Tensor, x: Tensor, weight: Tensor, of_frame: Tensor | None, of_uses: Sequence[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    parts = max(min(GRADIENT_PROGRAMS, prod(x.shape[1:-1]) // 4), 1)
    of_weight, of_bias = (x.new_empty(parts, x.shape[-1], dtype=_exact(x)) for _ in range(2))
    return torch.empty_like(x), of_weight, of_bias


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
