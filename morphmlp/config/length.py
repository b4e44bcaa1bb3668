"""A training's length is in epochs or in optimiser steps, and whatever else is counted goes by the same unit."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morphmlp.config.schema import ExperimentConfig


def length_faults(config: "ExperimentConfig") -> list[str]:
    """Fields that count in the other unit than the training's length, a line each; and what that length lacks."""
    train, optim, execution = config.train, config.optim, config.execution
    stopping, unit, faults = train.early_stopping, train.unit, []
    others = {
        "optim.warmup_epochs": (optim.warmup_epochs, optim.warmup_steps, None),
        "train.early_stopping.epochs": (stopping and stopping.epochs, stopping and stopping.steps, None),
        "execution.validate_every_epochs": (execution.validate_every_epochs, execution.validate_every_steps, 1),
        "checkpoint.every_epochs": (config.checkpoint.every_epochs, None, 1),
    }
    for in_epochs, (epochs, steps, default) in others.items():
        in_steps = in_epochs.removesuffix("epochs") + "steps"
        wrong, value, right = (in_epochs, epochs, in_steps) if unit == "step" else (in_steps, steps, in_epochs)
        if value is not None and value != (default if unit == "step" else None):
            faults.append(f"{wrong}: is {value}; a length in {unit}s (train.{unit}s) takes {right} instead")
    if optim.warmup is None and not any(fault.startswith("optim.warmup_") for fault in faults):
        faults.append(f"optim.warmup_{unit}s: is missing and has no default")
    if unit == "step" and optim.schedule in ("epochs", "deit"):
        faults.append(
            f"optim.schedule: {optim.schedule} changes with epochs; a length in steps (train.steps) takes steps, "
            "cosine or poly"
        )
    if faults:
        return faults
    if optim.warmup is not None and optim.warmup > train.length:
        faults.append(f"optim.warmup_{unit}s: {optim.warmup} is more than train.{unit}s {train.length}")
    every = execution.validate_every_epochs if unit == "epoch" else execution.validate_every_steps
    if stopping is not None and every is not None and stopping.patience < every:
        faults.append(
            f"train.early_stopping.{unit}s: {stopping.patience} is less than execution.validate_every_{unit}s "
            f"{every}: one validation could end the run; wait for at least as many"
        )
    return faults
