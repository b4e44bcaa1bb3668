"""The first worker's part in saving: deciding, copying, and handing over to the background."""

import math
import time
from collections.abc import Callable
from typing import Any

from morphmlp.config import ExperimentConfig
from morphmlp.config.operation import CheckpointConfig
from morphmlp.errors import CheckpointError
from morphmlp.tasks.scores import ScoreName
from morphmlp.training.checkpoint.background_save import BackgroundSaver
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore, StoredCheckpoint
from morphmlp.training.loop.loop import Recipe
from morphmlp.training.loop.state import TrainState, snapshot
from morphmlp.training.record.run_folder import RunFolder


def run_store(checkpoint: CheckpointConfig, folder: RunFolder) -> CheckpointStore:
    """Where a run's checkpoints are.

    Raises:
        CheckpointError: The storage can't be used.
    """
    return CheckpointStore.of(checkpoint.storage or str(folder.root.parent), folder.root.name)


def checkpoint_to_test(
    config: ExperimentConfig, folder: RunFolder, score: ScoreName, log: Callable[[str], None]
) -> tuple[StoredCheckpoint, dict[str, Any], str]:
    """The checkpoint that `test.checkpoint` names, by this score, its content, and words for which one that is.

    Raises:
        CheckpointError: There is none, or none is complete.
        StorageError: The storage can't be read.
    """
    store = run_store(config.checkpoint, folder)
    kind, found = "best", store.best(score, log) if config.test.checkpoint == "best" else None
    if found is None:
        kind, found = "last", store.newest(log)
    if found is None:
        raise CheckpointError(f"{store.location}: training ended without a checkpoint")
    if kind != config.test.checkpoint:
        log("test.checkpoint: no checkpoint was validated, so that there is no best one; testing the last")
    checkpoint, content = found
    value = checkpoint.facts.score
    validated = "" if value is None else f", validation {score.title} {value:.2f}"
    return checkpoint, content, f"{kind} checkpoint, step {checkpoint.facts.step}{validated}"


class Saving:
    """Saves a training's state where it is due."""

    def __init__(
        self,
        state: TrainState,
        store: CheckpointStore,
        *,
        config: ExperimentConfig,
        data_fingerprint: str,
        recipe: Recipe,
        restored: StoredCheckpoint | None,
        unrecorded: Callable[[], list[str]] = lambda: [],
    ) -> None:
        """Prepare; `unrecorded` gives what every checkpoint carries of the record (see `Reporter.unrecorded`)."""
        kept = config.checkpoint
        self._state, self._config, self._data_fingerprint = state, config, data_fingerprint
        self._recipe, self._unrecorded = recipe, unrecorded
        self._score = recipe.task.scores[0]
        self._best_gain = _best_gain(store, self._score)
        self._patience_s = kept.wait_for_storage_s
        self._schedule = CheckpointSchedule(kept, total_steps=recipe.total_steps)
        self._saver = BackgroundSaver(store, keep_last=kept.keep_last, best_by=self._score, restored=restored)

    def after_step(self) -> None:
        """Save if it is due after the step that was just taken."""
        if self._schedule.due_after_step(self._recipe.plan.step_of(self._state.cursor)):
            self.save()

    def after_round(self, *, score: float | None, last: bool = False) -> None:
        """Save if it is due after a round (see `Length`).

        `score` is the primary one of its validation, None where there was none. With `last` training ends here, though
        the plan doesn't.
        """
        step = self._recipe.plan.step_of(self._state.cursor)
        last = last or step == self._recipe.total_steps
        gain = None if score is None else self._score.gain(score)
        best = gain is not None and gain >= self._best_gain
        tested = best and self._config.test.checkpoint == "best"
        length = self._recipe.length
        rounds = length.at(step) if length.unit == "epoch" else 1  # of those in steps each is saved, or none
        if tested or last or self._schedule.due_after_round(rounds, step=step):
            self._best_gain = max(self._best_gain, gain if gain is not None else -math.inf)
            self.save(score=score, required=best or last)

    def save(self, *, score: float | None = None, required: bool = False) -> None:
        """Copy the state and let it be written while training continues.

        A score belongs to the end of a round that was validated. A required one isn't left out in favour of a later
        one.
        """
        content = snapshot(
            self._state,
            config=self._config,
            data_fingerprint=self._data_fingerprint,
            unrecorded=self._unrecorded(),
        )
        facts = CheckpointFacts(
            epoch=self._state.cursor.epoch, step=self._recipe.plan.step_of(self._state.cursor), score=score
        )
        self._saver.submit(content, facts, required=required)
        self._schedule.saved()

    def notes(self) -> list[str]:
        """Lines for the user since the last call."""
        return self._saver.notes()

    def finish(self, *, hurry: Callable[[], bool], log: Callable[[str], None]) -> None:
        """Wait until everything is written, for as long as `checkpoint.wait_for_storage_s` says.

        `hurry` says whether storage that refuses isn't waited for; `log` takes lines for the user until then.

        Raises:
            StorageError: The last checkpoint can't be written.
        """
        self._saver.finish(self._patience_s, hurry=hurry, log=log)


def _best_gain(store: CheckpointStore, score: ScoreName) -> float:
    known = (checkpoint.facts.score for checkpoint in store.stored())
    return max((score.gain(value) for value in known if value is not None), default=-math.inf)


class CheckpointSchedule:
    """When a checkpoint is due: by steps, by rounds (see `Length`), by time, and always at the end."""

    def __init__(
        self, config: CheckpointConfig, *, total_steps: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._total_steps, self._clock = config, total_steps, clock
        self._saved_at = clock()

    def due_after_step(self, step: int) -> bool:
        """Whether to save after `step` steps in all, inside a round."""
        every_steps, every_minutes = self._config.every_steps, self._config.every_minutes
        by_time = every_minutes is not None and self._clock() - self._saved_at >= 60 * every_minutes
        return by_time or (every_steps is not None and step % every_steps == 0)

    def due_after_round(self, rounds: int, *, step: int) -> bool:
        """Whether to save after so many rounds, `step` steps in all: for the round's sake or for its last step's."""
        every = self._config.every_epochs
        by_round = every is not None and rounds % every == 0
        return step == self._total_steps or by_round or self.due_after_step(step)

    def saved(self) -> None:
        """Begin to count the minutes anew."""
        self._saved_at = self._clock()
