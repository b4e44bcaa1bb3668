"""The kernels, in Triton, of a block's channel unit: `y = x + factor * mlp(norm(x))`, whose rows are tokens.

A program has whole tokens. It normalises them and makes hidden channels a few at a time, which no other program needs,
so that neither the normalised nor the hidden map is ever written. `EMULATED` as in `morphmlp.models.fused.kernels`.
"""

import triton
import triton.language as tl

from morphmlp.models.fused.kernels import gelu, gelu_slope, product, rounded
from morphmlp.models.fused.norm_kernels import gradient_before_norm, standardised, with_affine


@triton.jit
def channel_unit_kernel(
    x,
    norm_weight,
    norm_bias,
    weight_1,
    bias_1,
    weight_2,
    bias_2,
    factor,
    y,
    m_end,
    EPS: tl.constexpr,
    CLIP_ROWS: tl.constexpr,
    C: tl.constexpr,
    H: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """The unit's result; weights are of the kind in which products are multiplied."""
    KIND: tl.constexpr = weight_1.dtype.element_ty
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.arange(0, BLOCK_C)
    m_in, c_in = m < m_end, c < C
    inside = m_in[:, None] & c_in[None, :]
    places = m.to(tl.int64)[:, None] * C + c[None, :]
    standard, _ = standardised(tl.load(x + places, mask=inside, other=0.0).to(SUM), c_in, C, EPS)
    norm = rounded(with_affine(standard, norm_weight, norm_bias, c, c_in, SUM), KIND, EMULATED)
    total = tl.zeros((BLOCK_M, BLOCK_C), SUM)
    for first in range(0, H, BLOCK_H):
        h = first + tl.arange(0, BLOCK_H)
        into, out_of, bias = hidden_weights(weight_1, weight_2, bias_1, h, c, C, H, SUM)
        z = product(norm, tl.trans(into), tl.zeros((BLOCK_M, BLOCK_H), SUM), SUM, PRECISION, EMULATED) + bias
        total = product(rounded(gelu(z), KIND, EMULATED), out_of, total, SUM, PRECISION, EMULATED)
    total += tl.load(bias_2 + c, mask=c_in, other=0.0).to(SUM)[None, :]
    if HAS_FACTOR:
        total *= tl.load(factor + m // CLIP_ROWS, mask=m_in, other=0.0).to(SUM)[:, None]
    total += tl.load(x + places, mask=inside, other=0.0).to(SUM)  # again, from the cache, not kept in registers
    tl.store(y + places, rounded(total, y.dtype.element_ty, EMULATED), mask=inside)


@triton.jit
def channel_unit_input_gradient_kernel(
    gradient,
    x,
    norm_weight,
    norm_bias,
    weight_1,
    bias_1,
    weight_2,
    factor,
    of_x,
    m_end,
    EPS: tl.constexpr,
    CLIP_ROWS: tl.constexpr,
    C: tl.constexpr,
    H: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """The gradient of the unit's input, through the norm and past it; hidden channels are made anew."""
    KIND: tl.constexpr = weight_1.dtype.element_ty
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.arange(0, BLOCK_C)
    m_in, c_in = m < m_end, c < C
    inside = m_in[:, None] & c_in[None, :]
    places = m.to(tl.int64)[:, None] * C + c[None, :]
    standard, _ = standardised(tl.load(x + places, mask=inside, other=0.0).to(SUM), c_in, C, EPS)
    norm = rounded(with_affine(standard, norm_weight, norm_bias, c, c_in, SUM), KIND, EMULATED)
    out = scaled_gradient(gradient, factor, places, inside, m, m_in, CLIP_ROWS, HAS_FACTOR, KIND, SUM, EMULATED)
    of_norm = tl.zeros((BLOCK_M, BLOCK_C), SUM)
    for first in range(0, H, BLOCK_H):
        h = first + tl.arange(0, BLOCK_H)
        into, out_of, bias = hidden_weights(weight_1, weight_2, bias_1, h, c, C, H, SUM)
        nothing = tl.zeros((BLOCK_M, BLOCK_H), SUM)
        z = product(norm, tl.trans(into), nothing, SUM, PRECISION, EMULATED) + bias
        of_z = product(out, tl.trans(out_of), nothing, SUM, PRECISION, EMULATED) * gelu_slope(z)
        of_norm = product(rounded(of_z, KIND, EMULATED), into, of_norm, SUM, PRECISION, EMULATED)
    # Read again, from the cache: registers hold no more than three maps of a program's tokens at a time.
    standard, spread = standardised(tl.load(x + places, mask=inside, other=0.0).to(SUM), c_in, C, EPS)
    of_norm *= tl.load(norm_weight + c, mask=c_in, other=0.0).to(SUM)[None, :]
    of_rows = gradient_before_norm(of_norm, standard, spread, C)
    of_rows += tl.load(gradient + places, mask=inside, other=0.0).to(SUM)
    tl.store(of_x + places, rounded(of_rows, of_x.dtype.element_ty, EMULATED), mask=inside)


@triton.jit
def channel_unit_weight_gradient_kernel(
    gradient,
    x,
    norm_weight,
    norm_bias,
    weight_1,
    bias_1,
    weight_2,
    factor,
    of_weight_1,
    of_bias_1,
    of_weight_2,
    of_bias_2,
    m_end,
    per_split,
    EPS: tl.constexpr,
    CLIP_ROWS: tl.constexpr,
    C: tl.constexpr,
    H: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """The gradients of the unit's weights and biases for some hidden channels, from one reading of each token.

    That of the first weight is with respect to what the norm gives before its own weight and bias, from which the
    gradients of all three follow. Splits are summed outside, in an order that is always the same.
    """
    KIND: tl.constexpr = weight_1.dtype.element_ty
    h = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    split = tl.program_id(1).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    h_in, c_in = h < H, c < C
    into, out_of, bias = hidden_weights(weight_1, weight_2, bias_1, h, c, C, H, SUM)
    total_1, total_2 = tl.zeros((BLOCK_H, BLOCK_C), SUM), tl.zeros((BLOCK_H, BLOCK_C), SUM)
    bias_total_1, bias_total_2 = tl.zeros((BLOCK_H,), SUM), tl.zeros((BLOCK_C,), SUM)
    first = tl.program_id(1) * per_split
    for begin in range(first, tl.minimum(first + per_split, m_end), BLOCK_M):
        m = begin + tl.arange(0, BLOCK_M)
        m_in = (m < m_end) & (m < first + per_split)
        inside = m_in[:, None] & c_in[None, :]
        places = m.to(tl.int64)[:, None] * C + c[None, :]
        standard, _ = standardised(tl.load(x + places, mask=inside, other=0.0).to(SUM), c_in, C, EPS)
        norm = rounded(with_affine(standard, norm_weight, norm_bias, c, c_in, SUM), KIND, EMULATED)
        out = scaled_gradient(gradient, factor, places, inside, m, m_in, CLIP_ROWS, HAS_FACTOR, KIND, SUM, EMULATED)
        nothing = tl.zeros((BLOCK_M, BLOCK_H), SUM)
        z = product(norm, tl.trans(into), nothing, SUM, PRECISION, EMULATED) + bias
        of_z = product(out, tl.trans(out_of), nothing, SUM, PRECISION, EMULATED) * gelu_slope(z)
        of_z = rounded(of_z, KIND, EMULATED)
        hidden = rounded(gelu(z), KIND, EMULATED)
        total_1 = product(tl.trans(of_z), rounded(standard, KIND, EMULATED), total_1, SUM, PRECISION, EMULATED)
        total_2 = product(tl.trans(hidden), out, total_2, SUM, PRECISION, EMULATED)
        bias_total_1 += tl.sum(of_z.to(SUM), 0)
        bias_total_2 += tl.sum(out.to(SUM), 0)
    both_in = h_in[:, None] & c_in[None, :]
    tl.store(of_weight_1 + split * H * C + h[:, None] * C + c[None, :], total_1, mask=both_in)
    tl.store(of_weight_2 + split * H * C + c[None, :] * H + h[:, None], total_2, mask=both_in)
    tl.store(of_bias_1 + split * H + h, bias_total_1, mask=h_in)
    if tl.program_id(0) == 0:
        tl.store(of_bias_2 + split * C + c, bias_total_2, mask=c_in)


@triton.jit
def scaled_gradient(
    gradient,
    factor,
    places,
    inside,
    m,
    m_in,
    CLIP_ROWS: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
    KIND: tl.constexpr,
    SUM: tl.constexpr,
    EMULATED: tl.constexpr,
):
    """The gradient of the MLP's result."""
    out = tl.load(gradient + places, mask=inside, other=0.0).to(SUM)
    if HAS_FACTOR:
        out *= tl.load(factor + m // CLIP_ROWS, mask=m_in, other=0.0).to(SUM)[:, None]
    return rounded(out, KIND, EMULATED)


@triton.jit
def hidden_weights(weight_1, weight_2, bias_1, h, c, C: tl.constexpr, H: tl.constexpr, SUM: tl.constexpr):
    """The weights into and out of some hidden channels, `[h, c]` both, and the bias of these."""
    inside = (h < H)[:, None] & (c < C)[None, :]
    into = tl.load(weight_1 + h[:, None] * C + c[None, :], mask=inside, other=0.0)
    out_of = tl.load(weight_2 + c[None, :] * H + h[:, None], mask=inside, other=0.0)
    return into, out_of, tl.load(bias_1 + h, mask=h < H, other=0.0).to(SUM)[None, :]
