"""Videos of the size and coding of Kinetics: 340x256, 10 s, moving texture, with sound.

They carry no task that can be learnt; they make the full-size network and the decoder work as hard as real
footage does.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 340, 256
SAMPLE_RATE = 44_100
CLASS_NAMES = ("abseiling", "archery", "juggling balls", "riding a bike")
_MARGIN = 40


def frames(rng: np.random.Generator, *, count: int) -> Iterator[NDArray[np.uint8]]:
    """Draw `count` frames: a textured scene that drifts under a shaking camera, and a textured square that circles."""
    scene = texture(rng, HEIGHT + 2 * _MARGIN, WIDTH + 2 * _MARGIN)
    patch = texture(rng, 64, 64)
    speed = rng.uniform(0.01, 0.04, 2)
    shake = np.cumsum(rng.normal(0, 0.6, (count, 2)), axis=0)
    for frame in range(count):
        drift = 0.8 * _MARGIN * np.sin(speed * frame) + np.clip(shake[frame], -8, 8)
        top, left = np.clip(np.rint(_MARGIN + drift).astype(int), 0, 2 * _MARGIN)
        picture = scene[top : top + HEIGHT, left : left + WIDTH].copy()
        angle = frame * speed[0] * 3
        row = int(HEIGHT / 2 - 32 + 60 * np.sin(angle))
        column = int(WIDTH / 2 - 32 + 90 * np.cos(angle))
        picture[row : row + 64, column : column + 64] = patch
        yield picture


def sound(rng: np.random.Generator, *, seconds: float) -> NDArray[np.float32]:
    """A tone in noise, in [-1, 1]."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 800) * time)
    return (tone + 0.02 * rng.standard_normal(time.size)).astype(np.float32)


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Noise of five sizes, from the whole picture down to single pixels, coarse strongest."""
    picture = np.full((height, width, 3), 128.0)
    for cell, strength in ((96, 45.0), (32, 25.0), (12, 12.0), (4, 6.0), (1, 3.0)):
        coarse = rng.normal(0, strength, (-(-height // cell) + 1, -(-width // cell) + 1, 3))
        fine = np.kron(coarse, np.ones((cell, cell, 1)))
        row, column = rng.integers(0, cell, 2)
        picture += fine[row : row + height, column : column + width]
    pixels: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return pixels
