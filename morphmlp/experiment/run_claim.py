"""Taking a run's name for an experiment: what its folder and its record hold is compared first and written then.

A refusal comes before Ray starts.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.loading import changed_fields, config_to_yaml, fingerprint
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.environment import environment_tags
from morphmlp.errors import CheckpointError
from morphmlp.experiment.data_splits import SPLIT_TAGS, DataSplits
from morphmlp.files import atomic_write
from morphmlp.record import RunSummary, Tags
from morphmlp.tracking import find_run, ready_store
from morphmlp.training.checkpoint.branching import recover_branch
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.record.run_folder import RunFolder, run_lock
from morphmlp.training.weights.start import start_tag, tensor_account, with_checked_weights


def require_free(config: ExperimentConfig, data: DataSplits, run_name: str) -> None:
    """Make sure, before Ray starts, that a run of this name can be recorded, and begun or continued.

    It claims nothing; a branch that a kill cut short is completed or undone, as by any command that opens the run.

    Raises:
        TrackingError: The record can't be kept.
        CheckpointError: The name belongs to a finished run, another experiment or other data.
        RunInUseError: Another command works on it.
    """
    config = with_checked_weights(with_absolute_paths(config), data.train.class_names)
    uri = ready_store(config.dataset)
    folder = RunFolder(Path(config.cluster.storage) / run_name)
    if folder.root.exists():
        with run_lock(folder):
            _compared(config, data, folder, uri)


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with paths that mean the same to workers, whose working directory may be another."""
    start, storage, clips = config.start_from, config.checkpoint.storage, config.ingest.clip_cache
    if start is not None:
        order = None if start.class_order is None else str(Path(start.class_order).absolute())
        start = replace(start, weights=str(Path(start.weights).absolute()), class_order=order)
    if storage is not None and "://" not in storage:
        storage = str(Path(storage).absolute())
    return replace(
        config,
        data=replace(config.data, **{split: str(Path(path).absolute()) for split, path in asdict(config.data).items()}),
        start_from=start,
        checkpoint=replace(config.checkpoint, storage=storage),
        ingest=replace(config.ingest, clip_cache=None if clips is None else str(Path(clips).absolute())),
        cluster=replace(config.cluster, storage=str(Path(config.cluster.storage).absolute())),
    )


def claim(config: ExperimentConfig, data: DataSplits, folder: RunFolder, uri: str) -> RunSummary | None:
    """Take a run's folder for an experiment; one that holds the same, unfinished experiment is continued.

    What comes back is the run's record so far; None where the store has none.

    Raises:
        CheckpointError: It is a finished run's or another experiment's, or was begun on other data; the differences are
            named, and nothing was written.
    """
    known = _compared(config, data, folder, uri)
    atomic_write(folder.data, json.dumps(data.fingerprints))
    atomic_write(folder.experiment, config_to_yaml(config))
    if config.start_from is not None and not folder.start_weights.exists():
        atomic_write(folder.start_weights, json.dumps(tensor_account(config, data.train.class_names), indent=1))
    return known


def require_same_data(begun: Mapping[str, str], data: DataSplits, paths: Mapping[str, str], where: str) -> None:
    """Refuse to continue with other videos than a run began with.

    `begun` are the fingerprints that are known of its splits, `paths` the manifests of the videos that it would
    continue with.

    Raises:
        CheckpointError: Which splits differ.
    """
    if changes := [
        f"data.{split} {paths[split]} holds {found}, the run began with {begun[split]}"
        for split, found in data.fingerprints.items()
        if split in begun and begun[split] != found
    ]:
        raise CheckpointError(
            f"{where} was begun on other videos ({'; '.join(changes)}); put the former manifests back to continue it, "
            "or choose another name"
        )


def fingerprints_of(tags: Mapping[str, str]) -> dict[str, str]:
    """The data's fingerprints in a record's tags, by split."""
    return {split: tags[tag] for split, tag in SPLIT_TAGS.items() if tag in tags}


def _compared(config: ExperimentConfig, data: DataSplits, folder: RunFolder, uri: str) -> RunSummary | None:
    """The record of the run that a folder holds, once both fit the experiment and its data."""
    recover_branch(folder, run_store(config.checkpoint, folder))
    if not folder.experiment.exists():
        return None
    if changes := changed_fields(load_config(folder.experiment), config):
        raise CheckpointError(
            f"--run-name {folder.root.name}: {folder.root} holds another experiment ({'; '.join(changes)}); "
            "undo the changes to continue it, or choose another name"
        )
    known = find_run(uri, run_name=folder.root.name, experiment=config.dataset)
    if known is not None and known.status == "FINISHED":
        raise CheckpointError(f"--run-name {folder.root.name}: that run is finished; choose another name")
    begun = {} if known is None else fingerprints_of(known.tags)
    if folder.data.exists():
        begun |= json.loads(folder.data.read_text(encoding="utf-8"))
    require_same_data(begun, data, asdict(config.data), f"--run-name {folder.root.name}: {folder.root}")
    return known


def record_tags(config: ExperimentConfig, data: DataSplits) -> dict[str, str]:
    """What the record holds of a run besides its parameters; the workers add what only they know."""
    start = config.start_from
    return {
        **({} if start is None else {Tags.START_FROM: start_tag(start)}),
        **environment_tags(Path(__file__).parent),  # the commit of this code, wherever the command is run
        **data.tags(),
        Tags.BEGUN: datetime.now(UTC).isoformat(timespec="seconds"),
        Tags.EXPERIMENT: config.name,
        Tags.FINGERPRINT: fingerprint(config),
        Tags.DECODER: f"{config.ingest.decoder} {decoder_by_name(config.ingest.decoder).version}",
    }
