"""What `--checkpoint` of an evaluation names: a file of weights, a checkpoint's folder, or a run; and what it holds.

Whatever doesn't fit is found before Ray starts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.start import StartConfig
from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.errors import CheckpointError, ConfigError, StoreAwayError, TrackingError
from morphmlp.models.weights.describe import (
    WeightsDescription,
    compare_keys,
    describe_model,
    differences,
    expected_state,
)
from morphmlp.models.weights.fit import class_rows, fit_weights
from morphmlp.record import RunSummary, Tags
from morphmlp.tasks.scores import primary_score
from morphmlp.tracking import tracking_uri, without_login
from morphmlp.training.checkpoint.saving import checkpoint_to_test
from morphmlp.training.checkpoint.store import CONTENT_FILE
from morphmlp.training.record.run_folder import RunFolder, lock_holder_gone
from morphmlp.training.weights.file import WeightsFile, read_weights, weights_of_checkpoint

_RUN_ID = re.compile("[0-9a-f]{32}")
_RUNS = "runs"
"""Folder of runs by name where nothing else is said."""
OPTION = "--checkpoint"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the weights are."""

    file: Path | None
    """A file of weights; None: the checkpoint that the run tests."""
    folder: RunFolder | None
    """The run that wrote them; None where that isn't known."""
    name: str
    """The run's name, or the file's without its ending."""


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """Weights as they were found, and what is known of their run."""

    file: WeightsFile
    location: str
    which: str
    """Which checkpoint it is, in words."""
    run: RunSummary | None
    """The record of the run that trained them; None where none is known."""


def find_source(named: str, *, config: str | None, overrides: Mapping[str, JsonValue]) -> Source:
    """The weights that a file, a checkpoint's or a run's folder, a run's name or its MLflow id names.

    Runs are looked for by name in the `cluster.storage` of the experiment file `config` and the overrides.

    Raises:
        ConfigError: It names nothing, or the file can't be used.
        TrackingError: The record can't be reached.
    """
    if config is None:
        storage = str(overrides.get("cluster.storage") or _RUNS)
    else:
        storage = load_config(config, overrides).cluster.storage
    path = Path(named)
    if path.is_dir() and (path / CONTENT_FILE).is_file():
        path = path / CONTENT_FILE
    if path.is_file():
        return _of_file(path.absolute())
    for place in (path, Path(storage) / named):
        if (folder := RunFolder(place.absolute())).experiment.is_file():
            return Source(file=None, folder=folder, name=folder.root.name)
    if path.is_dir():
        raise ConfigError(
            [f"{OPTION}: {path}: holds no {CONTENT_FILE}, as a checkpoint does, and no experiment.yaml, as a run does"]
        )
    return _recorded(named, storage)


def _of_file(path: Path) -> Source:
    folder = None
    if path.name == CONTENT_FILE and path.parent.parent.name == "checkpoints":
        folder = RunFolder(path.parents[2])
        folder = folder if folder.experiment.is_file() else None
    return Source(file=path, folder=folder, name=path.stem if folder is None else folder.root.name)


def _recorded(named: str, storage: str) -> Source:
    """A run that only the record knows by this id or name: its folder is where its parameters say."""
    # Seconds that a path to weights needn't wait.
    from morphmlp.tracking import find_run, prepare_store, read_run  # noqa: PLC0415
    from morphmlp.tracking.store import require_answer  # noqa: PLC0415

    uri, run = tracking_uri(), None
    if require_answer(uri):
        prepare_store(uri)
        try:
            run = read_run(uri, named) if _RUN_ID.fullmatch(named) else find_run(uri, run_name=named)
        except StoreAwayError:
            raise
        except TrackingError:
            run = None
    if run is None:
        raise ConfigError(
            [
                f"{OPTION}: {named}: no such file, folder or run; runs are looked for in {storage} and, by name or id, "
                f"in the record {without_login(uri)}"
            ]
        )
    if (of := run.tags.get(Tags.EVALUATES)) is not None:
        raise ConfigError([f"{OPTION}: {named}: is itself an evaluation, of {of or 'a file of weights'}; name that"])
    place = Path(run.params.get("cluster.storage", storage)) / run.run_name
    if not (folder := RunFolder(place)).experiment.is_file():
        raise ConfigError(
            [f"{OPTION}: {named}: the record says that this run is in {place}; no experiment.yaml is there"]
        )
    return Source(file=None, folder=folder, name=run.run_name)


def config_of(source: Source, path: str | None, overrides: Mapping[str, JsonValue]) -> ExperimentConfig:
    """The experiment file that is named, else the run's own, with overrides.

    Raises:
        ConfigError: There is neither, or whatever is wrong with it.
    """
    if path is not None:
        return load_config(path, overrides)
    if source.folder is None:
        raise ConfigError([f"--config FILE: is missing; {source.file} doesn't say what to test it on"])
    return load_config(source.folder.experiment, overrides)


