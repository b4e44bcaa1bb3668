"""From an operation of a norm to a kernel; see `morphmlp.models.fused.launch`."""

from math import prod
from typing import Any

import triton
from torch import Tensor

from morphmlp.models.fused import launch
from morphmlp.models.fused.norm_kernels import norm_gradient_kernel, norm_kernel

MOST_VALUES = 4096
"""Of one map, that a program has at a time."""


def forward(x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, frame: Tensor, *, eps: float) -> None:
    """Write the normalised map to `y`, and its mean over time to `frame` unless that is empty."""
    if not x.numel():
        return
    constants, count = _constants(x, with_frame=frame.ndim > 1, eps=eps), len(x) * prod(x.shape[2:-1])
    with launch.device_of(x):
        norm_kernel[(triton.cdiv(count, constants["BLOCK_M"]),)](x, weight, bias, y, frame, count, **constants)


def gradient(
    of_y: Tensor,
    x: Tensor,
    weight: Tensor,
    of_frame: Tensor | None,
    of_uses: tuple[Tensor, ...],
    found: tuple[Tensor, Tensor, Tensor],
    *,
    eps: float,
) -> None:
    """Write the gradients of a norm's input, and in parts of its weight and bias, to `found`."""
    constants, count = _constants(x, with_frame=of_frame is not None, eps=eps), len(x) * prod(x.shape[2:-1])
    parts = len(found[1])
    use_1, use_2 = (*of_uses, x, x)[:2]
    with launch.device_of(x):
        norm_gradient_kernel[(parts,)](
            of_y,
            x,
            weight,
            x if of_frame is None else of_frame,
            use_1,
            use_2,
            *found,
            count,
            triton.cdiv(count, parts),
            USES=len(of_uses),
            **constants,
        )


def _constants(x: Tensor, *, with_frame: bool, eps: float) -> dict[str, Any]:
    channels = x.shape[-1]
    filled = triton.next_power_of_2(channels)
    arithmetic = launch.arithmetic(x)
    return {
        "EPS": eps,
        "PLACES": prod(x.shape[2:-1]),
        "TIMES": x.shape[1],
        "C": channels,
        "WITH_FRAME": with_frame,
        "SUM": arithmetic["SUM"],
        "EMULATED": arithmetic["EMULATED"],
        "BLOCK_M": max(MOST_VALUES // filled, 1),
        "BLOCK_C": filled,
    }
