"""Predictions of segmentation: which classes an image shows, on how much of it, and the label map over the image."""

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Self

import numpy as np
import torch
from PIL import Image

from morphmlp.data.datasets.class_list import output_names
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, isolated_videos
from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.sources import is_image
from morphmlp.errors import DecodeError
from morphmlp.prediction.drawing import font_for, labels_box
from morphmlp.prediction.inputs import as_text
from morphmlp.prediction.predict import Guess, Prediction
from morphmlp.prediction.trained import TrainedNetwork, patient_limits
from morphmlp.reporting.segmentation import coloured
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.segmentation.confusion import LabelMap
from morphmlp.tasks.segmentation.prediction import Predicted, predict_labels

_MAP_SHARE = 0.55
"""How much of an overlay is the map; the rest is the image."""


class SceneModel:
    """A network for segmentation with all that its test does to an image."""

    def __init__(self, trained: TrainedNetwork) -> None:
        config = trained.config
        assert config.segmentation is not None
        self.config, self.segmentation = config, config.segmentation
        self.names = output_names(trained.class_names, config.model.num_classes)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = task_of(config).network()
        self.network.load_state_dict(trained.weights)
        self.network.to(self.device).eval()
        self._images = self._opener(0)
        self._run: Callable[[Callable[[], Predicted]], Predicted] = _at_once

    def for_thread(self, number: int, run: Callable[[Callable[[], Predicted]], Predicted]) -> Self:
        """The same network for one of several threads, which decodes by a process of its own.

        `run` does the network's work on an image, as where one thread does it for all.
        """
        other = copy(self)
        other._images, other._run = self._opener(number), run
        return other

    def label_map(self, path: str) -> tuple[Frames, LabelMap]:
        """An image `[h w 3]` and the class of each of its pixels.

        Raises:
            DecodeError: It can't be used, or is no image.
        """
        with as_text(path) as name:
            if not is_image(name):
                raise DecodeError("is no image; this network segments images")
            image = self._images.open(name, num_frames=None).read([0]).frames[0]
        work = partial(
            predict_labels,
            self.network,
            image.copy(),
            config=self.segmentation,
            clip=self.config.clip,
            device=self.device,
        )
        return image, self._run(work).labels

    def prediction(self, path: str, labels: LabelMap, *, top: int) -> Prediction:
        """The classes on most pixels; a share of the image stands for the probability."""
        shares = np.bincount(labels.ravel(), minlength=len(self.names)) / labels.size
        order = [int(label) for label in np.argsort(-shares, kind="stable")[:top] if shares[label]]
        return Prediction(
            path=path,
            guesses=tuple(
                Guess(label=label, name=self.names[label], probability=float(shares[label])) for label in order
            ),
            logits=(),
        )

    def overlay(self, image: Frames, labels: LabelMap, prediction: Prediction) -> Image.Image:
        """The image under its label map, with the names and colours of its largest classes."""
        colours = coloured(labels, len(self.names))
        blended = Image.blend(Image.fromarray(image), Image.fromarray(colours), _MAP_SHARE)
        shown = [int(guess.label) for guess in prediction.guesses]
        swatches = coloured(np.array([shown], np.uint8), len(self.names))[0]
        box = labels_box(
            prediction.guesses,
            font_for(blended.height),
            most_width=blended.width,
            colours=[tuple(colour) for colour in swatches.tolist()],
        )
        blended.paste(box, (0, 0), box)
        return blended

    def _opener(self, number: int) -> IsolatedVideos:
        ingest = self.config.ingest
        return isolated_videos(ingest.decoder, patient_limits(self.config), ingest.image_decoder, number=number)


def _at_once(work: Callable[[], Predicted]) -> Predicted:
    return work()
