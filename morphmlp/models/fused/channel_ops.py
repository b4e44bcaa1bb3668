"""The operations of the channel unit, as torch sees them; see `morphmlp.models.fused.ops`.

Norm and hidden channels are made anew in the backward pass, twice: for the gradients of the input and of the weights.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from morphmlp.models.fused.ops import GRADIENT_PROGRAMS

MOST_CHANNELS = 256
"""Of a unit: a program has all channels of its tokens. Of more it would have so few tokens that reading the weights for
each program would cost more than the hidden map."""
HIDDEN_BLOCK = 32
"""Hidden channels that a program makes at a time."""


@torch.library.custom_op("morphmlp::channel_unit", mutates_args=())
def channel_unit(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    bias_2: Tensor,
    factor: Tensor | None,
    eps: float,
) -> Tensor:
    """`x + factor * (gelu(norm(x) @ weight_1.T + bias_1) @ weight_2.T + bias_2)`, of a map with channels last.

    Args:
        x: A contiguous map.
        norm_weight: `[c]`.
        norm_bias: `[c]`.
        weight_1: `[h, c]`, of the kind in which products are multiplied.
        bias_1: `[h]`.
        weight_2: `[c, h]`, as `weight_1`.
        bias_2: `[c]`.
        factor: For each clip.
        eps: The norm's.
    """
    from morphmlp.models.fused import channel_launch  # needs Triton

    y = torch.empty_like(x)
    parameters = channel_launch.Parameters(norm_weight, norm_bias, weight_1, bias_1, weight_2)
    channel_launch.forward(x, parameters, bias_2, factor, y, eps=eps)
    return y


@channel_unit.register_fake
def _result(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("morphmlp::channel_unit_input_gradient", mutates_args=())
def input_gradient(
    gradient: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    factor: Tensor | None,
    eps: float,
) -> Tensor:
    """The gradient of the unit's input, of its kind; arguments as in `channel_unit`."""
    from morphmlp.models.fused import channel_launch

    of_x = torch.empty_like(x)
    parameters = channel_launch.Parameters(norm_weight, norm_bias, weight_1, bias_1, weight_2)
    channel_launch.input_gradient(gradient, x, parameters, factor, of_x, eps=eps)
    return of_x


@input_gradient.register_fake
def _input_gradient_result(gradient: Tensor, x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("morphmlp::channel_unit_weight_gradient", mutates_args=())
def weight_gradient(
    gradient: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    factor: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients in parts to be summed, `[p h c]`, `[p h]`, `[p c h]` and `[p c]`; arguments as in `channel_unit`.

    They are those of the weights and biases, but the first, which is as if the norm had no weight and bias.
    """
    from morphmlp.models.fused import channel_launch

    found: tuple[Tensor, Tensor, Tensor, Tensor] = _weight_gradient_results(
        gradient, x, norm_weight, norm_bias, weight_1
    )
    parameters = channel_launch.Parameters(norm_weight, norm_bias, weight_1, bias_1, weight_2)
    channel_launch.weight_gradient(gradient, x, parameters, factor, found, eps=eps)
    return found


@weight_gradient.register_fake
def _weight_gradient_results(
    gradient: Tensor, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight_1: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kind = torch.promote_types(x.dtype, torch.float32)
    hidden, channels = weight_1.shape
    programs = -(-hidden // HIDDEN_BLOCK)
    parts = max(min(GRADIENT_PROGRAMS // programs, 2 * prod(x.shape[1:-1]) // hidden), 1)
    return (
        x.new_empty(parts, hidden, channels, dtype=kind),
        x.new_empty(parts, hidden, dtype=kind),
        x.new_empty(parts, channels, hidden, dtype=kind),
        x.new_empty(parts, channels, dtype=kind),
    )


def _product_flops(x: Sequence[int], weight_1: Sequence[int]) -> int:
    """Of one matrix product."""
    return 2 * prod(x) * weight_1[0]


@register_flop_formula(torch.ops.morphmlp.channel_unit)
def _flops(x: Sequence[int], _w: object, _b: object, weight_1: Sequence[int], *_: object, **__: object) -> int:
    return 2 * _product_flops(x, weight_1)


@register_flop_formula(torch.ops.morphmlp.channel_unit_input_gradient)
def _input_gradient_flops(
    _: object, x: Sequence[int], _w: object, _b: object, weight_1: Sequence[int], *__: object, **___: object
) -> int:
    return 3 * _product_flops(x, weight_1)


@register_flop_formula(torch.ops.morphmlp.channel_unit_weight_gradient)
def _weight_gradient_flops(
    _: object, x: Sequence[int], _w: object, _b: object, weight_1: Sequence[int], *__: object, **___: object
) -> int:
    return 4 * _product_flops(x, weight_1)
