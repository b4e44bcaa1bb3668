"""From an operation of the channel unit to a kernel; see `morphmlp.models.fused.launch`."""

from math import prod
from typing import Any, NamedTuple

import triton
from torch import Tensor

from morphmlp.models.fused import launch
from morphmlp.models.fused.channel_kernels import (
    channel_unit_input_gradient_kernel,
    channel_unit_kernel,
    channel_unit_weight_gradient_kernel,
)
from morphmlp.models.fused.channel_ops import HIDDEN_BLOCK, MOST_CHANNELS

FORWARD_BYTES, BACKWARD_BYTES = 32 * 1024, 16 * 1024
"""Of tokens that a program has at a time, channels filled up to a power of 2: with more of them, registers run over."""
MOST_TOKENS = 128
"""That a program has at a time."""


class Parameters(NamedTuple):
    """Of the unit, in the order in which kernels take them; matrices are contiguous, of one kind."""

    norm_weight: Tensor
    norm_bias: Tensor
    weight_1: Tensor
    bias_1: Tensor
    weight_2: Tensor


def forward(x: Tensor, parameters: Parameters, bias_2: Tensor, factor: Tensor | None, y: Tensor, *, eps: float) -> None:
    """Write the unit's result to `y`."""
    if not x.numel():
        return
    constants, count = _constants(x, parameters, factor, FORWARD_BYTES, eps=eps), x.numel() // x.shape[-1]
    with launch.device_of(x):
        channel_unit_kernel[(triton.cdiv(count, constants["BLOCK_M"]),)](
            x, *parameters, bias_2, x if factor is None else factor, y, count, **constants
        )


def input_gradient(
    gradient: Tensor, x: Tensor, parameters: Parameters, factor: Tensor | None, of_x: Tensor, *, eps: float
) -> None:
    """Write the gradient of the unit's input to `of_x`."""
    if not x.numel():
        return
    constants, count = _constants(x, parameters, factor, BACKWARD_BYTES, eps=eps), x.numel() // x.shape[-1]
    with launch.device_of(x):
        channel_unit_input_gradient_kernel[(triton.cdiv(count, constants["BLOCK_M"]),)](
            gradient, x, *parameters, x if factor is None else factor, of_x, count, **constants
        )


def weight_gradient(
    gradient: Tensor,
    x: Tensor,
    parameters: Parameters,
    factor: Tensor | None,
    found: tuple[Tensor, ...],
    *,
    eps: float,
) -> None:
    """Write the parts of the gradients to `found`."""
    constants, count = _constants(x, parameters, factor, BACKWARD_BYTES, eps=eps), x.numel() // x.shape[-1]
    parts = len(found[0])
    blocks = triton.cdiv(triton.cdiv(count, parts), constants["BLOCK_M"])
    with launch.device_of(x):
        channel_unit_weight_gradient_kernel[(triton.cdiv(constants["H"], constants["BLOCK_H"]), parts)](
            gradient,
            x,
            *parameters,
            x if factor is None else factor,
            *found,
            count,
            blocks * constants["BLOCK_M"],
            **constants,
        )


def _constants(
    x: Tensor, parameters: Parameters, factor: Tensor | None, most_bytes: int, *, eps: float
) -> dict[str, Any]:
    hidden, channels = parameters.weight_1.shape
    filled = launch.block_size(channels, MOST_CHANNELS)
    return {
        "EPS": eps,
        "CLIP_ROWS": prod(x.shape[1:-1]),
        "C": channels,
        "H": hidden,
        "HAS_FACTOR": factor is not None,
        **launch.arithmetic(x),
        "BLOCK_M": launch.block_size(most_bytes // (filled * parameters.weight_1.element_size()), MOST_TOKENS),
        "BLOCK_C": filled,
        "BLOCK_H": HIDDEN_BLOCK,
        "num_warps": 8,
        "num_stages": 1,
    }
