"""From a fused operation to a kernel: its grid, its blocks, and what it is built for."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from morphmlp.models.fused.kernels import linear_kernel, weight_gradient_kernel
from morphmlp.models.fused.ops import GRADIENT_BLOCK
from morphmlp.models.fused.rows import Rows

LEAST_BLOCK = 16
"""Of what the units for products of matrices take."""
LINEAR_BLOCKS = 128, 128, 64
"""Most rows, outputs and inputs that a program has at a time."""
GRADIENT_ROWS = 64
"""Most rows that a program of a weight's gradient has at a time."""
UNSCALED_SEGMENT = 1024
"""Rows of a segment where the scale has no gradient, so that any rows will do."""
_SUMS = {torch.float64: tl.float64}
INTERPRETED = isinstance(linear_kernel, InterpretedFunction)
"""Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1, when Triton was imported): slowly, on any device."""


def linear(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    rows: Rows,
    *,
    bias: Tensor | None = None,
    scale_in: Tensor | None = None,
    scale_out: Tensor | None = None,
    base: Tensor | None = None,
    z: Tensor | None = None,
    gelu: bool = False,
) -> None:
    """Write a layer's result to `y`; `weight` may be transposed, maps are contiguous."""
    outputs, inputs = weight.shape
    count = x.numel() // inputs
    if not count:
        return
    most_rows, most_outputs, most_inputs = LINEAR_BLOCKS
    block_m, block_n = block_size(count, most_rows), block_size(outputs, most_outputs)
    grid = (triton.cdiv(count, block_m) * triton.cdiv(outputs, block_n),)
    scale = scale_in if scale_out is None else scale_out
    with device_of(x):
        linear_kernel[grid](
            x,
            weight,
            *(x if one is None else one for one in (bias, scale, base, z)),
            y,
            count,
            N=outputs,
            K=inputs,
            WEIGHT_N=weight.stride(0),
            WEIGHT_K=weight.stride(1),
            **_places(rows, inputs=inputs, outputs=outputs),
            HAS_BIAS=bias is not None,
            SCALE_IN=scale_in is not None,
            SCALE_OUT=scale_out is not None,
            HAS_BASE=base is not None,
            GELU_IN=gelu,
            GELU_SLOPE=z is not None,
            **arithmetic(x),
            BLOCK_M=block_m,
            BLOCK_N=block_n,
            BLOCK_K=block_size(inputs, most_inputs),
            num_warps=8 if block_m * block_n > 64 * 128 else 4,
        )


def weight_gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    found: tuple[Tensor, Tensor, Tensor],
    rows: Rows,
    *,
    bias: Tensor | None,
    scale: Tensor | None,
    gelu: bool,
) -> None:
    """Write the parts of the gradients of a layer's weight, bias and scale to `found`; the last may be empty."""
    of_weight, of_bias, of_scale = found
    parts, outputs, inputs = of_weight.shape
    count, scaled = x.numel() // inputs, of_scale.ndim > 1
    segment = rows.in_a_segment if scaled else UNSCALED_SEGMENT
    segments = x.shape[0] * rows.groups if scaled else triton.cdiv(count, segment)
    block_n, block_k = block_size(outputs, GRADIENT_BLOCK), block_size(inputs, GRADIENT_BLOCK)
    grid = (triton.cdiv(outputs, block_n), triton.cdiv(inputs, block_k), parts)
    with device_of(x):
        weight_gradient_kernel[grid](
            gradient,
            x,
            weight,
            *(x if one is None else one for one in (bias, scale)),
            of_weight,
            of_bias,
            of_scale,
            count,
            segments,
            triton.cdiv(segments, parts),
            N=outputs,
            K=inputs,
            **_places(rows, inputs=inputs, outputs=outputs),
            GELU_IN=gelu,
            SCALE_LOAD=scale is not None and not scaled,
            SCALE_GRADIENT=scaled,
            SEGMENT_ROWS=segment,
            SEGMENT_GROUPS=rows.groups if scaled else 1,
            **arithmetic(x),
            BLOCK_M=block_size(segment, GRADIENT_ROWS),
            BLOCK_N=block_n,
            BLOCK_K=block_k,
            num_warps=8,
        )


def _places(rows: Rows, *, inputs: int, outputs: int) -> dict[str, int]:
    """Where rows and their values lie, as the kernels' constants."""
    return {
        "FRAMES": rows.frames,
        "DOWN": rows.down,
        "ACROSS": rows.across,
        "GROUPS": rows.groups,
        "FRAME_STRIDE": rows.frame_stride,
        "DOWN_STRIDE": rows.down_stride,
        "ACROSS_STRIDE": rows.across_stride,
        "INNER": rows.inner,
        "OUTER_STRIDE": rows.outer_stride,
        "INNER_STRIDE": rows.inner_stride,
        "SIZE_IN": inputs // rows.tokens,
        "SIZE_OUT": outputs // rows.tokens,
    }


def arithmetic(x: Tensor) -> dict[str, object]:
    """In which numbers products are summed; for fp32 by torch's own setting."""
    return {
        "SUM": _SUMS.get(x.dtype, tl.float32),
        "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        "EMULATED": INTERPRETED,
    }


def block_size(size: int, most: int) -> int:
    """The next power of 2, as blocks are."""
    return min(max(int(triton.next_power_of_2(size)), LEAST_BLOCK), most)


def device_of(x: Tensor) -> torch.cuda.device:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device if x.is_cuda else -1)
