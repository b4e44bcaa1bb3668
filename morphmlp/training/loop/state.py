"""What training carries from step to step, and the content of a checkpoint.

A checkpoint holds the model, its moving average, the optimiser, the loss scale, the cursor into the plan, and the
identity of experiment and data. The schedule's position and the key of every random draw follow from these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import changed_fields, config_to_mapping
from morphmlp.data.stream.plan import Cursor, random_seed
from morphmlp.errors import CheckpointError
from morphmlp.models import MorphMLP
from morphmlp.models.parts import freeze
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.loop.averaged_weights import AveragedWeights
from morphmlp.training.loop.recipe import build_optimizer

Precision = Literal["fp32", "bf16", "fp16"]
_PARTS = ("config", "data_fingerprint", "precision", "epoch", "step", "model", "averaged", "optimizer", "scaler")


@dataclass
class TrainState:
    """A model in training."""

    model: MorphMLP
    averaged: AveragedWeights | None
    """With `train.ema_decay`."""
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    """Scales the loss with fp16, and does nothing otherwise."""
    precision: Precision
    """Arithmetic of the forward pass; weights, gradients and losses are fp32 in any case."""
    cursor: Cursor
    """The next step to take."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint as read back."""

    config: ExperimentConfig
    data_fingerprint: str
    """Fingerprint of the training manifest."""
    precision: Precision
    cursor: Cursor
    model: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    scaler: dict[str, Any]

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those that are validated and tested: averaged ones where the experiment keeps them."""
        return self.model if self.averaged is None else {**self.model, **self.averaged}


def new_state(config: ExperimentConfig, device: torch.device, *, precision: Precision = "fp32") -> TrainState:
    """A fresh model and optimiser, the same for the same seed on every worker.

    Args:
        config: The experiment.
        device: Where to train.
        precision: What `train.precision` means there.
    """
    torch.manual_seed(random_seed(config.train.seed, "init"))
    model = build_network(config).to(device)
    freeze(model, config.train.frozen_parts)
    return TrainState(
        model=model,
        averaged=None if config.train.ema_decay is None else AveragedWeights(model, config.train.ema_decay),
        optimizer=build_optimizer(model, config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        precision=precision,
        cursor=Cursor(),
    )


def build_network(config: ExperimentConfig) -> MorphMLP:
    """The network of an experiment, with fresh weights."""
    return MorphMLP(config.model, num_frames=config.clip.num_frames, crop_size=config.clip.crop_size)


def snapshot(state: TrainState, *, config: ExperimentConfig, data_fingerprint: str) -> dict[str, Any]:
    """The content of a checkpoint: copies on the CPU, which training doesn't change any more."""
    content: dict[str, Any] = _copied(
        {
            "format": FORMAT,
            "config": config_to_mapping(config),
            "data_fingerprint": data_fingerprint,
            "precision": state.precision,
            "epoch": state.cursor.epoch,
            "step": state.cursor.step,
            "model": state.model.state_dict(),
            "averaged": None if state.averaged is None else state.averaged.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
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
    if lacking := [part for part in _PARTS if part not in content]:
        raise CheckpointError(f"is not a whole checkpoint: it lacks {', '.join(lacking)}")
    return Checkpoint(
        config=config_from_mapping(content["config"]),
        cursor=Cursor(epoch=content["epoch"], step=content["step"]),
        **{part: content[part] for part in _PARTS if part not in ("config", "epoch", "step")},
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
    state.model.load_state_dict(checkpoint.model)
    state.optimizer.load_state_dict(checkpoint.optimizer)
    state.scaler.load_state_dict(checkpoint.scaler)
    if state.averaged is not None and checkpoint.averaged is not None:
        state.averaged.load_state_dict(checkpoint.averaged)
    state.cursor = checkpoint.cursor


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value