def find_weights(
    source: Source, config: ExperimentConfig, log: Callable[[str], None], *, with_record: bool = True
) -> FoundWeights:
    """Read the weights; of a run those that it tests itself, or that `test.checkpoint` and `test.weights` name.

    `with_record`: look the run up in the record, too, which takes seconds.

    Raises:
        CheckpointError: There is no checkpoint, or it can't be read.
    """
    averaged = config.test.weights == "averaged"
    run = _record_of(source) if with_record else None
    if source.file is not None:
        file = read_weights(source.file, averaged=averaged)
        return FoundWeights(file=file, location=str(source.file), which=f"weights {source.file.name}", run=run)
    assert source.folder is not None
    its_own = load_config(source.folder.experiment)
    asked = replace(its_own, test=replace(its_own.test, checkpoint=config.test.checkpoint))
    stored, content, which = checkpoint_to_test(asked, source.folder, primary_score(its_own.task), log)
    place = Path(stored.location) / CONTENT_FILE
    file = weights_of_checkpoint(content, place, sha256=stored.sha256, averaged=averaged)
    return FoundWeights(file=file, location=stored.location, which=which, run=run)


def _record_of(source: Source) -> RunSummary | None:
    if source.folder is None:
        return None
    from morphmlp.tracking import find_run, ready_store  # noqa: PLC0415 (seconds)

    dataset = load_config(source.folder.experiment).dataset
    return find_run(ready_store(dataset), run_name=source.name, experiment=dataset)


def require_same_network(found: FoundWeights, config: ExperimentConfig) -> None:
    """Refuse weights of another network, before anything else that the experiment needs is looked for.

    Raises:
        ConfigError: They are of another network, task or number of classes or frames.
    """
    _start_of(found, config)


def fitted_weights(
    found: FoundWeights, config: ExperimentConfig, class_names: Sequence[str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """All tensors of the experiment's network, and lines on what was done to them.

    Of weights that another program trained, `start_from.class_order`, `reverse_channels` and `inflate` say how they are
    to be taken.

    Raises:
        ConfigError: They are of another network, task or number of classes or frames.
    """
    file, where, clip = found.file, f"{OPTION}: {found.location}", config.clip
    start, asked = _start_of(found, config)
    rows = None
    if start.class_order is not None:
        path = Path(start.class_order)
        rows = class_rows(read_class_list(path), class_names, where=f"start_from.class_order: {path}")
    expected = expected_state(
        config.model, num_frames=clip.num_frames, crop_size=clip.crop_size, segmentation=config.segmentation
    )
    try:
        fitted = fit_weights(file.state, expected, file=file.description, asked=asked, start=start, head_rows=rows)
    except ConfigError as error:
        raise ConfigError([f"{where}: {line}" for line in error.faults]) from None
    report = compare_keys(fitted.state, expected)
    if not report.clean:  # with `inflate` temporal layers would be fresh ones
        raise ConfigError([f"{where}: {report.in_words}; nothing is tested with fresh weights"])
    # What `compare_keys` leaves out are BatchNorm's counters, which no test reads.
    counters = {name for name in expected if name not in fitted.state}
    zeros = {name: torch.zeros_like(expected[name], device="cpu") for name in counters}
    return {**fitted.state, **zeros}, fitted.notes


def _start_of(found: FoundWeights, config: ExperimentConfig) -> tuple[StartConfig, WeightsDescription]:
    """How the weights are to be taken, and the network that the experiment asks for."""
    file, where = found.file, f"{OPTION}: {found.location}"
    clip, options = config.clip, config.start_from if file.container != "checkpoint" else None
    asked = describe_model(
        config.model, num_frames=clip.num_frames, crop_size=clip.crop_size, segmentation=config.segmentation
    )
    start = StartConfig(weights=str(file.path))
    if options is not None:
        start = replace(
            start,
            inflate=options.inflate if file.description.kind == "image" else None,
            class_order=options.class_order,
            reverse_channels=options.reverse_channels,
        )
    faults = differences(file.description, asked)
    heads = [each.decoder or "a classifier" for each in (file.description, asked)]
    if heads[0] != heads[1]:
        faults.append(" against ".join(heads))
    elif file.description.num_classes != asked.num_classes:
        faults.append(f"classes {file.description.num_classes or 'none'} against {asked.num_classes}")
    if file.description.kind != asked.kind and start.inflate is None:
        faults.append(f"{file.description.kind} against {asked.kind}")
    if faults:
        raise ConfigError(
            [f"{where}: it is {file.description.in_words}; --config has {asked.in_words}: {'; '.join(faults)}"]
        )
    return start, asked


def require_finished(source: Source, found: FoundWeights) -> None:
    """Refuse a run that still trains: its checkpoint changes under the test.

    One that was killed is running by its record for ever; that nobody holds its lock says that it isn't.

    Raises:
        CheckpointError: It isn't at its end.
    """
    if source.file is not None or found.run is None or found.run.status != "RUNNING":
        return
    if source.folder is None or lock_holder_gone(source.folder) is None:
        raise CheckpointError(
            f"{OPTION}: {source.name}: this run is still at work by its record; wait for its end, or name one of its "
            f"checkpoints, such as {found.location}"
        )
