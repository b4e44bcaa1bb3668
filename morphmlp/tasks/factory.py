"""Picks an experiment's task, and hands it the values that it needs."""

from dataclasses import replace

from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import Manifest
from morphmlp.tasks.classification import Classification, balanced_class_weights
from morphmlp.tasks.segmentation.segmentation import Segmentation
from morphmlp.tasks.task import Task


def task_of(config: ExperimentConfig, *, train: Manifest | None = None) -> Task:
    """The task that an experiment names.

    `train` are its training videos, by which `train.class_weights: balanced` weighs; None where nothing is trained.
    """
    weights = config.train.class_weights
    if config.segmentation is not None:
        assert weights != "balanced"  # refused with the file
        return Segmentation(
            model=config.model, clip=config.clip, segmentation=config.segmentation, class_weights=weights
        )
    if weights == "balanced":
        weights = None if train is None else balanced_class_weights(train, num_classes=config.model.num_classes)
    return Classification(
        model=config.model,
        clip=config.clip,
        augment=config.augment,
        mixing=config.mixing,
        test_clip=config.test_clip,
        views=replace(config.test, checkpoint="last"),  # whichever it is, clips are found again by their cache
        class_weights=weights,
    )
