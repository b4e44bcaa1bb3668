"""What training carries from step to step, and the content of a checkpoint.

A checkpoint holds the model, its moving average, the optimiser, the loss scale, the cursor into the plan, and the
identity of experiment and data. The schedule's position and the key of every random draw follow from these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import changed_fields, config_to_mapping
from morphmlp.config.schema import OptimConfig, TrainConfig
from morphmlp.data.stream.plan import Cursor, TrainPlan, random_seed
from morphmlp.errors import CheckpointError
from morphmlp.models.network import Network
from morphmlp.models.parts import freeze
from morphmlp.tasks.task import Task
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.loop.averaged_weights import AveragedWeights
from morphmlp.training.loop.early_stopping import EarlyStopping
from morphmlp.training.loop.recipe import build_optimizer

Precision = Literal["fp32", "bf16", "fp16"]
_IDENTITY = ("format", "config", "data_fingerprint", "precision", "epoch", "step")
"""Of a checkpoint's content what isn't a registered part of the state."""
UNRECORDED = "unrecorded"
"""And what checkpoints of an older version lack: see `Checkpoint.unrecorded`."""


class Stateful(Protocol):
    """A part of the training state that is saved and resumed."""

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to resume."""

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Resume from there."""


@dataclass
class TrainState:
    """A model in training."""

    model: Network
    averaged: AveragedWeights | None
    """With `train.ema_decay`."""
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    """Scales the loss with fp16, and does nothing otherwise."""
    precision: Precision
    """Arithmetic of the forward pass; weights, gradients and losses are fp32 in any case."""
    cursor: Cursor
    """The next step to take."""
    early_stopping: EarlyStopping | None = None
    """With `train.early_stopping`."""

    def parts(self) -> dict[str, Stateful]:
        """All that a checkpoint holds of it, by name: new state is registered here, and nowhere else."""
        parts: dict[str, Stateful | None] = {
            "model": self.model,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "early_stopping": self.early_stopping,
        }
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint as read back."""

    config: ExperimentConfig
    data_fingerprint: str
    """Fingerprint of the training manifest."""
    precision: Precision
    cursor: Cursor
    parts: Mapping[str, Any]
    """State dicts by the names of `TrainState.parts`."""
    unrecorded: Sequence[str] = ()
    """Reports, as JSON, of steps up to here that the record may lack (see `Reporter.unrecorded`)."""

    @property
    def model(self) -> dict[str, Tensor]:
        """The model's state dict."""
        model: dict[str, Tensor] = self.parts["model"]
        return model

    @property
    def steps(self) -> int:
        """Optimiser steps taken, over all epochs; the fingerprint begins with the number of training videos."""
        num_videos = int(self.data_fingerprint.partition(":")[0])
        return TrainPlan.of(self.config.train, num_videos=num_videos).step_of(self.cursor)

    @property
    def averaged(self) -> dict[str, Tensor] | None:
        """The averaged parameters; None where the experiment keeps none."""
        return self.parts.get("averaged")

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those that are validated and tested: averaged ones where the experiment keeps and scores them."""
        averaged = self.averaged if self.config.test.weights == "averaged" else None
        return {**self.model, **(averaged or {})}


def new_state(
    task: Task, *, train: TrainConfig, optim: OptimConfig, device: torch.device, precision: Precision = "fp32"
) -> TrainState:
    """A fresh model and optimiser, the same for the same seed on every worker.

    The precision is what `train.precision` means on the device.
    """
    torch.manual_seed(random_seed(train.seed, "init"))
    model = task.network().to(device)
    freeze(model, train.frozen_parts)
    return TrainState(
        model=model,
        averaged=None if train.ema_decay is None else AveragedWeights(model, train.ema_decay),
        optimizer=build_optimizer(model, optim),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        precision=precision,
        cursor=Cursor(),
        early_stopping=None if train.early_stopping is None else EarlyStopping(train.early_stopping, task.scores[0]),
    )


def snapshot(
    state: TrainState, *, config: ExperimentConfig, data_fingerprint: str, unrecorded: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of a checkpoint: copies on the CPU, which training doesn't change any more.

    `unrecorded` are reports of what led to this state, see `Checkpoint`.
    """
    content: dict[str, Any] = _copied(
        {
            "format": FORMAT,
            "config": config_to_mapping(config),
            "data_fingerprint": data_fingerprint,
            "precision": state.precision,
            "epoch": state.cursor.epoch,
            "step": state.cursor.step,
            UNRECORDED: list(unrecorded),
            **{name: part.state_dict() for name, part in state.parts().items()},
        }
    )
    return content


def checkpoint_from(content: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint's content as it was read.

    Raises:
        CheckpointError: It is something else, or not all of it.
    """
    if content.get("format") != FORMAT:
        raise CheckpointError(f"is not a checkpoint of this project (no format {FORMAT!r})")
    if lacking := [name for name in (*_IDENTITY, "model", "optimizer") if name not in content]:
        raise CheckpointError(f"is not a complete checkpoint: it lacks {', '.join(lacking)}")
    return Checkpoint(
        config=config_from_mapping(content["config"]),
        data_fingerprint=content["data_fingerprint"],
        precision=content["precision"],
        cursor=Cursor(epoch=content["epoch"], step=content["step"]),
        parts={name: part for name, part in content.items() if name not in (*_IDENTITY, UNRECORDED)},
        unrecorded=content.get(UNRECORDED, ()),
    )


def restore(state: TrainState, checkpoint: Checkpoint, *, config: ExperimentConfig, data_fingerprint: str) -> None:
    """Continue from a checkpoint of the same experiment on the same data.

    Raises:
        CheckpointError: The checkpoint belongs to another experiment or other data; the differences are named.
    """
    changes = changed_fields(checkpoint.config, config)
    if checkpoint.data_fingerprint != data_fingerprint:
        changes.append(f"training manifest: {checkpoint.data_fingerprint} -> {data_fingerprint}")
    if checkpoint.precision != state.precision:
        changes.append(f"arithmetic (train.precision): {checkpoint.precision} -> {state.precision}")
    if changes:
        raise CheckpointError(
            "the checkpoint belongs to another experiment; use another --run-name, or undo: " + "; ".join(changes)
        )
    parts = state.parts()
    if lacking := [name for name in parts if name not in checkpoint.parts]:
        raise CheckpointError(f"is not a complete checkpoint: it lacks {', '.join(lacking)}")
    for name, part in parts.items():
        part.load_state_dict(checkpoint.parts[name])
    state.cursor = checkpoint.cursor


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value
