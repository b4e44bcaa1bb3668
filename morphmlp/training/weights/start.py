"""Carries out `start_from`: reads the file, checks that it fits the experiment, puts its weights into the network.

With `training_state` it is another run's whole training state, continued under a longer schedule. Whatever doesn't fit
is a ConfigError; `with_checked_weights` finds it before anything starts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import changed_fields
from morphmlp.config.start import StartConfig
from morphmlp.config.sweep import SCHEDULE
from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.stream.plan import TrainPlan
from morphmlp.errors import CheckpointError, ConfigError, MorphMLPError
from morphmlp.models.network import Network
from morphmlp.models.weights.describe import describe_model, expected_state
from morphmlp.models.weights.fit import FittedWeights, class_rows, fit_weights
from morphmlp.training.checkpoint.content import load_values
from morphmlp.training.loop.early_stopping import nothing_counted
from morphmlp.training.loop.length import Length
from morphmlp.training.loop.recipe import learning_rate
from morphmlp.training.loop.state import Checkpoint, TrainState, checkpoint_from, restore
from morphmlp.training.weights.file import WeightsFile, read_weights

_KINETICS_CLASSES, _SOMETHING_CLASSES = 400, 174
"""A released file doesn't name its data set; the number of rows of its head does."""
_MAY_DIFFER = (
    *SCHEDULE,
    *("optim.schedule", "optim.power", "optim.warmup_epochs", "optim.warmup_steps"),
    *("train.epochs", "train.steps", "train.max_steps"),
)
_SECTIONS_MAY_DIFFER = ("test", "start_from", "train.early_stopping")
"""Fields and sections of a run that extends another one."""


def with_checked_weights(config: ExperimentConfig, class_names: Sequence[str]) -> ExperimentConfig:
    """The experiment with its starting weights named by content and by absolute paths; nothing to do without any.

    Everything that can be wrong with them is found here, before anything starts. Class names are those of the
    manifest, in label order.

    Raises:
        ConfigError: The weights can't be read or don't fit, or a file isn't the one whose SHA-256 is given.
    """
    if (start := config.start_from) is None:
        return config
    file, _ = _fitted(start, config, class_names)
    if start.training_state:
        _extended_training(config)
    order = None if start.class_order is None else Path(start.class_order).absolute()
    named = replace(
        start,
        weights=str(file.path.absolute()),
        sha256=file.sha256,
        class_order=None if order is None else str(order),
        class_order_sha256=None if order is None else _sha256(order),
    )
    return replace(config, start_from=named)


def start(
    state: TrainState, config: ExperimentConfig, class_names: Sequence[str], *, data_fingerprint: str
) -> list[str]:
    """Begin a training with the weights or the whole state that its experiment names; returns lines for the user.

    Raises:
        CheckpointError: The training state is of other videos, or of another arithmetic.
    """
    if config.start_from is not None and config.start_from.training_state:
        return _extend_training(state, config, data_fingerprint=data_fingerprint)
    notes = apply_start_weights(state.model, config, class_names)
    if state.averaged is not None:
        state.averaged.restart()
    return notes


def apply_start_weights(model: Network, config: ExperimentConfig, class_names: Sequence[str]) -> list[str]:
    """Put the weights of `start_from` into a network with fresh ones; returns lines for the user, none without any."""
    if config.start_from is None:
        return []
    file, fitted = _fitted(config.start_from, config, class_names)
    # Fresh tensors stay as they are; names were compared with those of `config.model`, which a task may not follow.
    if unknown := model.load_state_dict(fitted.state, strict=False).unexpected_keys:
        raise ConfigError([f"start_from.weights: the task's network has no {', '.join(unknown)}"])
    counts = {what: len(names) for what, names in _account(model.state_dict(), file, fitted).items()}
    account = f"tensors: {counts['taken']} taken, {counts['fresh']} fresh, {counts['left']} of the file left"
    return [f"start_from: {line}" for line in (file.in_words, *fitted.notes, *_remarks(file, config), account)]


