"""What training carries from step to step, and its checkpoint.

A checkpoint is one file, read without running pickled code, and holds the model, the optimiser, the
cursor into the plan, and the identity of experiment and data.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor

from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import changed_fields, config_to_mapping
from morphmlp.data.plan import Cursor, random_seed
from morphmlp.errors import CheckpointError
from morphmlp.models import MorphMLP
from morphmlp.training.recipe import build_optimizer

CHECKPOINT_FILE = "checkpoint.pt"
_FORMAT = "morphmlp-checkpoint-1"


@dataclass
class TrainState:
    """A model in training."""

    model: MorphMLP
    optimizer: torch.optim.AdamW
    cursor: Cursor
    """The next step to take."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint as read back."""

    config: ExperimentConfig
    data_fingerprint: str
    """Fingerprint of the training manifest."""
    cursor: Cursor
    model: dict[str, Tensor]
    optimizer: dict[str, JsonValue]


def new_state(config: ExperimentConfig, device: torch.device) -> TrainState:
    """A fresh model and optimiser, the same for the same seed on every worker."""
    torch.manual_seed(random_seed(config.train.seed, "init"))
    model = build_network(config).to(device)
    return TrainState(model=model, optimizer=build_optimizer(model, config.optim), cursor=Cursor())


def build_network(config: ExperimentConfig) -> MorphMLP:
    """The network of an experiment, with fresh weights."""
    return MorphMLP(config.model, num_frames=config.clip.num_frames, crop_size=config.clip.crop_size)


def save_checkpoint(folder: Path, state: TrainState, *, config: ExperimentConfig, data_fingerprint: str) -> None:
    """Write the state as `folder/checkpoint.pt`."""
    torch.save(
        {
            "format": _FORMAT,
            "config": config_to_mapping(config),
            "data_fingerprint": data_fingerprint,
            "epoch": state.cursor.epoch,
            "step": state.cursor.step,
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
        },
        folder / CHECKPOINT_FILE,
    )


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: There is none, it is torn, or it is something else.
    """
    path = folder / CHECKPOINT_FILE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except Exception as error:  # noqa: BLE001 (the unpickler stumbles over foreign bytes in every way)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: can't be read, torn or not a checkpoint: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is not a checkpoint of this project (no format {_FORMAT!r})")
    if lacking := [
        key for key in ("config", "data_fingerprint", "epoch", "step", "model", "optimizer") if key not in content
    ]:
        raise CheckpointError(f"{path}: is not a whole checkpoint: it lacks {', '.join(lacking)}")
    return Checkpoint(
        config=config_from_mapping(content["config"]),
        data_fingerprint=content["data_fingerprint"],
        cursor=Cursor(epoch=content["epoch"], step=content["step"]),
        model=content["model"],
        optimizer=content["optimizer"],
    )


def restore(state: TrainState, checkpoint: Checkpoint, *, config: ExperimentConfig, data_fingerprint: str) -> None:
    """Continue from a checkpoint of the same experiment on the same data.

    Raises:
        CheckpointError: The checkpoint belongs to another experiment or other data; the differences are named.
    """
    changes = changed_fields(checkpoint.config, config)
    if checkpoint.data_fingerprint != data_fingerprint:
        changes.append(f"training manifest: {checkpoint.data_fingerprint} -> {data_fingerprint}")
    if changes:
        raise CheckpointError(
            "the checkpoint belongs to another experiment; use another --run-name, or undo: " + "; ".join(changes)
        )
    state.model.load_state_dict(checkpoint.model)
    state.optimizer.load_state_dict(checkpoint.optimizer)
    state.cursor = checkpoint.cursor
