"""When a checkpoint is due: by steps, by epochs, by time, and always at the end."""

import time
from collections.abc import Callable

from morphmlp.config.operation import CheckpointConfig


class CheckpointSchedule:
    """Decides after every step; only the worker that saves asks it."""

    def __init__(
        self, config: CheckpointConfig, *, total_steps: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count the minutes.

        Args:
            config: The section `checkpoint`.
            total_steps: Of the whole run; behind its last step a checkpoint is always due.
            clock: Seconds from anywhere.
        """
        self._config = config
        self._total_steps = total_steps
        self._clock = clock
        self._saved_at = clock()

    def due_after_step(self, step: int) -> bool:
        """Whether to save after `step` steps in all, inside an epoch."""
        every_steps, every_minutes = self._config.every_steps, self._config.every_minutes
        by_time = every_minutes is not None and self._clock() - self._saved_at >= 60 * every_minutes
        return by_time or (every_steps is not None and step % every_steps == 0)

    def due_after_epoch(self, epoch: int, *, step: int) -> bool:
        """Whether to save after `epoch` epochs, `step` steps in all: for the epoch's sake or for its last step's."""
        every_epochs = self._config.every_epochs
        by_epoch = every_epochs is not None and epoch % every_epochs == 0
        return step == self._total_steps or by_epoch or self.due_after_step(step)

    def saved(self) -> None:
        """Begin to count the minutes anew."""
        self._saved_at = self._clock()
