"""Segmentation's training crops by OpenCV and numpy alone, as mmsegmentation 0.x makes them, to compare ours with.

The same steps with the same ranges, from numpy's shared generator, on RGB.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
from numpy import random
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Levels = NDArray[np.uint8]
_SCALE, _RATIO, _LIMIT, _IGNORED = (2048, 512), (0.5, 2.0), 0.75, 255
_MEAN_COLOUR = (124, 116, 104)


def opencv_crop(image: Levels, label_map: Levels, *, size: int) -> tuple[Levels, Levels]:
    """A crop `[s s 3]` of an image and of its map `[s s]`."""
    height, width = label_map.shape
    ratio = random.random_sample() * (_RATIO[1] - _RATIO[0]) + _RATIO[0]
    long, short = (int(edge * ratio) for edge in _SCALE)
    factor = min(long / max(height, width), short / min(height, width))
    scaled = int(width * factor + 0.5), int(height * factor + 0.5)
    image = _levels(cv2.resize(image, scaled, interpolation=cv2.INTER_LINEAR))
    label_map = _levels(cv2.resize(label_map, scaled, interpolation=cv2.INTER_NEAREST))
    top, left = _corner(label_map, size)
    for _ in range(10):
        classes, counts = np.unique(label_map[top : top + size, left : left + size], return_counts=True)
        counts = counts[classes != _IGNORED]
        if len(counts) > 1 and np.max(counts) / np.sum(counts) < _LIMIT:
            break
        top, left = _corner(label_map, size)
    image, label_map = image[top : top + size, left : left + size], label_map[top : top + size, left : left + size]
    if random.random_sample() < 0.5:
        image, label_map = np.flip(image, axis=1), np.flip(label_map, axis=1)
    image = _distorted(np.ascontiguousarray(image))
    below, beside = size - image.shape[0], size - image.shape[1]
    padded = cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=_MEAN_COLOUR)
    labels = cv2.copyMakeBorder(label_map, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=_IGNORED)
    return _levels(padded), _levels(labels)


class SceneFiles(Dataset[tuple[Tensor, Tensor]]):
    """Images and their maps, whose 0 is ignored, read again and again."""

    def __init__(self, paths: Sequence[str], maps: Sequence[str], count: int, size: int) -> None:
        """Take `count` crops of `size` over the images."""
        self._paths, self._maps, self._count, self._size = paths, maps, count, size

    def __len__(self) -> int:
        """Crops."""
        return self._count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """A crop and its map."""
        place = number % len(self._paths)
        image = _levels(cv2.imread(self._paths[place], cv2.IMREAD_COLOR_RGB))
        stored = _levels(cv2.imread(self._maps[place], cv2.IMREAD_UNCHANGED))
        stored[stored == 0] = _IGNORED
        stored -= 1
        stored[stored == _IGNORED - 1] = _IGNORED
        crop, labels = opencv_crop(image, stored, size=self._size)
        return torch.from_numpy(crop), torch.from_numpy(labels)


def opencv_loader(
    paths: Sequence[str], maps: Sequence[str], count: int, *, size: int, batch: int, workers: int
) -> Iterable[tuple[Tensor, Tensor]]:
    """A DataLoader over them, with one thread of OpenCV in each worker."""
    cv2.setNumThreads(1)
    return DataLoader(SceneFiles(paths, maps, count, size), batch_size=batch, shuffle=True, num_workers=workers)


def _corner(label_map: Levels, size: int) -> tuple[int, int]:
    rows, columns = (max(side - size, 0) for side in label_map.shape)
    return int(random.randint(0, rows + 1)), int(random.randint(0, columns + 1))


def _distorted(image: Levels) -> Levels:
    if random.randint(2):
        image = _converted(image, offset=random.uniform(-32, 32))
    contrast_first = random.randint(2)
    if contrast_first:
        image = _contrast(image)
    if random.randint(2):
        hsv = _levels(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        hsv[:, :, 1] = _converted(hsv[:, :, 1], factor=random.uniform(0.5, 1.5))
        image = _levels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if random.randint(2):
        hsv = _levels(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + random.randint(-18, 18)) % 180
        image = _levels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return image if contrast_first else _contrast(image)


def _contrast(image: Levels) -> Levels:
    return _converted(image, factor=random.uniform(0.5, 1.5)) if random.randint(2) else image


def _converted(levels: Levels, factor: float = 1.0, offset: float = 0.0) -> Levels:
    return _levels(np.clip(levels.astype(np.float32) * factor + offset, 0, 255))


def _levels(pixels: object) -> Levels:
    return np.asarray(pixels).astype(np.uint8, copy=False)
