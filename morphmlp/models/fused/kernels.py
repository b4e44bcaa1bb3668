"""The kernels, in Triton: matrix products that read their rows where these lie, and finish what they write.

All indices of channels and tokens are known when a kernel is built; only the number of clips isn't. Products are summed
in fp32 (fp64 for fp64). `EMULATED`: in Triton's interpreter, whose numpy has no bf16.
"""

import triton
import triton.language as tl


@triton.jit
def linear_kernel(
    x,
    weight,
    bias,
    scale,
    base,
    z,
    y,
    m_end,
    N: tl.constexpr,
    K: tl.constexpr,
    WEIGHT_N: tl.constexpr,
    WEIGHT_K: tl.constexpr,
    FRAMES: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    GROUPS: tl.constexpr,
    FRAME_STRIDE: tl.constexpr,
    DOWN_STRIDE: tl.constexpr,
    ACROSS_STRIDE: tl.constexpr,
    INNER: tl.constexpr,
    OUTER_STRIDE: tl.constexpr,
    INNER_STRIDE: tl.constexpr,
    SIZE_IN: tl.constexpr,
    SIZE_OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SCALE_IN: tl.constexpr,
    SCALE_OUT: tl.constexpr,
    HAS_BASE: tl.constexpr,
    GELU_IN: tl.constexpr,
    GELU_SLOPE: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`y = base + scale * slope(z) * (act(scale * x) @ weight.T + bias)`, each part where it is asked for.

    Programs that share rows follow one another, so that all but the first find them in the cache.
    """
    tiles_n: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0)
    m = (program // tiles_n) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (program % tiles_n) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_in, n_in = m < m_end, n < N
    token, group, frame = place_of_rows(m, DOWN, ACROSS, GROUPS, FRAME_STRIDE, DOWN_STRIDE, ACROSS_STRIDE)
    clip = frame // FRAMES
    total = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        k_in = k < K
        inside = m_in[:, None] & k_in[None, :]
        rows = tl.load(
            x
            + row_offset(token, group, SIZE_IN, GROUPS)[:, None]
            + value_offset(k, SIZE_IN, GROUPS, INNER, OUTER_STRIDE, INNER_STRIDE)[None, :],
            mask=inside,
            other=0.0,
        )
        if GELU_IN:
            rows = rounded(gelu(rows.to(SUM)), x.dtype.element_ty, EMULATED)
        if SCALE_IN:
            factor = tl.load(
                scale + ((clip * GROUPS + group) * SIZE_IN)[:, None] + (k % SIZE_IN)[None, :], mask=inside, other=0.0
            )
            rows = rounded(rows.to(SUM) * factor.to(SUM), x.dtype.element_ty, EMULATED)
        part = tl.load(
            weight + k[:, None] * WEIGHT_K + n[None, :] * WEIGHT_N, mask=k_in[:, None] & n_in[None, :], other=0.0
        )
        total = product(rows, part, total, SUM, PRECISION, EMULATED)
    inside = m_in[:, None] & n_in[None, :]
    places = (
        row_offset(token, group, SIZE_OUT, GROUPS)[:, None]
        + value_offset(n, SIZE_OUT, GROUPS, INNER, OUTER_STRIDE, INNER_STRIDE)[None, :]
    )
    if HAS_BIAS:
        total += tl.load(bias + n, mask=n_in, other=0.0).to(SUM)[None, :]
    if SCALE_OUT:
        factor = tl.load(
            scale + ((clip * GROUPS + group) * SIZE_OUT)[:, None] + (n % SIZE_OUT)[None, :], mask=inside, other=0.0
        )
        total *= factor.to(SUM)
    if GELU_SLOPE:
        total *= gelu_slope(tl.load(z + places, mask=inside, other=0.0).to(SUM))
    if HAS_BASE:
        total += tl.load(base + places, mask=inside, other=0.0).to(SUM)
    tl.store(y + places, rounded(total, y.dtype.element_ty, EMULATED), mask=inside)


@triton.jit
def weight_gradient_kernel(
    gradient,
    x,
    weight,
    bias,
    scale,
    of_weight,
    of_bias,
    of_scale,
    m_end,
    segments,
    per_split,
    N: tl.constexpr,
    K: tl.constexpr,
    FRAMES: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    GROUPS: tl.constexpr,
    FRAME_STRIDE: tl.constexpr,
    DOWN_STRIDE: tl.constexpr,
    ACROSS_STRIDE: tl.constexpr,
    INNER: tl.constexpr,
    OUTER_STRIDE: tl.constexpr,
    INNER_STRIDE: tl.constexpr,
    SIZE_IN: tl.constexpr,
    SIZE_OUT: tl.constexpr,
    GELU_IN: tl.constexpr,
    SCALE_LOAD: tl.constexpr,
    SCALE_GRADIENT: tl.constexpr,
    SEGMENT_ROWS: tl.constexpr,
    SEGMENT_GROUPS: tl.constexpr,
    SUM: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The gradients of a layer's weight, bias and scale, from one reading of its input and its output's gradient.

    Rows come in segments, of which each split has as many. With `SCALE_GRADIENT` a segment is a clip and a group, for
    which the scale depends on the channel alone: the segment's product, before it is scaled, gives the scale's gradient
    by the weight, and the weight's by the scale. Splits are summed outside, in an order that is always the same.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    split = tl.program_id(2)
    n_in, k_in = n < N, k < K
    places_n = value_offset(n, SIZE_OUT, GROUPS, INNER, OUTER_STRIDE, INNER_STRIDE)
    places_k = value_offset(k, SIZE_IN, GROUPS, INNER, OUTER_STRIDE, INNER_STRIDE)
    weight_places = n.to(tl.int64)[:, None] * K + k[None, :]
    weight_in = n_in[:, None] & k_in[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_K), SUM)
    bias_total = tl.zeros((BLOCK_N,), SUM)
    for segment in range(split * per_split, tl.minimum((split + 1) * per_split, segments)):
        part = tl.zeros((BLOCK_N, BLOCK_K), SUM)
        bias_part = tl.zeros((BLOCK_N,), SUM)
        for first in range(0, SEGMENT_ROWS, BLOCK_M):
            row = first + tl.arange(0, BLOCK_M)
            m = ((segment // SEGMENT_GROUPS) * SEGMENT_ROWS + row) * SEGMENT_GROUPS + segment % SEGMENT_GROUPS
            m_in = (row < SEGMENT_ROWS) & (m < m_end)
            token, group, frame = place_of_rows(m, DOWN, ACROSS, GROUPS, FRAME_STRIDE, DOWN_STRIDE, ACROSS_STRIDE)
            inside = m_in[:, None] & n_in[None, :]
            out = tl.load(
                gradient + row_offset(token, group, SIZE_OUT, GROUPS)[:, None] + places_n[None, :],
                mask=inside,
                other=0.0,
            )
            rows = tl.load(
                x + row_offset(token, group, SIZE_IN, GROUPS)[:, None] + places_k[None, :],
                mask=m_in[:, None] & k_in[None, :],
                other=0.0,
            )
            if SCALE_LOAD:
                factor = tl.load(
                    scale + ((frame // FRAMES * GROUPS + group) * SIZE_OUT)[:, None] + (n % SIZE_OUT)[None, :],
                    mask=inside,
                    other=0.0,
                )
                out = rounded(out.to(SUM) * factor.to(SUM), gradient.dtype.element_ty, EMULATED)
            if GELU_IN:
                rows = rounded(gelu(rows.to(SUM)), x.dtype.element_ty, EMULATED)
            part = product(tl.trans(out), rows, part, SUM, PRECISION, EMULATED)
            bias_part += tl.sum(out.to(SUM), 0)
        if SCALE_GRADIENT:
            by_row = tl.load(weight + weight_places, mask=weight_in, other=0.0).to(SUM)
            found = tl.sum(part * by_row, 1)
            if tl.program_id(1) == 0:
                found += bias_part * tl.load(bias + n, mask=n_in, other=0.0).to(SUM)
            tl.store(of_scale + (tl.program_id(1) * segments + segment).to(tl.int64) * N + n, found, mask=n_in)
            factor = tl.load(scale + segment * SIZE_OUT + n % SIZE_OUT, mask=n_in, other=0.0).to(SUM)
            part *= factor[:, None]
            bias_part *= factor
        total += part
        bias_total += bias_part
    tl.store(of_weight + split.to(tl.int64) * N * K + weight_places, total, mask=weight_in)
    if tl.program_id(1) == 0:
        tl.store(of_bias + split * N + n, bias_total, mask=n_in)


@triton.jit
def place_of_rows(
    m,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    GROUPS: tl.constexpr,
    FRAME_STRIDE: tl.constexpr,
    DOWN_STRIDE: tl.constexpr,
    ACROSS_STRIDE: tl.constexpr,
):
    """First token, group and frame of rows; see `morphmlp.models.fused.rows`."""
    group, rest = m % GROUPS, m // GROUPS
    across, rest = rest % ACROSS, rest // ACROSS
    down, frame = rest % DOWN, rest // DOWN
    token = frame.to(tl.int64) * FRAME_STRIDE + down * DOWN_STRIDE + across * ACROSS_STRIDE
    return token, group, frame


@triton.jit
def row_offset(token, group, SIZE: tl.constexpr, GROUPS: tl.constexpr):
    """Where rows begin in a map."""
    return token * (SIZE * GROUPS) + group * SIZE


@triton.jit
def value_offset(
    k,
    SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
    INNER: tl.constexpr,
    OUTER_STRIDE: tl.constexpr,
    INNER_STRIDE: tl.constexpr,
):
    """How far after a row's beginning its values are."""
    token = k // SIZE
    return (token // INNER * OUTER_STRIDE + token % INNER * INNER_STRIDE) * (SIZE * GROUPS) + k % SIZE


@triton.jit
def product(a, b, total, SUM: tl.constexpr, PRECISION: tl.constexpr, EMULATED: tl.constexpr):
    """Add a product of matrices to a sum."""
    if EMULATED:
        a, b = a.to(SUM), b.to(SUM)
    return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=SUM)


@triton.jit
def rounded(value, KIND: tl.constexpr, EMULATED: tl.constexpr):
    """A number of fp32 or fp64 as one of another kind, to the nearest."""
    if EMULATED and KIND == tl.bfloat16:  # where a conversion cuts off
        bits = value.to(tl.float32).to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        value = bits.to(tl.float32, bitcast=True)
    return value.to(KIND)


@triton.jit
def gelu(z):
    """The exact one, by the error function."""
    return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))


@triton.jit
def gelu_slope(z):
    """Its derivative."""
    return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * tl.exp(-0.5 * z * z) * 0.3989422804014327
