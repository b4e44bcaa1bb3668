"""What the server says of a segmented image: the share of each class, and its label map as a picture."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from morphmlp.prediction.scenes import SceneModel
from morphmlp.reporting.label_maps import label_map_png
from morphmlp.reporting.segmentation import palette

Form = Literal["json", "both", "map", "overlay"]
"""`json`: shares of the classes. `both`: these, and the label map in base64. `map`: the label map alone, a PNG whose
pixels hold their class, with a palette. `overlay`: the image under its map, as `predict.py --annotate` draws it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back to who asked: JSON, or a picture in its place."""

    plain: Mapping[str, Any]
    png: bytes | None = None


def segmented(model: SceneModel, path: str, *, top: int, form: Form) -> Answer:
    """What a network says of an image.

    Raises:
        DecodeError: It can't be used.
    """
    image, labels = model.label_map(path)
    found = model.prediction(path, labels, top=top)
    if form == "map":
        return Answer(plain={}, png=label_map_png(labels, form="palette"))
    if form == "overlay":
        file = io.BytesIO()
        model.overlay(image, labels, found).save(file, format="png")
        return Answer(plain={}, png=file.getvalue())
    colours = palette(len(model.names)).tolist()
    plain = found.plain() | {"height": labels.shape[0], "width": labels.shape[1]}
    plain["top"] = [
        guess | {"colour": "#{:02x}{:02x}{:02x}".format(*colours[guess["label"]])} for guess in plain["top"]
    ]
    if form == "both":
        plain["map"] = base64.b64encode(label_map_png(labels, form="palette")).decode()
    return Answer(plain=plain)
