"""Whether a decoder returned the wanted frames. Pure functions of pixels.

Decoders round colours in their own ways, so frames are compared as small grey pictures: a frame is wrong where another
frame of the video fits it much better, or where nothing of the wanted one is in it.
"""

import numpy as np
import numpy.typing as npt

from morphmlp.data.decoding.protocol import Frames

Thumbnails = npt.NDArray[np.float32]
"""Mean grey of the cells of each frame, `[t 32 32]`, mean brightness taken off."""

_CELLS = 32
_ROUNDING = 0.1
"""Grey levels that pictures of the same frame may differ by, on average over the cells."""
_UNLIKE = 24.0
"""Grey levels beyond which a frame is no picture of the wanted one."""


def thumbnails(frames: Frames) -> Thumbnails:
    """Small pictures of `[t h w c]` frames."""
    height, width = frames.shape[1:3]
    top, left = _edges(height), _edges(width)
    grey = frames.astype(np.float32).mean(axis=3)
    cells = np.add.reduceat(np.add.reduceat(grey, top, axis=1), left, axis=2)
    cells /= np.outer(np.diff(top, append=height), np.diff(left, append=width))
    cells -= cells.mean(axis=(1, 2), keepdims=True)
    return cells.astype(np.float32)


def wrong_frames(found: Thumbnails, wanted: npt.NDArray[np.int64], video: Thumbnails) -> int:
    """How many frames aren't the wanted ones.

    Args:
        found: What the decoder returned, one per wanted index.
        wanted: Display-order indices.
        video: All frames of the video, from a decode without any skipping.
    """
    if found.shape[1:] != video.shape[1:] or len(found) != len(wanted):
        return len(wanted)
    wrong = 0
    for picture, index in zip(found, wanted, strict=True):
        distances = np.abs(video - picture).mean(axis=(1, 2))
        own = distances[index]
        wrong += bool(own > _UNLIKE or (own > _ROUNDING and distances.min() < own / 2))
    return wrong


def _edges(side: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, side, min(side, _CELLS), endpoint=False).astype(np.int64)
