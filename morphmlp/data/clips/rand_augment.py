"""RandAugment's operations on a whole clip, with the arithmetic of PIL.

The published recipe carries them out on PIL images, frame by frame. Here they are torch on uint8 clips of any device,
and a test holds each to PIL: grey levels are the same, warped ones at most one level apart. Which operations with which
arguments is drawn elsewhere (`draws`). Colours are taken as the first, second and third channel, whatever they hold, as
published.

Warps are bicubic or bilinear with a border of one colour, as `PIL.Image.transform` makes them. Every frame of a clip is
warped alike, so that a pixel's source places and weights are worked out once and then summed over all frames at a time
(an embedding bag over a table of pixels).
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from morphmlp.config.values import Colour
from morphmlp.data.clips.draws import Interpolation, Operation

_LUMA = (19595, 38470, 7471)
"""PIL's weights of red, green and blue in a grey picture, of 2^16."""


def rand_augment(
    frames: UInt8[Tensor, "t h w c"], operations: Iterable[Operation], *, fill: Colour = (128, 128, 128)
) -> UInt8[Tensor, "t h w c"]:
    """Carry out operations one after the other; the frames that come in stay as they are.

    `fill` is the colour of what warps bring in from outside a frame.
    """
    for operation in operations:
        if operation.name in _MATRICES:
            matrix = _MATRICES[operation.name](operation.argument, frames.shape[1], frames.shape[2])
            frames = _warp(frames, matrix, fill=fill, interpolation=operation.interpolation)
        else:
            frames = _KERNELS[operation.name](frames, operation.argument)
    return frames


def _autocontrast(frames: Tensor, _unused: float) -> Tensor:
    """Stretch each frame's and colour's levels to 0 to 255."""
    count, _, width, channels = frames.shape
    rows = frames.flatten(2)  # in two steps, for speed: over rows, then over columns
    low, high = (
        levels.view(count, width, channels).transpose(1, 2).double() for levels in (rows.amin(1), rows.amax(1))
    )
    low, high = low.amin(2, keepdim=True), high.amax(2, keepdim=True)
    scale = 255.0 / (high - low).clamp(min=1)
    level = torch.arange(256, device=frames.device, dtype=torch.float64)
    stretched = (level * scale + -low * scale).clamp(0, 255)
    return _look_up(frames, torch.where(high > low, stretched, level).to(torch.uint8))


def _equalize(frames: Tensor, _unused: float) -> Tensor:
    """Spread each frame's and colour's levels so that all are about equally frequent."""
    histogram = _histograms(frames)
    level = torch.arange(256, device=frames.device)
    pixels = frames.shape[1] * frames.shape[2]
    last = torch.where(histogram > 0, level, 0).amax(-1, keepdim=True)
    step = (pixels - histogram.gather(-1, last)) // 255
    below = histogram.cumsum(-1) - histogram
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return _look_up(frames, torch.where(step > 0, spread, level).to(torch.uint8))


def _invert(frames: Tensor, _unused: float) -> Tensor:
    return frames.bitwise_not()


def _posterize(frames: Tensor, bits: float) -> Tensor:
    """Keep the highest bits; none leaves black."""
    return frames & (0xFF << (8 - int(bits)) & 0xFF)


def _solarize(frames: Tensor, threshold: float) -> Tensor:
    """Invert the levels from the threshold on."""
    level = _levels(frames)
    return _look_up(frames, torch.where(level < threshold, level, 255 - level))


def _solarize_add(frames: Tensor, add: float) -> Tensor:
    """Brighten the darker half of the levels."""
    level = _levels(frames)
    return _look_up(frames, torch.where(level < 128, (level + int(add)).clamp(max=255), level))


def _color(frames: Tensor, factor: float) -> Tensor:
    """Away from the grey picture, or towards it."""
    colored = torch.empty_like(frames)
    for frame, result in zip(frames, colored, strict=True):
        grey = _luma(frame).float()
        for channel in range(frames.shape[3]):  # an axis of length 3 is slow to broadcast over
            result[..., channel] = _blend(grey, frame[..., channel].float(), factor)
    return colored


