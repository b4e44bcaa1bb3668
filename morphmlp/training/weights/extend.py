"""Carries out `start_from.training_state`: another run's whole training state, continued under a longer schedule."""

from dataclasses import replace
from pathlib import Path

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import changed_fields
from morphmlp.config.sweep import SCHEDULE
from morphmlp.errors import CheckpointError, ConfigError
from morphmlp.training.checkpoint.content import load_values
from morphmlp.training.loop.recipe import learning_rate
from morphmlp.training.loop.state import Checkpoint, TrainState, checkpoint_from, restore

_MAY_DIFFER = (*SCHEDULE, "optim.warmup_epochs", "train.epochs", "train.max_steps", "train.early_stopping")
"""Fields of a run that extends another one; besides these, how it is tested, and what it started from itself."""


def extended_training(config: ExperimentConfig) -> Checkpoint:
    """The checkpoint that `start_from` names, once it fits the experiment.

    Raises:
        ConfigError: It isn't a checkpoint, is of another experiment, or has no epochs left under the new length.
    """
    checkpoint = _read(config)
    faults = [
        line
        for line in changed_fields(checkpoint.config, config)
        if line.partition(":")[0] not in _MAY_DIFFER and not line.startswith(("test.", "start_from"))
    ]
    if faults:
        raise ConfigError(
            [
                "start_from.training_state: continues the same experiment with another length, schedule or test only; "
                f"undo: {'; '.join(faults)}"
            ]
        )
    if checkpoint.cursor.epoch >= config.train.epochs:
        raise ConfigError(
            [
                f"train.epochs: {config.train.epochs} epochs, of which {checkpoint.cursor.epoch} are done in "
                f"{_start_of(config)[0]}; set more to extend it"
            ]
        )
    return checkpoint


def extend_training(state: TrainState, config: ExperimentConfig, *, data_fingerprint: str) -> list[str]:
    """Put the whole training state of `start_from` into a fresh one; returns lines for the user.

    Raises:
        ConfigError: As `extended_training`.
        CheckpointError: It was trained on other videos, or in another arithmetic.
    """
    checkpoint = extended_training(config)
    # Early stopping counts from here: the other run may have ended by it.
    count = {} if state.early_stopping is None else {"early_stopping": state.early_stopping.state_dict()}
    continued = replace(checkpoint, config=config, parts={**checkpoint.parts, **count})
    restore(state, continued, config=config, data_fingerprint=data_fingerprint)
    for group in state.optimizer.param_groups:
        if group["kind"] == "decayed":
            group["weight_decay"] = config.optim.weight_decay
    begun, done = checkpoint.config, checkpoint.cursor
    before = learning_rate(done.epoch, epochs=begun.train.epochs, optim=begun.optim)
    after = learning_rate(done.epoch, epochs=config.train.epochs, optim=config.optim)
    within = f" and {done.step} steps" if done.step else ""
    return [
        f"start_from: continues {_start_of(config)[1]} after {done.epoch} epochs{within}, up to {config.train.epochs}; "
        f"the learning rate there was {before:.2e} of {begun.train.epochs} epochs and is {after:.2e} now"
    ]


def _start_of(config: ExperimentConfig) -> tuple[str, str]:
    """The file that `start_from` names, and in few words."""
    path = "" if config.start_from is None else config.start_from.weights
    return path, run_and_step(path)


def run_and_step(path: str) -> str:
    """`my-first/step-00000123-1a2b3c4d` of a run's checkpoint; the name of any other file."""
    place = Path(path)
    if place.parent.parent.name == "checkpoints":
        return f"{place.parents[2].name}/{place.parent.name}"
    return place.name


def _read(config: ExperimentConfig) -> Checkpoint:
    path, _ = _start_of(config)
    try:
        with Path(path).open("rb") as file:
            content = load_values(file)
        return checkpoint_from(content if isinstance(content, dict) else {})
    except OSError as error:
        raise ConfigError([f"start_from.weights: {path}: can't be read: {error.strerror}"]) from None
    except CheckpointError as error:
        raise ConfigError([f"start_from.training_state: {path}: {error}"]) from None
