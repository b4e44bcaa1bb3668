"""The label map of an image, at the image's own size, from a network that sees it scaled.

As mmsegmentation: the image is scaled to the test's size, as a whole or in windows; logits are scaled to the size of
the network's input, then to the image's own; classes are chosen there. Of several scales and mirrored images the
probabilities are averaged.

Logits at the image's own size are made a band of rows at a time: of 150 classes at 5,000 x 4,000 px they would take
12 GB.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from morphmlp.config.clip import ClipConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.data.clips.scene_draws import scaled_size
from morphmlp.data.clips.scenes import scaled_image
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.models.network import Network
from morphmlp.tasks.task import network_input

BAND_BYTES = 2**25
"""Logits of a band; with all that is made on the way to them it takes some six times as much."""

Rows = Callable[[int, int], Float[Tensor, "k r w"]]
"""Gives some rows of a map of logits: from the first number up to, and without, the last."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a network says of an image."""

    labels: UInt8[np.ndarray, "h w"]
    """Class of each pixel."""
    loss: float | None
    """Mean cross-entropy of the image's pixels, against the label map that was given; 0 where none is labelled."""


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A part of a scaled image, and the network's logits for it, which have fewer rows and columns."""

    top: int
    left: int
    height: int
    width: int
    logits: Float[Tensor, "k h w"]

    def rows(self, first: int, last: int) -> Float[Tensor, "k r w"]:
        """Logits at the size of the window."""
        small = tuple(self.logits.shape[1:])
        return _scaled_rows(lambda a, b: self.logits[:, a:b], small, (self.height, self.width), first, last)


@dataclass(frozen=True, kw_only=True)
class _View:
    """An image at one scale, perhaps mirrored, as the network saw it."""

    height: int
    width: int
    mirrored: bool
    windows: tuple[_Window, ...]

    def rows(self, first: int, last: int) -> Float[Tensor, "k r w"]:
        """Logits at the size of the scaled image: means where windows overlap."""
        if len(self.windows) == 1:
            return self.windows[0].rows(first, last)
        some = self.windows[0].logits
        total, seen = some.new_zeros((len(some), last - first, self.width)), some.new_zeros((last - first, self.width))
        for window in self.windows:
            begin, end = max(first, window.top), min(last, window.top + window.height)
            if begin < end:
                place = slice(begin - first, end - first), slice(window.left, window.left + window.width)
                total[:, *place] += window.rows(begin - window.top, end - window.top)
                seen[place] += 1
        return total.div_(seen)


@torch.inference_mode()
def predict_labels(
    network: Network,
    image: UInt8[np.ndarray, "h w 3"] | UInt8[Tensor, "h w 3"],
    *,
    config: SegmentationConfig,
    clip: ClipConfig,
    device: torch.device,
    with_loss_of: UInt8[np.ndarray, "h w"] | None = None,
) -> Predicted:
    """The classes of an image's pixels, in fp32 (as published for evaluation), and their loss against a label map.

    The network gives logits `[1 k h' w']` of images `[1 3 h w]`, of any size. `config.test` says how it sees the image.
    Memory depends on the scaled image and the number of classes, not on the image's own size.
    """
    network.eval()
    image = torch.as_tensor(image)
    height, width = image.shape[:2]
    views = list(_views(network, image, config=config, clip=clip, device=device))
    labels = torch.empty((height, width), dtype=torch.uint8)
    truth = None if with_loss_of is None else torch.as_tensor(with_loss_of)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    for first, last in _bands(views, height, width):
        logits = _log_scores(views, (height, width), first, last)
        labels[first:last] = logits.max(0).indices.to("cpu", torch.uint8)  # argmax takes twice as long
        if truth is not None:
            targets = truth[first:last].to(device, torch.int64)
            loss_sum += functional.cross_entropy(logits[None], targets[None], ignore_index=IGNORED, reduction="sum")
    loss = None
    if truth is not None:
        over = truth.numel() if config.loss_over == "all_pixels" else int((truth != IGNORED).sum())
        loss = float(loss_sum) / max(over, 1)
    return Predicted(labels=labels.numpy(), loss=loss)