def _contrast(frames: Tensor, factor: float) -> Tensor:
    """Away from each frame's mean grey, or towards it."""
    pixels = frames.shape[1] * frames.shape[2]
    mean = (_luma(frames).sum((1, 2)).double() / pixels + 0.5).floor().float()
    return _look_up(frames, _blend(mean[:, None, None], _levels(frames).float(), factor))


def _brightness(frames: Tensor, factor: float) -> Tensor:
    """Away from black, or towards it."""
    return _look_up(frames, _blend(torch.zeros(1, device=frames.device), _levels(frames).float(), factor))


def _sharpness(frames: Tensor, factor: float) -> Tensor:
    """Away from the smoothed picture, or towards it; the outermost pixels stay."""
    sharp = frames.clone()
    for frame, result in zip(frames, sharp, strict=True):  # one at a time stays in a CPU's cache
        wide = frame.to(torch.int16)
        inner = wide[1:-1, 1:-1]
        columns = wide[:-2] + wide[1:-1] + wide[2:]
        total = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:] + 4 * inner
        # Thirteenths never lie half-way between two levels, so that single precision rounds them right.
        smooth = total.float().mul_(1 / 13).add_(0.5).floor_()
        result[1:-1, 1:-1] = _blend(smooth, inner.float(), factor)
    return sharp


_KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}


def _levels(frames: Tensor) -> Tensor:
    """All grey levels, int32, where the frames are."""
    return torch.arange(256, device=frames.device, dtype=torch.int32)


def _look_up(frames: Tensor, table: Tensor) -> Tensor:
    """Replace each grey level by its entry: one table `[256]`, or `[t c 256]`, `[t 1 256]` for frames and colours."""
    places = frames.to(torch.int32) if table.ndim == 1 else _numbered(frames, table.shape[1])
    return table.to(torch.uint8).flatten().index_select(0, places.flatten()).view(frames.shape)


def _histograms(frames: Tensor) -> Tensor:
    """How many pixels of each frame and colour have each level, `[t c 256]`."""
    count, channels = frames.shape[0], frames.shape[3]
    places = _numbered(frames, channels)
    return torch.bincount(places.flatten(), minlength=count * channels * 256).view(count, channels, 256)


def _numbered(frames: Tensor, tables: int) -> Tensor:
    """Grey levels as places in tables of 256: one for each frame, or one for each frame and colour; `[t h (w c)]`."""
    count, channels = frames.shape[0], frames.shape[3]
    start = 256 * torch.arange(count * tables, device=frames.device, dtype=torch.int32).view(count, 1, 1, tables)
    # Laid out over a whole row of pixels: an axis of length 3 is slow to broadcast over.
    rows = start.expand(count, 1, frames.shape[2], channels).flatten(2)
    return frames.flatten(2).to(torch.int32).add_(rows)


def _luma(frames: Tensor) -> Tensor:
    """The grey pictures as PIL makes them, int32, without the last axis."""
    red, green, blue = (frames[..., channel].to(torch.int32).mul_(_LUMA[channel]) for channel in range(3))
    return red.add_(green).add_(blue).add_(0x8000) >> 16


def _blend(base: Tensor, picture: Tensor, factor: float) -> Tensor:
    """`base + factor * (picture - base)` in single precision, held inside 0 to 255 and truncated, as PIL does."""
    return (picture - base).mul_(factor).add_(base).clamp_(0, 255).to(torch.uint8)


_Matrix = tuple[float, float, float, float, float, float]
"""From a place (x, y) of the result to its source: `(a x + b y + c, d x + e y + f)`; pixels, centres at halves."""

_Taps = Callable[..., tuple[Tensor, Tensor]]

_ROWS = 32
"""Rows of the result that are worked out at a time, so that sums stay in a CPU's cache."""

_ROUNDING = 2.0**-12
"""PIL computes in double precision and truncates. Single precision may fall short of a whole number by less than
this."""


def _rotation(degrees: float, height: int, width: int) -> _Matrix:
    """Counter-clockwise about the centre, as `PIL.Image.rotate`."""
    cos, sin = (round(turn(-math.radians(degrees)), 15) for turn in (math.cos, math.sin))
    x, y = width / 2, height / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


