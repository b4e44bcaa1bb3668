"""JPEGs of the size, spectrum and weight of ImageNet's: some 500x375 pixels, quality 90, about 115 KB.

Like photographs' their energy falls with the frequency, and their colours vary less than their brightness. They carry
no task; they make a decoder work as hard as photographs do.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morphmlp.files import atomic_file

SIZES = ((500, 375), (500, 375), (500, 333), (375, 500), (640, 480), (400, 300))
"""Width and height, pixels; mixed like those of ImageNet, whose mean is about 470x390."""
QUALITY = 90
_CONTRAST, _COLOUR = 55.0, 0.35


def photograph(rng: np.random.Generator, *, height: int, width: int) -> NDArray[np.uint8]:
    """Noise whose amplitude falls as 1 / frequency, `[h w c]`."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(3):
        plane = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency, (height, width))
        planes.append(plane / max(float(plane.std()), 1e-9))
    light, red, blue = planes
    picture = np.stack([light + _COLOUR * red, light, light + _COLOUR * blue], axis=-1)
    pixels: NDArray[np.uint8] = np.clip(120 + _CONTRAST * picture, 0, 255).astype(np.uint8)
    return pixels


def write_photographs(folder: Path, count: int) -> list[str]:
    """Paths of so many files, each the same whenever it's made; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:05}.JPEG"
        if not path.exists():
            rng = np.random.default_rng(number)
            width, height = SIZES[rng.integers(len(SIZES))]
            with atomic_file(path) as unfinished:
                Image.fromarray(photograph(rng, height=height, width=width)).save(unfinished, "JPEG", quality=QUALITY)
        paths.append(str(path))
    return paths
