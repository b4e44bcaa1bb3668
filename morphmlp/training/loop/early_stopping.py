"""Ends a training whose validation no longer improves; part of a checkpoint, so that a resumed run counts on."""

from typing import Any

from morphmlp.config.schema import EarlyStoppingConfig
from morphmlp.tasks.scores import ScoreName

_NOTHING_COUNTED: dict[str, Any] = {"best": None, "best_epoch": 0, "last_epoch": 0}


def nothing_counted(config: EarlyStoppingConfig | None) -> dict[str, Any]:
    """What a checkpoint holds of early stopping before the first score; nothing where it isn't asked for."""
    return {} if config is None else {"early_stopping": dict(_NOTHING_COUNTED)}


class EarlyStopping:
    """Counts the epochs, or where the length is in steps the steps, since the best score.

    A score is better than the best if it differs from it by more than `min_delta`. Only a better one replaces the best,
    so that many small steps add up to one. Validation's scores are made of sums over all workers: all decide alike.
    """

    def __init__(self, config: EarlyStoppingConfig, score: ScoreName) -> None:
        self._config, self._score = config, score
        self.best: float | None = None
        """The best score, in its own unit."""
        self.best_at = 0
        """Epochs or steps that were done when it came."""
        self.last_at = 0
        """Those that were done at the last score."""

    @property
    def ended(self) -> bool:
        """Whether training ends here."""
        return self.best is not None and self.last_at - self.best_at >= self._config.patience

    @property
    def in_words(self) -> str:
        """Why, for people."""
        unit = "epoch" if self._config.steps is None else "step"
        return (
            f"no {self._score.title} better than {self.best:.2f} of {unit} {self.best_at} in the "
            f"{self.last_at - self.best_at} {unit}s since (train.early_stopping)"
        )

    def add(self, at: int, score: float) -> None:
        """Take in the primary score after so many epochs or steps."""
        self.last_at = at
        if self.best is None or self._score.gain(score) - self._score.gain(self.best) > self._config.min_delta:
            self.best, self.best_at = score, at

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "best_epoch": self.best_at, "last_epoch": self.last_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self.best = state_dict["best"]
        self.best_at, self.last_at = state_dict["best_epoch"], state_dict["last_epoch"]