def window_places(side: int, *, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride` pixels, the last one moved in so that it ends with the side."""
    count = max(side - window + stride - 1, 0) // stride + 1
    return [max(min(number * stride + window, side) - window, 0) for number in range(count)]


def scaled_for(
    image: UInt8[Tensor, "h w 3"], scale: float, *, config: SegmentationConfig, clip: ClipConfig
) -> UInt8[Tensor, "h2 w2 3"]:
    """An image at a scale of the test's."""
    edges = {"long_edge": int(config.long_edge * scale), "short_edge": int(clip.short_edge * scale)}
    divisor = config.test.size_divisor or 1
    height, width = (-(-side // divisor) * divisor for side in scaled_size(*image.shape[:2], **edges))
    return scaled_image(image, (height, width))


def windows_of(
    height: int, width: int, *, config: SegmentationConfig, clip: ClipConfig
) -> list[tuple[int, int, int, int]]:
    """The windows of a scaled image that go through the network: top, left, rows, columns; one where it goes whole."""
    stride = config.test.stride
    if stride is None:
        return [(0, 0, height, width)]
    rows, columns = min(clip.crop_size, height), min(clip.crop_size, width)
    return [
        (top, left, rows, columns)
        for top in window_places(height, window=rows, stride=stride)
        for left in window_places(width, window=columns, stride=stride)
    ]


def _views(
    network: Network,
    image: UInt8[Tensor, "h w 3"],
    *,
    config: SegmentationConfig,
    clip: ClipConfig,
    device: torch.device,
) -> Iterator[_View]:
    test = config.test
    for scale in test.scales:
        scaled = scaled_for(image, scale, config=config, clip=clip)
        height, width = scaled.shape[:2]
        for mirrored in (False, True) if test.flip else (False,):
            pixels = scaled.flip(1) if mirrored else scaled
            windows = tuple(
                _Window(
                    top=top,
                    left=left,
                    height=rows,
                    width=columns,
                    logits=_logits(network, pixels[top : top + rows, left : left + columns], device),
                )
                for top, left, rows, columns in windows_of(height, width, config=config, clip=clip)
            )
            yield _View(height=height, width=width, mirrored=mirrored, windows=windows)


def _logits(network: Network, pixels: UInt8[Tensor, "h w 3"], device: torch.device) -> Float[Tensor, "k h w"]:
    logits: Tensor = network(network_input(pixels[None, None], network, device))
    return logits[0].float()


def _bands(views: list[_View], height: int, width: int) -> Iterator[tuple[int, int]]:
    """First and last rows of the bands; their logits, and the scaled images' rows behind them, are small enough."""
    widest = max(width, *(-(-view.height * view.width // height) for view in views))
    rows = max(BAND_BYTES // (4 * len(views[0].windows[0].logits) * widest), 1)
    for first in range(0, height, rows):
        yield first, min(first + rows, height)


def _log_scores(views: list[_View], size: tuple[int, int], first: int, last: int) -> Float[Tensor, "k r w"]:
    """Rows at the image's own size: of one view its logits, of several the logarithm of the mean probabilities."""
    found: Tensor | None = None
    for view in views:
        logits = _scaled_rows(view.rows, (view.height, view.width), size, first, last)
        if view.mirrored:
            logits = logits.flip(2)
        if len(views) == 1:
            return logits
        shares = logits.softmax(0)
        found = shares if found is None else found.add_(shares)
    assert found is not None
    return found.div_(len(views)).log_()


def _scaled_rows(
    rows: Rows, source: tuple[int, ...], size: tuple[int, int], first: int, last: int
) -> Float[Tensor, "k r w"]:
    """Some rows of a map scaled bilinearly from size `source` to `size`, as `interpolate` would scale it whole.

    Only the source's rows that they are made of are asked for. Sums are rounded in another order than torch's.
    """
    lower, upper, weight = _neighbours(source[0], size[0], first, last)
    begin, end = (first, last) if source[0] == size[0] else (int(lower[0]), int(upper[-1]) + 1)
    part = rows(begin, end)
    if source[1] != size[1]:
        part = functional.interpolate(part[None], size=(end - begin, size[1]), mode="bilinear")[0]
    if source[0] == size[0]:
        return part
    below, above = (part.index_select(1, (place - begin).to(part.device)) for place in (lower, upper))
    return below.lerp_(above, weight[:, None].to(part.device))


def _neighbours(
    source: int, size: int, first: int, last: int
) -> tuple[Int[Tensor, "r"], Int[Tensor, "r"], Float[Tensor, "r"]]:
    """The two places along a side of `source` that each of some places along one of `size` lies between.

    And how far it lies from the first to the second; with corners not aligned, in torch's precision.
    """
    exact = ((torch.arange(first, last, dtype=torch.float32) + 0.5) * (source / size) - 0.5).clamp_(min=0)
    lower = exact.floor().clamp_(max=source - 1)
    return lower.long(), (lower.long() + 1).clamp_(max=source - 1), exact - lower
