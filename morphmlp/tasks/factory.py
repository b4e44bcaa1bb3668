"""Picks an experiment's task, and hands it the values that it needs."""

from morphmlp.config import ExperimentConfig
from morphmlp.data.manifest import Manifest
from morphmlp.tasks.classification import Classification, balanced_class_weights
from morphmlp.tasks.task import Task


def task_of(config: ExperimentConfig, *, train: Manifest | None = None) -> Task:
    """The task that an experiment names.

    `train` are its training videos, by which `train.class_weights: balanced` weighs; None where nothing is trained.
    """
    weights = config.train.class_weights
    if weights == "balanced":
        weights = None if train is None else balanced_class_weights(train, num_classes=config.model.num_classes)
    return Classification(
        model=config.model,
        num_frames=config.clip.num_frames,
        crop_size=config.clip.crop_size,
        mixing=config.mixing,
        pixel_mean=config.clip.pixel_mean,
        pixel_std=config.clip.pixel_std,
        class_weights=weights,
    )
