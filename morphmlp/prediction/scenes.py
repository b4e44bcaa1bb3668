"""Predictions of segmentation: which classes an image shows, on how much of it, and the label map over the image."""

import numpy as np
import torch
from PIL import Image

from morphmlp.data.decoding.protocol import Frames
from morphmlp.evaluation.scene_model import SegmentationModel
from morphmlp.prediction.drawing import font_for, labels_box, picture_size
from morphmlp.prediction.inputs import as_text
from morphmlp.prediction.predict import Guess, Prediction
from morphmlp.prediction.trained import TrainedNetwork, patient_limits
from morphmlp.reporting.segmentation import coloured
from morphmlp.tasks.segmentation.confusion import LabelMap

_MAP_SHARE = 0.55
"""How much of an overlay is the map; the rest is the image."""


class SceneModel(SegmentationModel):
    """A network for segmentation with all that its test does to an image, and pictures of what it gives."""

    def __init__(self, trained: TrainedNetwork, *, device: torch.device | None = None) -> None:
        """Build the network on a device, by default on the GPU where there is one."""
        limits = patient_limits(trained.config)
        super().__init__(trained.config, trained.weights, trained.class_names, limits=limits, device=device)

    def label_map(self, path: str) -> tuple[Frames, LabelMap]:
        """An image `[h w 3]` and the class of each of its pixels; the path may have any bytes.

        Raises:
            DecodeError: It can't be used, or is no image.
        """
        with as_text(path) as name:
            return super().label_map(name)

    def prediction(self, path: str, labels: LabelMap, *, top: int) -> Prediction:
        """The classes on most pixels; a share of the image stands for the probability."""
        shares = self.largest(labels, top)
        return Prediction(
            path=path,
            guesses=tuple(
                Guess(label=label, name=self.names[label], probability=share) for label, share in shares.items()
            ),
            logits=(),
        )

    def overlay(self, image: Frames, labels: LabelMap, prediction: Prediction) -> Image.Image:
        """The image under its label map, with the names and colours of its largest classes; a small one is enlarged."""
        height, width = labels.shape
        size = max((width, height), picture_size(width, height))  # the wider one: details of large ones stay
        colours = Image.fromarray(coloured(labels, len(self.names))).resize(size, Image.Resampling.NEAREST)
        pixels = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        blended = Image.blend(pixels, colours, _MAP_SHARE)
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
