"""How long a training is, where it may be validated, and what its validations are named by."""

from dataclasses import dataclass
from typing import Self

from morphmlp.config.schema import ExperimentConfig


@dataclass(frozen=True, kw_only=True)
class Length:
    """The length of a training, and the rounds that it falls into.

    A round is what lies between two chances to validate, and with that to end early: an epoch.
    """

    steps_per_epoch: int
    epochs: int
    max_steps: int | None = None
    validate_every: int = 1
    """Epochs from one validation to the next."""

    @classmethod
    def of(cls, config: ExperimentConfig, *, steps_per_epoch: int) -> Self:
        """The length of an experiment."""
        train = config.train
        return cls(
            steps_per_epoch=steps_per_epoch,
            epochs=train.epochs,
            max_steps=train.max_steps,
            validate_every=config.execution.validate_every_epochs,
        )

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run, from its beginning to its end."""
        steps = self.epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def ends_round(self, step: int) -> bool:
        """Whether a round ends after `step` steps in all; the last one may be cut short."""
        return step > 0 and (step == self.total_steps or step % self.steps_per_epoch == 0)

    def is_validated(self, step: int) -> bool:
        """Whether the round that ends after `step` steps is validated; the last one always is."""
        return step == self.total_steps or self.at(step) % self.validate_every == 0

    def at(self, step: int) -> int:
        """The number that names a validation after `step` steps: the epochs that were begun."""
        return -(-step // self.steps_per_epoch)

    def position(self, step: int) -> float:
        """Where the schedule is after `step` steps, in epochs."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        return epoch + inside / self.steps_per_epoch
