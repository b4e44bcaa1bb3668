"""Picks an experiment's task, and hands it the values that it needs."""

from morphmlp.config import ExperimentConfig
from morphmlp.tasks.classification import Classification
from morphmlp.tasks.task import Task


def task_of(config: ExperimentConfig) -> Task:
    """The task that an experiment names."""
    return Classification(
        model=config.model,
        num_frames=config.clip.num_frames,
        crop_size=config.clip.crop_size,
        mixing=config.mixing,
    )
