"""What decodes a JPEG fastest with Pillow's own pixels: those libraries of the candidates that are installed."""

import importlib
import io
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from morphmlp.benchmarks.rounds import interleaved
from morphmlp.data.decoding.protocol import Frames

Decode = Callable[[bytes], Frames]


@dataclass(frozen=True, kw_only=True)
class DecoderCost:
    """One way of decoding."""

    version: str
    cpu_ms: float
    """CPU time of an image, median over the rounds."""
    most_off: int
    """Greatest difference of a level from Pillow's."""


def pillow(data: bytes) -> Frames:
    """RGB pixels, `[h w c]`, of the reference."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def compare_image_decoders(paths: Sequence[str], *, rounds: int) -> Mapping[str, DecoderCost]:
    """Decode whole files in memory, in interleaved rounds, by every way that can be used here."""
    images = [Path(path).read_bytes() for path in paths]
    ways = {name: way for name, way in _ways().items() if way is not None}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    torch.set_num_threads(1)
    for _, name in interleaved(list(ways), rounds):
        began = time.thread_time()
        for data in images:
            ways[name](data)
        seconds[name].append((time.thread_time() - began) / len(images))
    return {
        name: DecoderCost(
            version=importlib.import_module(_MODULES[name]).__version__,
            cpu_ms=1000 * median(seconds[name]),
            most_off=max(int(np.abs(pillow(data).astype(np.int16) - way(data)).max()) for data in images),
        )
        for name, way in ways.items()
    }


_MODULES = {
    "pillow": "PIL",
    "simplejpeg": "simplejpeg",
    "opencv": "cv2",
    "torchvision": "torchvision",
    "torchcodec": "torchcodec",
}


def _ways() -> dict[str, Decode | None]:
    makers: dict[str, Callable[[], Decode]] = {
        "pillow": lambda: pillow,
        "simplejpeg": _simplejpeg,
        "opencv": _opencv,
        "torchvision": _torchvision,
        "torchcodec": _torchcodec,
    }
    return {name: _usable(make) for name, make in makers.items()}


def _usable(make: Callable[[], Decode]) -> Decode | None:
    try:
        return make()
    except (ImportError, RuntimeError, OSError):  # not installed, or without the libraries that it needs
        return None


def _simplejpeg() -> Decode:
    import simplejpeg  # noqa: PLC0415 (each way imports its own)

    decode: Decode = simplejpeg.decode_jpeg
    return decode


def _opencv() -> Decode:
    import cv2  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 (not a dependency)

    cv2.setNumThreads(1)
    return lambda data: np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def _torchvision() -> Decode:
    from torchvision.io import ImageReadMode, decode_jpeg  # noqa: PLC0415 (seconds)

    def decode(data: bytes) -> Frames:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torchcodec's is to replace it
            pixels: Frames = decode_jpeg(_tensor(data), mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        return pixels

    return decode


def _torchcodec() -> Decode:
    from torchcodec.decoders import decode_jpeg  # noqa: PLC0415 (not a dependency)

    return lambda data: decode_jpeg(_tensor(data)).permute(1, 2, 0).numpy()


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
