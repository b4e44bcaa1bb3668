"""How long a training is, where it may be validated, and what its validations are named by."""

from dataclasses import dataclass
from typing import Self

from morphmlp.config.schema import ExperimentConfig
from morphmlp.config.values import Unit


@dataclass(frozen=True, kw_only=True)
class Length:
    """The length of a training in epochs or optimiser steps, and the rounds that it falls into.

    A round is what lies between two chances to validate, and with that to end early: an epoch, or where the length is
    in steps the steps from one validation to the next. The order of the videos is one of epochs in any case.
    """

    steps_per_epoch: int
    unit: Unit = "epoch"
    whole: int
    """Epochs or steps of the whole training, over which the schedule runs."""
    max_steps: int | None = None
    """Steps after which the run ends before that."""
    validate_every: int = 1
    """Epochs or steps from one validation to the next."""

    @classmethod
    def of(cls, config: ExperimentConfig, *, steps_per_epoch: int) -> Self:
        """The length of an experiment."""
        train, execution = config.train, config.execution
        in_steps = execution.validate_every_steps or steps_per_epoch
        return cls(
            steps_per_epoch=steps_per_epoch,
            unit=train.unit,
            whole=train.length,
            max_steps=train.max_steps,
            validate_every=in_steps if train.unit == "step" else execution.validate_every_epochs,
        )

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run, from its beginning to its end."""
        steps = self.whole if self.unit == "step" else self.whole * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def ends_round(self, step: int) -> bool:
        """Whether a round ends after `step` steps in all; the last one may be cut short."""
        steps = self.validate_every if self.unit == "step" else self.steps_per_epoch
        return step > 0 and (step == self.total_steps or step % steps == 0)

    def is_validated(self, step: int) -> bool:
        """Whether the round that ends after `step` steps is validated; the last one always is."""
        return step == self.total_steps or self.at(step) % self.validate_every == 0

    def at(self, step: int) -> int:
        """The number that names a validation after `step` steps: these, or the epochs that were begun."""
        return step if self.unit == "step" else -(-step // self.steps_per_epoch)

    def position(self, step: int) -> float:
        """Where the schedule is after `step` steps, in epochs or steps."""
        if self.unit == "step":
            return step
        epoch, inside = divmod(step, self.steps_per_epoch)
        return epoch + inside / self.steps_per_epoch
