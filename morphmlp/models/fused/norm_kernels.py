"""The kernels, in Triton, of a norm: each program has all channels of its tokens, and all time steps of their places.

So it gives the mean over time as it writes, and takes the mean's gradient, and those of other uses, as it reads.
Statistics are made anew in the backward pass. `EMULATED` as in `morphmlp.models.fused.kernels`.
"""

import triton
import triton.language as tl

from morphmlp.models.fused.kernels import rounded


@triton.jit
def norm_kernel(
    x,
    weight,
    bias,
    y,
    frame,
    places_end,
    EPS: tl.constexpr,
    PLACES: tl.constexpr,
    TIMES: tl.constexpr,
    C: tl.constexpr,
    WITH_FRAME: tl.constexpr,
    SUM: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The normalised map, and its mean over time where that is asked for."""
    place = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.arange(0, BLOCK_C)
    c_in = c < C
    inside = (place < places_end)[:, None] & c_in[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_C), SUM)
    for time in range(TIMES):
        values = values_at(place, time, c, PLACES, TIMES, C)
        standard, _ = standardised(tl.load(x + values, mask=inside, other=0.0).to(SUM), c_in, C, EPS)
        norm = rounded(with_affine(standard, weight, bias, c, c_in, SUM), y.dtype.element_ty, EMULATED)
        tl.store(y + values, norm, mask=inside)
        if WITH_FRAME:
            total += norm.to(SUM)
    if WITH_FRAME:
        tl.store(frame + place.to(tl.int64)[:, None] * C + c[None, :], total / TIMES, mask=inside)


@triton.jit
def norm_gradient_kernel(
    gradient,
    x,
    weight,
    of_frame,
    of_use_1,
    of_use_2,
    of_x,
    of_weight,
    of_bias,
    places_end,
    per_split,
    EPS: tl.constexpr,
    PLACES: tl.constexpr,
    TIMES: tl.constexpr,
    C: tl.constexpr,
    WITH_FRAME: tl.constexpr,
    USES: tl.constexpr,
    SUM: tl.constexpr,
    EMULATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradients of a norm's input, added to those of its other uses, and of the norm's weight and bias in parts."""
    split = tl.program_id(0)
    c = tl.arange(0, BLOCK_C)
    c_in = c < C
    scale = tl.load(weight + c, mask=c_in, other=0.0).to(SUM)[None, :]
    weight_total, bias_total = tl.zeros((BLOCK_C,), SUM), tl.zeros((BLOCK_C,), SUM)
    for begin in range(split * per_split, tl.minimum((split + 1) * per_split, places_end), BLOCK_M):
        place = begin + tl.arange(0, BLOCK_M)
        inside = ((place < places_end) & (place < (split + 1) * per_split))[:, None] & c_in[None, :]
        shared = tl.zeros((BLOCK_M, BLOCK_C), SUM)
        if WITH_FRAME:
            frame_values = place.to(tl.int64)[:, None] * C + c[None, :]
            shared = tl.load(of_frame + frame_values, mask=inside, other=0.0).to(SUM) / TIMES
        for time in range(TIMES):
            values = values_at(place, time, c, PLACES, TIMES, C)
            standard, over_spread = standardised(tl.load(x + values, mask=inside, other=0.0).to(SUM), c_in, C, EPS)
            of_norm = tl.load(gradient + values, mask=inside, other=0.0).to(SUM) + shared
            weight_total += tl.sum(of_norm * standard, 0)
            bias_total += tl.sum(of_norm, 0)
            of_rows = gradient_before_norm(of_norm * scale, standard, over_spread, C)
            if USES > 0:
                of_rows += tl.load(of_use_1 + values, mask=inside, other=0.0).to(SUM)
            if USES > 1:
                of_rows += tl.load(of_use_2 + values, mask=inside, other=0.0).to(SUM)
            tl.store(of_x + values, rounded(of_rows, of_x.dtype.element_ty, EMULATED), mask=inside)
    tl.store(of_weight + split * C + c, weight_total, mask=c_in)
    tl.store(of_bias + split * C + c, bias_total, mask=c_in)


@triton.jit
def values_at(place, time, c, PLACES: tl.constexpr, TIMES: tl.constexpr, C: tl.constexpr):
    """Where the channels of places, counted through all clips, lie at a time."""
    token = (place // PLACES * TIMES + time).to(tl.int64) * PLACES + place % PLACES
    return token[:, None] * C + c[None, :]


@triton.jit
def standardised(rows, c_in, C: tl.constexpr, EPS: tl.constexpr):
    """Rows less their mean, over their spread; and 1 over the spread."""
    centred = tl.where(c_in[None, :], rows - (tl.sum(rows, 1) / C)[:, None], 0.0)
    over_spread = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + EPS)
    return centred * over_spread[:, None], over_spread


@triton.jit
def with_affine(standard, weight, bias, c, c_in, SUM: tl.constexpr):
    """What a norm gives of standardised rows."""
    scale = tl.load(weight + c, mask=c_in, other=0.0).to(SUM)
    return standard * scale[None, :] + tl.load(bias + c, mask=c_in, other=0.0).to(SUM)[None, :]


@triton.jit
def gradient_before_norm(of_standard, standard, over_spread, C: tl.constexpr):
    """The gradient of rows, from that of the standardised ones."""
    mean, along = tl.sum(of_standard, 1) / C, tl.sum(of_standard * standard, 1) / C
    return (of_standard - mean[:, None] - standard * along[:, None]) * over_spread[:, None]
