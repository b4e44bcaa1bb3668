"""Affine warps of a whole clip, as `PIL.Image.transform` makes them: bicubic, with a grey border.

Every frame of a clip is warped alike, so that a pixel's source places and weights are worked out once and then summed
over all frames at a time (an embedding bag over a table of pixels). Runs on the device that holds the frames.
"""

import math

import torch
from jaxtyping import Float, Float32, Float64, Int32, UInt8
from torch import Tensor
from torch.nn import functional

FILL = 128
"""Grey level where the source lies outside the frame, published."""

Matrix = tuple[float, float, float, float, float, float]
"""From a place (x, y) of the result to its source: `(a x + b y + c, d x + e y + f)`; pixels, centres at halves."""

_ROWS = 32
"""Rows of the result that are worked out at a time, so that sums stay in a CPU's cache."""

_ROUNDING = 2.0**-12
"""PIL computes in double precision and truncates. Single precision may fall short of a whole number by less than
this."""


def rotation(degrees: float, *, height: int, width: int) -> Matrix:
    """Counter-clockwise about the centre, as `PIL.Image.rotate`."""
    cos, sin = (round(turn(-math.radians(degrees)), 15) for turn in (math.cos, math.sin))
    x, y = width / 2, height / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


def warp(frames: UInt8[Tensor, "t h w c"], matrix: Matrix) -> UInt8[Tensor, "t h w c"]:
    """Move every frame; values are truncated to whole grey levels as PIL does (at most one level apart)."""
    count, height, width, channels = frames.shape
    # One row per pixel, all frames and colours beside each other. Turning bytes round is cheaper than floats.
    turned = frames.reshape(count, height * width, channels).transpose(0, 1).flatten(1)
    table = turned.to(torch.float32, memory_format=torch.contiguous_format)
    columns = torch.arange(width, device=frames.device, dtype=torch.float64) + 0.5
    moved = torch.empty_like(frames, memory_format=torch.contiguous_format)
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        rows = torch.arange(top, bottom, device=frames.device, dtype=torch.float64)[:, None] + 0.5
        pixels = _sums(table, matrix, columns, rows, height=height, width=width)
        moved[:, top:bottom] = pixels.view(bottom - top, width, count, channels).permute(2, 0, 1, 3)
    return moved


def _sums(
    table: Float[Tensor, "n d"],
    matrix: Matrix,
    columns: Float64[Tensor, "w"],
    rows: Float64[Tensor, "h 1"],
    *,
    height: int,
    width: int,
) -> UInt8[Tensor, "m d"]:
    """Some rows of the result, one row of the answer for each of their pixels."""
    a, b, c, d, e, f = matrix
    x, y = (a * columns + b * rows + c).flatten(), (d * columns + e * rows + f).flatten()
    x_place, x_weight = _taps(x, width, whole=(a, b) == (1, 0) and c == int(c))
    y_place, y_weight = _taps(y, height, whole=(d, e) == (0, 1) and f == int(f))
    places = (y_place[:, None] * width + x_place).flatten(0, 1).t().contiguous()
    weights = (y_weight[:, None] * x_weight).flatten(0, 1).t().contiguous()
    sums = functional.embedding_bag(places, table, mode="sum", per_sample_weights=weights)
    pixels = sums.add_(_ROUNDING).clamp_(0, 255).to(torch.uint8)
    outside = ~((x >= 0) & (x < width) & (y >= 0) & (y < height))
    return pixels.index_fill_(0, outside.nonzero()[:, 0], FILL)


def _taps(
    place: Float64[Tensor, "n"], size: int, *, whole: bool
) -> tuple[Int32[Tensor, "k n"], Float32[Tensor, "k n"]]:
    """Source pixels of places along one axis, held inside the frame, and their weights.

    PIL's cubic kernel has `a = -1` and four taps; at pixel centres (`whole`) one tap is left.
    """
    first = torch.floor(place - 0.5)
    if whole:
        return first.to(torch.int32).clamp_(0, size - 1)[None], torch.ones_like(first, dtype=torch.float32)[None]
    d = place - 0.5 - first
    rest = 1 - d
    weights = torch.stack([-d * rest * rest, 1 - d * d * (1 + rest), d * (1 + d * rest), -d * d * rest])
    steps = torch.arange(-1, 3, device=place.device, dtype=torch.int32)[:, None]
    return (first.to(torch.int32) + steps).clamp_(0, size - 1), weights.float()
