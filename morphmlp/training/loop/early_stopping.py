"""Ends a training whose validation no longer improves; part of a checkpoint, so that a resumed run counts on."""

from typing import Any

from morphmlp.config.schema import EarlyStoppingConfig
from morphmlp.tasks.scores import ScoreName

_NOTHING_COUNTED: dict[str, Any] = {"best": None, "best_epoch": 0, "last_epoch": 0}


def nothing_counted(config: EarlyStoppingConfig | None) -> dict[str, Any]:
    """What a checkpoint holds of early stopping before the first score; nothing where it isn't asked for."""
    return {} if config is None else {"early_stopping": dict(_NOTHING_COUNTED)}


class EarlyStopping:
    """Counts the epochs since the best score.

    A score is better than the best if it differs from it by more than `min_delta`. Only a better one replaces the best,
    so that many small steps add up to one. Validation's scores are made of sums over all workers: all decide alike.
    """

    def __init__(self, config: EarlyStoppingConfig, score: ScoreName) -> None:
        self._config, self._score = config, score
        self.best: float | None = None
        """The best score, in its own unit."""
        self.best_epoch = 0
        """Epochs that were done when it came, counted from 1."""
        self.last_epoch = 0
        """Epochs that were done at the last score."""

    @property
    def ended(self) -> bool:
        """Whether training ends here."""
        return self.best is not None and self.last_epoch - self.best_epoch >= self._config.epochs

    @property
    def in_words(self) -> str:
        """Why, for people."""
        return (
            f"no {self._score.title} better than {self.best:.2f} of epoch {self.best_epoch} in the "
            f"{self.last_epoch - self.best_epoch} epochs since (train.early_stopping)"
        )

    def add(self, epoch: int, score: float) -> None:
        """Take in the primary score after so many epochs."""
        self.last_epoch = epoch
        if self.best is None or self._score.gain(score) - self._score.gain(self.best) > self._config.min_delta:
            self.best, self.best_epoch = score, epoch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "best_epoch": self.best_epoch, "last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self.best = state_dict["best"]
        self.best_epoch, self.last_epoch = state_dict["best_epoch"], state_dict["last_epoch"]