_MATRICES: dict[str, Callable[[float, int, int], _Matrix]] = {
    "rotate": _rotation,
    "shear_x": lambda slope, _height, _width: (1, slope, 0, 0, 1, 0),
    "shear_y": lambda slope, _height, _width: (1, 0, 0, slope, 1, 0),
    "translate_x": lambda share, _height, width: (1, 0, share * width, 0, 1, 0),
    "translate_y": lambda share, height, _width: (1, 0, 0, 0, 1, share * height),
}
"""The warps, by argument, height and width of a frame."""


def _warp(
    frames: UInt8[Tensor, "t h w c"], matrix: _Matrix, *, fill: Colour, interpolation: Interpolation
) -> UInt8[Tensor, "t h w c"]:
    """Move every frame; values are truncated to whole grey levels as PIL does (at most one level apart).

    A single frame on a CPU, as of an image, is left to PIL: there is nothing to share, and it takes half the time.
    """
    if len(frames) == 1 and not frames.is_cuda:
        return _warp_by_pil(frames, matrix, fill=fill, interpolation=interpolation)
    count, height, width, channels = frames.shape
    # One row per pixel, all frames and colours next to each other. Turning bytes round is cheaper than floats.
    turned = frames.reshape(count, height * width, channels).transpose(0, 1).flatten(1)
    table = turned.to(torch.float32, memory_format=torch.contiguous_format)
    columns = torch.arange(width, device=frames.device, dtype=torch.float64) + 0.5
    taps = _cubic_taps if interpolation == "bicubic" else _linear_taps
    border = torch.tensor(fill, device=frames.device, dtype=torch.uint8).repeat(count)
    moved = torch.empty_like(frames, memory_format=torch.contiguous_format)
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        rows = torch.arange(top, bottom, device=frames.device, dtype=torch.float64)[:, None] + 0.5
        pixels, outside = _sums(table, matrix, columns, rows, size=(height, width), taps=taps)
        pixels = torch.where(outside[:, None], border, pixels)
        moved[:, top:bottom] = pixels.view(bottom - top, width, count, channels).permute(2, 0, 1, 3)
    return moved


def _warp_by_pil(
    frames: UInt8[Tensor, "1 h w c"], matrix: _Matrix, *, fill: Colour, interpolation: Interpolation
) -> UInt8[Tensor, "1 h w c"]:
    picture = Image.fromarray(np.ascontiguousarray(frames[0].numpy()))
    way = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    warped = picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample=way, fillcolor=tuple(fill))
    return torch.from_numpy(np.array(warped))[None]


def _sums(
    table: Float[Tensor, "n d"],
    matrix: _Matrix,
    columns: Float64[Tensor, "w"],
    rows: Float64[Tensor, "h 1"],
    *,
    size: tuple[int, int],
    taps: _Taps,
) -> tuple[UInt8[Tensor, "m d"], Bool[Tensor, "m"]]:
    """Some rows of the result, one row of the answer for each of their pixels, and which of them lie outside."""
    a, b, c, d, e, f = matrix
    height, width = size
    x, y = (a * columns + b * rows + c).flatten(), (d * columns + e * rows + f).flatten()
    x_place, x_weight = taps(x, width, whole=(a, b) == (1, 0) and c == int(c))
    y_place, y_weight = taps(y, height, whole=(d, e) == (0, 1) and f == int(f))
    places = (y_place[:, None] * width + x_place).flatten(0, 1).t().contiguous()
    weights = (y_weight[:, None] * x_weight).flatten(0, 1).t().contiguous()
    sums = functional.embedding_bag(places, table, mode="sum", per_sample_weights=weights)
    pixels = sums.add_(_ROUNDING).clamp_(0, 255).to(torch.uint8)
    return pixels, ~((x >= 0) & (x < width) & (y >= 0) & (y < height))


def _cubic_taps(
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


def _linear_taps(
    place: Float64[Tensor, "n"], size: int, *, whole: bool
) -> tuple[Int32[Tensor, "k n"], Float32[Tensor, "k n"]]:
    """The same with PIL's linear kernel, two taps."""
    first = torch.floor(place - 0.5)
    second = place - 0.5 - first
    steps = torch.arange(0, 1 if whole else 2, device=place.device, dtype=torch.int32)[:, None]
    weights = torch.stack([1 - second, second])[: len(steps)]
    return (first.to(torch.int32) + steps).clamp_(0, size - 1), weights.float()
