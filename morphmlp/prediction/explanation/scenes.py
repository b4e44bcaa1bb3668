"""An explanation of a segmented image: what the network did with the windows of it that the test sees."""

from dataclasses import replace
from functools import reduce

import numpy as np
import torch
from PIL import Image

from morphmlp.data.decoding.protocol import Frames, VideoInfo
from morphmlp.models.segmentation.network import MorphMLPSegmentation
from morphmlp.prediction.drawing import INK
from morphmlp.prediction.explanation.clips import ClipExplanations, explain_scenes
from morphmlp.prediction.explanation.explained import ExplainedClip, Explanation, Subject, weighed_branches
from morphmlp.prediction.explanation.pictures import Explainer
from morphmlp.prediction.scenes import SceneModel
from morphmlp.tasks.segmentation.confusion import LabelMap


def explain_scene(model: SceneModel, image: Frames, labels: LabelMap, subject: Subject) -> Explanation:
    """Explain the classes `labels` of an image's pixels, by the test's view whose scale is next to 1, not mirrored."""
    network = model.network
    assert isinstance(network, MorphMLPSegmentation)
    share = float((labels == subject.label).mean())
    found, boxes = list[ClipExplanations](), list[tuple[float, float, float, float]]()
    for box, inputs in model.windows(image):
        found.append(explain_scenes(network, inputs, stage=subject.stage, label=subject.label, everywhere=not share))
        boxes.append(box)
    clip = ExplainedClip.of(reduce(_joined, found), indices=np.zeros(1, np.int64), reach=0.0)
    return Explanation(
        subject=subject,
        probability=share,
        unit=" of the pixels",
        info=VideoInfo(num_frames=1, fps=1.0, pts_s=(0.0,), width=image.shape[1], height=image.shape[0], codec="image"),
        boxes=tuple(boxes),
        branches=weighed_branches(network, clip),
        clips=(clip,),
    )


def draw_scene(explanation: Explanation, image: Frames, labels: LabelMap) -> Image.Image:
    """The image under its evidence, with a line around the pixels that the class is the answer for."""
    explainer = Explainer(explanation)
    drawn = explainer.draw(image, 0, 0.0)
    width, height = explainer.picture_size
    where = Image.fromarray(labels == explanation.subject.label).resize((width, height), Image.Resampling.NEAREST)
    inside = np.pad(np.asarray(where), 1, mode="edge")
    whole = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    line = Image.fromarray(inside[1:-1, 1:-1] & ~whole)
    drawn.paste(INK, ((drawn.width - width) // 2, 0), line)
    return drawn


def _joined(first: ClipExplanations, second: ClipExplanations) -> ClipExplanations:
    weights = {
        name: torch.cat([of_first, second.branch_weights[name]], dim=1)
        for name, of_first in first.branch_weights.items()
    }
    return replace(first, maps=torch.cat([first.maps, second.maps]), branch_weights=weights)