def tensor_account(config: ExperimentConfig, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Every tensor of the network and of the file, by what becomes of it: `taken`, `fresh`, or `left` in the file."""
    if config.start_from is None:
        return {"taken": [], "fresh": [], "left": []}
    file, fitted = _fitted(config.start_from, config, class_names)
    return _account(_network_of(config), file, fitted)


def _account(network: Mapping[str, Tensor], file: WeightsFile, fitted: FittedWeights) -> dict[str, list[str]]:
    return {
        "taken": [name for name in network if name in fitted.state],
        "fresh": [name for name in network if name not in fitted.state],
        "left": [name for name in file.state if name not in fitted.state],
    }


def _fitted(
    start: StartConfig, config: ExperimentConfig, class_names: Sequence[str]
) -> tuple[WeightsFile, FittedWeights]:
    """The file, and its tensors as the experiment's network takes them."""
    try:
        file = read_weights(start.weights)
    except MorphMLPError as error:
        raise ConfigError([f"start_from.weights: {line}" for line in str(error).splitlines()]) from None
    if start.sha256 not in (None, file.sha256):
        raise ConfigError([f"start_from.sha256: {start.weights} has {file.sha256}, not {start.sha256}"])
    head_rows = None if start.class_order is None else _head_rows(start, class_names)
    try:
        fitted = fit_weights(
            file.state,
            _network_of(config),
            file=file.description,
            asked=describe_model(
                config.model,
                num_frames=config.clip.num_frames,
                crop_size=config.clip.crop_size,
                segmentation=config.segmentation,
            ),
            start=start,
            head_rows=head_rows,
        )
    except ConfigError as error:
        raise ConfigError([f"start_from.weights: {start.weights}: {line}" for line in error.faults]) from None
    return file, fitted


def _network_of(config: ExperimentConfig) -> dict[str, Tensor]:
    clip = config.clip
    return expected_state(
        config.model, num_frames=clip.num_frames, crop_size=clip.crop_size, segmentation=config.segmentation
    )


def _head_rows(start: StartConfig, class_names: Sequence[str]) -> list[int]:
    path = Path(str(start.class_order))
    where = f"start_from.class_order: {path}"
    try:
        order = read_class_list(path)
    except MorphMLPError as error:
        raise ConfigError([f"start_from.class_order: {line}" for line in str(error).splitlines()]) from None
    if start.class_order_sha256 not in (None, found := _sha256(path)):
        raise ConfigError([f"start_from.class_order_sha256: {path} has {found}, not {start.class_order_sha256}"])
    return class_rows(order, class_names, where=where)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remarks(file: WeightsFile, config: ExperimentConfig) -> list[str]:
    """What can't be seen in released files, and is easily overlooked."""
    start, classes = config.start_from, file.description.num_classes
    if start is None or file.container == "checkpoint" or classes != config.model.num_classes:
        return []
    if classes == _KINETICS_CLASSES and start.class_order is None and not start.replace_head:
        return ["released Kinetics heads have a class order of their own: start_from.class_order names it"]
    if classes == _SOMETHING_CLASSES and config.clip.channel_order == "rgb" and not start.reverse_channels:
        return ["released Something-Something weights expect BGR: start_from.reverse_channels or clip.channel_order"]
    return []


def start_tag(start_from: StartConfig) -> str:
    """How a run's record names the weights it started from, and what was done to them."""
    options = {
        f"inflate={start_from.inflate}": start_from.inflate is not None,
        "replace_head": start_from.replace_head,
        "carry=fitting": start_from.carry == "fitting",
        "class_order": start_from.class_order is not None,
        "reverse_channels": start_from.reverse_channels,
        "training_state": start_from.training_state,
    }
    used = [name for name, on in options.items() if on]
    return " ".join([_run_and_step(start_from.weights), f"sha256:{str(start_from.sha256)[:12]}", *used])


def _extended_training(config: ExperimentConfig) -> Checkpoint:
    """The checkpoint that `start_from` names: of the same experiment, with something left to train."""
    path = _path_of(config)
    try:
        with Path(path).open("rb") as file:
            content = load_values(file)
        checkpoint = checkpoint_from(content if isinstance(content, dict) else {})
    except OSError as error:
        raise ConfigError([f"start_from.weights: {path}: can't be read: {error.strerror}"]) from None
    except CheckpointError as error:
        raise ConfigError([f"start_from.training_state: {path}: {error}"]) from None
    if faults := [
        line
        for line in changed_fields(checkpoint.config, config)
        if line.partition(":")[0] not in _MAY_DIFFER and not line.startswith(_SECTIONS_MAY_DIFFER)
    ]:
        raise ConfigError(
            [
                "start_from.training_state: continues the same experiment with another length, schedule or test only; "
                f"undo: {'; '.join(faults)}"
            ]
        )
    done, limit, unit, whole = checkpoint.steps, config.train.max_steps, config.train.unit, config.train.length
    if (begun := done if unit == "step" else checkpoint.cursor.epoch) >= whole:
        faults.append(f"train.{unit}s: {whole} {unit}s, of which {begun} are done in {path}; set more to extend it")
    if limit is not None and done >= limit:
        faults.append(
            f"train.max_steps: {limit} steps, and {done} are done in {path}; set more to extend it, or null for all "
            f"{whole} {unit}s"
        )
    if faults:
        raise ConfigError(faults)
    return checkpoint


def _extend_training(state: TrainState, config: ExperimentConfig, *, data_fingerprint: str) -> list[str]:
    """Put the whole training state of `start_from` into a fresh one; returns lines for the user."""
    checkpoint = _extended_training(config)
    # The other run may have ended by it.
    count = nothing_counted(config.train.early_stopping)
    continued = replace(checkpoint, config=config, parts={**checkpoint.parts, **count})
    restore(state, continued, config=config, data_fingerprint=data_fingerprint)
    for group in state.optimizer.param_groups:
        if group["kind"] == "decayed":
            group["weight_decay"] = config.optim.weight_decay
    begun, done, which = checkpoint.config, checkpoint.cursor, _run_and_step(_path_of(config))
    plan = TrainPlan.of(config.train, num_videos=int(data_fingerprint.partition(":")[0]))
    before, after = (_rate_at(one, plan, checkpoint.steps) for one in (begun, config))
    if config.train.unit == "step":
        place = f"{checkpoint.steps} steps"
    else:
        place = f"{done.epoch} epochs" + (f" and {done.step} steps" if done.step else "")
    up_to = f"{config.train.length}" + ("" if begun.train.unit == config.train.unit else f" {config.train.unit}s")
    return [
        f"start_from: continues {which} after {place}, up to {up_to}; the learning rate there was {before:.2e} of "
        f"{begun.train.length} {begun.train.unit}s and is {after:.2e} now"
    ]


def _rate_at(config: ExperimentConfig, plan: TrainPlan, step: int) -> float:
    length = Length.of(config, steps_per_epoch=plan.steps_per_epoch)
    return learning_rate(length.position(step), whole=length.whole, optim=config.optim)


def _path_of(config: ExperimentConfig) -> str:
    return "" if config.start_from is None else config.start_from.weights


def _run_and_step(path: str) -> str:
    """`my-first/step-00000123-1a2b3c4d` of a run's checkpoint; the name of any other file."""
    place = Path(path)
    if place.parent.parent.name == "checkpoints":
        return f"{place.parents[2].name}/{place.parent.name}"
    return place.name
