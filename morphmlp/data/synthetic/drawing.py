"""What generated videos are drawn with: smooth backgrounds and shapes with soft edges."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = Literal["disc", "square", "diamond"]
SHAPES: tuple[Shape, ...] = ("disc", "square", "diamond")
_NOISE = 3.0
"""Standard deviation of the camera noise, grey levels."""


def smooth_background(rng: np.random.Generator, level: float, *, height: int, width: int) -> NDArray[np.float32]:
    """A background around a grey level, rows x columns x RGB, 0-255: 4 x 4 random colours, joined linearly."""
    coarse = level + rng.uniform(-20, 20, (4, 4, 3))
    down = _between(4, height) @ coarse.reshape(4, -1)
    across = _between(4, width) @ down.reshape(height, 4, 3)
    return across.astype(np.float32)


def distance_from_shape(
    shape: Shape, columns: NDArray[np.float64], rows: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pixels from a shape's edge, below 0 inside; columns and rows count from its centre."""
    distance: NDArray[np.float64]
    if shape == "disc":
        distance = np.hypot(columns, rows) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(columns), np.abs(rows)) - 0.9 * radius
    else:
        distance = (np.abs(columns) + np.abs(rows)) / np.sqrt(2) - 0.85 * radius
    return distance


def painted(
    below: NDArray[np.floating],
    distance: NDArray[np.float64],
    colour: tuple[float, float, float],
    opacity: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float64]:
    """A colour laid over what is below where the distance is below 0, with an edge of one pixel."""
    coverage = (np.clip(0.5 - distance, 0, 1) * opacity)[..., None]
    result: NDArray[np.float64] = below + coverage * (np.asarray(colour) - below)
    return result


def as_pixels(frames: NDArray[np.floating], *, rng: np.random.Generator | None) -> NDArray[np.uint8]:
    """Frames as uint8, with camera noise where there's a source of it."""
    if rng is not None:
        frames = frames + _NOISE * rng.standard_normal(frames.shape, dtype=np.float32)
    pixels: NDArray[np.uint8] = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return pixels


def _between(points: int, size: int) -> NDArray[np.float64]:
    """The `size x points` matrix of linear interpolation."""
    place = np.linspace(0, points - 1, size)[:, None]
    weights: NDArray[np.float64] = np.clip(1 - np.abs(place - np.arange(points)), 0, 1)
    return weights
