"""A trained network for segmentation outside of a run: images in, label maps and shares of classes out.

Images are decoded, scaled and segmented as the test does it, by the same code; one after the other, in this process.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.data.datasets.class_list import output_names
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits, isolated_videos
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.sources import is_image
from morphmlp.data.stream.decode_task import decode_limits
from morphmlp.errors import DecodeError
from morphmlp.evaluation.video_model import TOP, saved_model
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.segmentation.confusion import LabelMap, prediction_png
from morphmlp.tasks.segmentation.prediction import Predicted, predict_labels, scaled_for, windows_of
from morphmlp.tasks.task import network_input


@dataclass(frozen=True, kw_only=True)
class SceneAnswer:
    """What the network says of an image."""

    names: tuple[str, ...]
    """The classes on most pixels, the largest first; none where the image can't be used."""
    probabilities: tuple[float, ...]
    """Their shares of the image."""
    map: bytes = b""
    """A grey PNG of the image's size whose pixels are their classes."""
    error: str = ""
    """Why the image can't be used."""


class SegmentationModel:
    """A network that segments with all that its test does to an image."""

    gives_maps: ClassVar[bool] = True
    """Whether its answers have label maps."""

    def __init__(
        self,
        config: ExperimentConfig,
        weights: Mapping[str, Tensor],
        class_names: Sequence[str],
        *,
        limits: Limits | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Build the network on a device, by default on the GPU where there is one.

        `limits` is what decoding one image may take; None: what it may in a run.
        """
        assert config.segmentation is not None
        self.config, self.segmentation = config, config.segmentation
        self.names = output_names(class_names, config.model.num_classes)
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = task_of(config).network()
        self.network.load_state_dict(weights)
        self.network.fit_to(self.device).eval()
        self._limits = limits or decode_limits(config.ingest)
        self._images = self._opener(0)
        self._run: Callable[[Callable[[], Predicted]], Predicted] = _at_once

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model that `morphmlp.evaluation.video_model.save_model` wrote."""
        return cls(*saved_model(Path(folder)))

    def for_thread(self, number: int, run: Callable[[Callable[[], Predicted]], Predicted]) -> Self:
        """The same network for one of several threads, which decodes by a process of its own.

        `run` does the network's work on an image, as where one thread does it for all.
        """
        other = copy(self)
        other._images, other._run = self._opener(number), run
        return other

    def predict(self, paths: Sequence[str]) -> list[SceneAnswer]:
        """An answer for each image, in this order; one that can't be used has the reason."""
        return [self._answer(path) for path in paths]

    def image(self, source: OpenVideo) -> Frames:
        """An image `[h w 3]`.

        Raises:
            DecodeError: It can't be used, or is no image.
        """
        if source.image is None and not is_image(source.path):
            raise DecodeError("is no image; this network segments images")
        frames = self._images.open(**vars(source)).read([0]).frames
        image: Frames = frames[0]
        return image

    def windows(self, image: Frames) -> list[tuple[tuple[float, float, float, float], Tensor]]:
        """What the network sees of an image at the test's scale next to 1, not mirrored: boxes, inputs `[1 3 h w]`.

        A box is top, left, bottom and right in the image's own pixels.
        """
        scale = min(self.segmentation.test.scales, key=lambda one: abs(one - 1))
        scaled = scaled_for(torch.as_tensor(image), scale, config=self.segmentation, clip=self.config.clip)
        height, width = scaled.shape[:2]
        down, across = image.shape[0] / height, image.shape[1] / width
        found = []
        for top, left, rows, columns in windows_of(height, width, config=self.segmentation, clip=self.config.clip):
            pixels = scaled[top : top + rows, left : left + columns]
            box = (top * down, left * across, (top + rows) * down, (left + columns) * across)
            found.append((box, network_input(pixels[None, None], self.network, self.device)))
        return found

    @torch.inference_mode()
    def view_logits(self, path: str) -> npt.NDArray[np.float32] | str:
        """Logits `[windows classes h w]` of an image at the test's scale next to 1, or why it can't be used."""
        try:
            image = self.image(OpenVideo(path=path, num_frames=None, crc32=None))
        except DecodeError as error:
            return str(error)
        logits: npt.NDArray[np.float32] = torch.cat([self.network(inputs) for _, inputs in self.windows(image)]).numpy(
            force=True
        )
        return logits

    def label_map(self, path: str) -> tuple[Frames, LabelMap]:
        """An image `[h w 3]` and the class of each of its pixels.

        Raises:
            DecodeError: It can't be used, or is no image.
        """
        image = self.image(OpenVideo(path=path, num_frames=None, crc32=None))
        work = partial(
            predict_labels,
            self.network,
            image.copy(),
            config=self.segmentation,
            clip=self.config.clip,
            device=self.device,
        )
        return image, self._run(work).labels

    def largest(self, labels: LabelMap, count: int) -> dict[int, float]:
        """So many classes of a label map and their shares of it, the largest first; none that no pixel has."""
        shares = np.bincount(labels.ravel(), minlength=len(self.names)) / labels.size
        order = np.argsort(-shares, kind="stable")[:count].tolist()
        return {label: float(shares[label]) for label in order if shares[label]}

    def _answer(self, path: str) -> SceneAnswer:
        try:
            _, labels = self.label_map(path)
        except DecodeError as error:
            return SceneAnswer(names=(), probabilities=(), error=str(error))
        shares = self.largest(labels, TOP)
        names = tuple(self.names[label] for label in shares)
        return SceneAnswer(names=names, probabilities=tuple(shares.values()), map=prediction_png(labels))

    def _opener(self, number: int) -> IsolatedVideos:
        ingest = self.config.ingest
        return isolated_videos(ingest.decoder, self._limits, ingest.image_decoder, number=number)


def _at_once(work: Callable[[], Predicted]) -> Predicted:
    return work()
