"""Images through a torch DataLoader with torchvision's transforms, or through timm's loader, to compare ours with.

Images with label maps go through one with OpenCV (`opencv_scenes`).

Pillow decodes, as both use it; timm's loader is its training loader with its own collation. Batches are uint8, so that
no side normalises: that is left to the device on all. Run as a program it reads one JSON request from standard input,
then reads on whenever a line comes, and answers each with the images that it has read.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from morphmlp.config.clip import AugmentConfig


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Files read again and again."""

    def __init__(self, paths: Sequence[str], count: int) -> None:
        """Take `count` items over the paths."""
        self._paths, self._count = paths, count
        self.transform: Callable[[Image.Image], Tensor] | None = None

    def __len__(self) -> int:
        """Items."""
        return self._count

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """An image and a label."""
        assert self.transform is not None
        with Image.open(self._paths[number % len(self._paths)]) as image:
            return self.transform(image.convert("RGB")), 0


def torchvision_loader(
    files: ImageFiles, augment: AugmentConfig, *, size: int, batch: int, workers: int
) -> Iterable[tuple[Tensor, Tensor]]:
    """As torchvision's own training script reads images."""
    from torchvision.transforms import (  # noqa: PLC0415 (each side imports its own)
        Compose,
        InterpolationMode,
        PILToTensor,
        RandomHorizontalFlip,
        RandomResizedCrop,
    )

    crop = RandomResizedCrop(
        size, scale=augment.scale, ratio=augment.aspect, interpolation=InterpolationMode(augment.interpolation)
    )
    files.transform = Compose([crop, RandomHorizontalFlip(augment.flip), PILToTensor()])
    return DataLoader(files, batch_size=batch, shuffle=True, num_workers=workers)


def timm_loader(
    files: ImageFiles, augment: AugmentConfig, *, size: int, batch: int, workers: int
) -> Iterable[tuple[Tensor, Tensor]]:
    """As timm's training script reads images, up to where it would normalise them on the device."""
    timm_data: Any = importlib.import_module("timm.data")
    loader = timm_data.create_loader(
        files,
        (3, size, size),
        batch,
        is_training=True,
        scale=augment.scale,
        ratio=augment.aspect,
        hflip=augment.flip,
        color_jitter=None,
        interpolation=augment.interpolation,
        num_workers=workers,
        device=torch.device("cpu"),
        persistent_workers=workers > 0,
    )
    inner: Iterable[tuple[Tensor, Tensor]] = loader.loader
    return inner


_LOADERS = {"torchvision": torchvision_loader, "timm": timm_loader}


def serve() -> None:
    """Make a loader for the request, then read `{"clips": n}` at a time until standard input ends."""
    request = json.loads(sys.stdin.readline())
    torch.set_num_threads(1)
    sizes = {name: request[name] for name in ("size", "batch", "workers")}
    if request["loader"] == "opencv":
        from morphmlp.benchmarks.opencv_scenes import opencv_loader  # noqa: PLC0415 (OpenCV is no dependency)

        loader = opencv_loader(request["paths"], request["maps"], request["count"], **sizes)
    else:
        files = ImageFiles(request["paths"], request["count"])
        loader = _LOADERS[request["loader"]](files, AugmentConfig(**request["augment"]), **sizes)
    batches = iter(loader)
    for line in sys.stdin:
        wanted = json.loads(line)["clips"] // request["batch"]
        print(json.dumps({"clips": sum(len(images) for images, _ in islice(batches, wanted))}), flush=True)


if __name__ == "__main__":
    serve()
