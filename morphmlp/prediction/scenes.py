"""Predictions of segmentation: which classes an image shows, on how much of it, and the label map over the image."""

import numpy as np
import torch
from PIL import Image

from morphmlp.data.datasets.class_list import output_names
from morphmlp.data.decoding.isolation.isolated import isolated_videos
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
from morphmlp.tasks.segmentation.prediction import predict_labels

_MAP_SHARE = 0.55
"""How much of an overlay is the map; the rest is the image."""


class SceneModel:
    """A network for segmentation with all that its test does to an image."""

    def __init__(self, trained: TrainedNetwork) -> None:
        config = trained.config
        assert config.segmentation is not None
        self._config, self._segmentation = config, config.segmentation
        self.names = output_names(trained.class_names, config.model.num_classes)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = task_of(config).network()
        self._network.load_state_dict(trained.weights)
        self._network.to(self._device)
        self._images = isolated_videos(config.ingest.decoder, patient_limits(config), config.ingest.image_decoder)

    def label_map(self, path: str) -> tuple[Frames, LabelMap]:
        """An image `[h w 3]` and the class of each of its pixels.

        Raises:
            DecodeError: It can't be used, or is no image.
        """
        with as_text(path) as name:
            if not is_image(name):
                raise DecodeError("is no image; this network segments images")
            image = self._images.open(name, num_frames=None).read([0]).frames[0]
        found = predict_labels(
            self._network, image.copy(), config=self._segmentation, clip=self._config.clip, device=self._device
        )
        return image, found.labels

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
