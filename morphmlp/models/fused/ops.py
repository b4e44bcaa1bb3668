"""The fused operations, as torch sees them: what they compute, also on tensors without data, and what it costs.

Each reads its operands and writes its results once, as far as memory is concerned: what a kernel reads again, it finds
in the cache. So counts of bytes treat them as any other operation. None has a gradient of its own: `layers` puts them
together.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from morphmlp.models.fused.rows import Rows

GRADIENT_PROGRAMS = 128
"""So many programs at most share a weight's gradient, enough for a GPU's processors; fewer where maps are so small that
their parts would be large next to them. It doesn't depend on the device, so that sums are the same on all."""
GRADIENT_BLOCK = 128
"""Outputs and inputs of a layer, whose part of the weight's gradient such a program computes."""


@torch.library.custom_op("morphmlp::linear", mutates_args=())
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    base: Tensor | None,
    rows: Sequence[int],
    gelu: bool,
) -> Tensor:
    """A linear layer over the rows of a map: `base + scale * (gelu(x) @ weight.T + bias)`, as a map.

    Args:
        x: A contiguous map, channels last.
        weight: `[n, k]`, of the kind of `x`.
        bias: `[n]`.
        scale: A factor for each clip and channel of the result, `[b, c]`.
        base: A map that the result is added to, whose kind it takes.
        rows: `Rows`.
        gelu: Whether GELU goes before the layer.
    """
    from morphmlp.models.fused import launch  # needs Triton

    y: Tensor = _linear_result(x, weight, bias, scale, base, rows, gelu)
    launch.linear(x, weight, y, Rows(*rows), bias=bias, scale_out=scale, base=base, gelu=gelu)
    return y


@linear.register_fake
def _linear_result(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    base: Tensor | None,
    rows: Sequence[int],
    gelu: bool,
) -> Tensor:
    kind = x.dtype if base is None else base.dtype
    return x.new_empty(*x.shape[:-1], Rows(*rows).channels(weight.shape[0]), dtype=kind)


@torch.library.custom_op("morphmlp::linear_input_gradient", mutates_args=())
def linear_input_gradient(
    gradient: Tensor, weight: Tensor, scale: Tensor | None, base: Tensor | None, z: Tensor | None, rows: Sequence[int]
) -> Tensor:
    """The gradient of `linear`'s input: `base + gelu'(z) * ((scale * gradient) @ weight)`, of the weight's kind.

    Args:
        gradient: Of its output, contiguous.
        weight: As in `linear`.
        scale: As in `linear`.
        base: A gradient that the result is added to.
        z: What GELU was applied to.
        rows: As in `linear`.
    """
    from morphmlp.models.fused import launch

    of_x: Tensor = _input_gradient_result(gradient, weight, scale, base, z, rows)
    launch.linear(gradient, weight.t(), of_x, Rows(*rows), scale_in=scale, base=base, z=z)
    return of_x


@linear_input_gradient.register_fake
def _input_gradient_result(
    gradient: Tensor, weight: Tensor, scale: Tensor | None, base: Tensor | None, z: Tensor | None, rows: Sequence[int]
) -> Tensor:
    return gradient.new_empty(*gradient.shape[:-1], Rows(*rows).channels(weight.shape[1]), dtype=weight.dtype)


@torch.library.custom_op("morphmlp::linear_weight_gradient", mutates_args=())
def linear_weight_gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    rows: Sequence[int],
    gelu: bool,
    of_scale: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `linear`'s weight `[p n k]`, bias `[p n]` and scale `[q b g n]`, in parts to be summed.

    `weight` and `bias` may be of any kind. The last result is empty unless `of_scale`, which needs a bias and a scale.
    """
    from morphmlp.models.fused import launch

    found: tuple[Tensor, Tensor, Tensor] = _weight_gradient_results(
        gradient, x, weight, bias, scale, rows, gelu, of_scale
    )
    launch.weight_gradient(gradient, x, weight, found, Rows(*rows), bias=bias, scale=scale, gelu=gelu)
    return found


@linear_weight_gradient.register_fake
def _weight_gradient_results(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    rows: Sequence[int],
    gelu: bool,
    of_scale: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    kind = torch.promote_types(x.dtype, torch.float32)
    outputs, inputs = (-(-size // GRADIENT_BLOCK) for size in weight.shape)
    of_a_clip = Rows(*rows).in_a_segment * Rows(*rows).groups
    parts = max(min(GRADIENT_PROGRAMS // (outputs * inputs), 2 * of_a_clip // max(weight.shape)), 1)
    scales = (inputs, x.shape[0], Rows(*rows).groups, weight.shape[0]) if of_scale else (0,)
    return (
        x.new_empty(parts, *weight.shape, dtype=kind),
        x.new_empty(parts, weight.shape[0], dtype=kind),
        x.new_empty(scales, dtype=kind),
    )


@register_flop_formula(torch.ops.morphmlp.linear)
def _linear_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    return 2 * prod(x) * weight[0]


@register_flop_formula(torch.ops.morphmlp.linear_input_gradient)
def _input_gradient_flops(gradient: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    return 2 * prod(gradient) * weight[1]


@register_flop_formula(torch.ops.morphmlp.linear_weight_gradient)
def _weight_gradient_flops(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *_: object, **__: object
) -> int:
    return 2 * prod(x) * weight[0]
