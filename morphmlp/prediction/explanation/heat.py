"""Evidence as colours over a picture: blue is little, red is the most of the file; what no crop shows is dark."""

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

from morphmlp.data.decoding.protocol import Frames
from morphmlp.prediction.explanation.explained import Explanation, Values

_MOST_HEAT = 0.6
"""Share of the colours in a picture where evidence is greatest; where there is none the picture is as it was."""
_UNSEEN = 0.35
"""Brightness of what the network didn't see."""
_LEVELS = 256


def heat_colours(values: npt.NDArray[np.floating]) -> Frames:
    """Colours of values from 0 to 1, `[... 3]`."""
    table = (matplotlib.colormaps["turbo"](np.arange(_LEVELS))[:, :3] * 255).round().astype(np.uint8)
    shown: Frames = table[(np.clip(values, 0, 1) * (_LEVELS - 1)).round().astype(int)]
    return shown


def overlay(frame: Frames, explanation: Explanation, place: float, *, size: tuple[int, int]) -> Image.Image:
    """A source frame `[h w 3]`, the one at a place in the file, scaled to width and height under its evidence."""
    picture = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR), np.float32)
    heat, seen = heat_map(explanation, place, size=size)
    share = _MOST_HEAT * heat[..., None]
    blended = (1 - share) * picture + share * heat_colours(heat)
    return Image.fromarray(np.where(seen[..., None], blended, _UNSEEN * picture).round().astype(np.uint8))


def heat_map(explanation: Explanation, place: float, *, size: tuple[int, int]) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Evidence in a source frame of this width and height, and where any crop shows it; means where several do."""
    width, height = size
    total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    maps = explanation.evidence(place)
    for box, crop in zip(explanation.boxes, maps if maps is not None else (), strict=maps is not None):
        scale = np.array([height / explanation.info.height, width / explanation.info.width] * 2)
        top, left, bottom, right = (np.array(box) * scale).round().astype(int)
        shape = max(right - left, 1), max(bottom - top, 1)
        scaled = np.asarray(Image.fromarray(np.asarray(crop, np.float32)).resize(shape, Image.Resampling.BILINEAR))
        rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
        total[rows, columns] += scaled[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        count[rows, columns] += 1
    mean: Values = (total / np.maximum(count, 1)).astype(np.float32)
    return mean, count > 0
