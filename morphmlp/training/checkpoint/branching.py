"""A run continues from another run's checkpoint under changed schedule fields.

The run's own folder and store are rewritten, so that the ordinary resume continues from there. The intention is written
down first: after a kill, `recover_branch` either undoes what had begun or completes it.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from morphmlp.config import ExperimentConfig, config_from_mapping, load_config
from morphmlp.config.loading import changed_fields, config_to_mapping, config_to_yaml
from morphmlp.config.sweep import SCHEDULE
from morphmlp.config.values import Unit
from morphmlp.errors import CheckpointError
from morphmlp.files import atomic_write
from morphmlp.training.checkpoint.store import CheckpointStore, StoredCheckpoint
from morphmlp.training.loop.early_stopping import nothing_counted
from morphmlp.training.loop.state import UNRECORDED, Checkpoint, checkpoint_from
from morphmlp.training.record.run_events import RunEvents, read_events
from morphmlp.training.record.run_folder import RunFolder, run_lock


def newest_at(store: CheckpointStore, *, at: int, unit: Unit) -> StoredCheckpoint | None:
    """A run's newest checkpoint of at most so many epochs or steps; None where it has none.

    Raises:
        CheckpointError: The storage can't be listed.
    """
    known = [one for one in store.stored() if (one.facts.epoch if unit == "epoch" else one.facts.step) <= at]
    return known[-1] if known else None


def branch(
    folder: RunFolder,
    store: CheckpointStore,
    *,
    donor: StoredCheckpoint,
    donor_store: CheckpointStore,
    config: ExperimentConfig,
) -> StoredCheckpoint:
    """Let a run that nobody works on continue with a donor's weights, moments and cursor under other schedule fields.

    Whatever the run had learnt itself is given up. Continuing it takes the new configuration from now on.

    The donor is a checkpoint of the same experiment but for schedule fields, on the same data; `config` is the run's
    from now on.

    Raises:
        CheckpointError: The donor's checkpoint is gone or truncated, the experiments differ in other fields, or the
            storage fails; the run is as it was, or `recover_branch` makes it so.
        RunInUseError: A command works on the run.
    """
    with run_lock(folder):
        recover_branch(folder, store)
        own = load_config(folder.experiment)
        content = donor_store.read(donor.name)
        given = checkpoint_from(content)
        _require_schedule_only(own, config, f"{folder.experiment}")
        _require_schedule_only(given.config, config, donor.location)
        _require_same_data(given, store, donor.location)
        changes = "; ".join(changed_fields(given.config, config)) or "nothing changed"
        # Operational fields and paths stay the run's own.
        mapping, sections = config_to_mapping(config), {field.partition(".")[0] for field in SCHEDULE}
        schedule = {section: mapping[section] for section in sections}
        own_new = config_from_mapping({**config_to_mapping(own), **schedule})
        begun = {
            "config": config_to_mapping(own_new),
            "step": donor.facts.step,
            "known": [stored.name for stored in store.stored()],
            "event": f"continues from {donor.location}, step {donor.facts.step}, with {changes}",
        }
        atomic_write(folder.branch, json.dumps(begun))
        try:
            store.save(_under(content, own_new), donor.facts)
        except CheckpointError:
            recover_branch(folder, store)
            raise
        if (recovered := recover_branch(folder, store)) is None:
            raise CheckpointError(f"{store.location}: the checkpoint that was just written is gone")
        return recovered


def recover_branch(folder: RunFolder, store: CheckpointStore) -> StoredCheckpoint | None:
    """Finish a branch that a kill cut short: it is undone where its checkpoint isn't complete, else completed.

    Called with the run's lock held, before experiment or checkpoints are read; without such a branch nothing happens.
    Returns the run's checkpoint where one was completed.

    Raises:
        CheckpointError: The storage fails; the next call tries again.
    """
    if not folder.branch.exists():
        return None
    begun = json.loads(folder.branch.read_text(encoding="utf-8"))
    config = config_from_mapping(begun["config"])
    if (written := _written(store, begun, config)) is not None:
        atomic_write(folder.experiment, config_to_yaml(config))
        faults: list[str] = []
        store.prune(written, keep_last=1, best_by=None, log=faults.append)
        if store.stored() != [written]:  # a later one would be taken for the run's newest
            raise CheckpointError("; ".join(faults) or f"{store.location}: holds other checkpoints than {written.name}")
        events = RunEvents(folder.events)
        if begun["event"] not in [event.text for event in read_events(folder.events)[-1:]]:
            events.add(begun["event"])
    folder.branch.unlink()
    return written


def _written(store: CheckpointStore, begun: Mapping[str, Any], config: ExperimentConfig) -> StoredCheckpoint | None:
    """The branch's checkpoint, if it was written to its end."""
    for stored in store.stored():
        if stored.name in begun["known"] or stored.facts.step != begun["step"]:
            continue
        if not changed_fields(checkpoint_from(store.read(stored.name)).config, config):
            return stored
    return None


def _under(content: Mapping[str, Any], config: ExperimentConfig) -> dict[str, Any]:
    """A checkpoint's content under another schedule; tensors are shared, and early stopping counts from here."""
    optimizer = {**content["optimizer"], "param_groups": copy.deepcopy(content["optimizer"]["param_groups"])}
    for group in optimizer["param_groups"]:
        if group["kind"] == "decayed":
            group["weight_decay"] = config.optim.weight_decay
    count = nothing_counted(config.train.early_stopping)
    own = {UNRECORDED: list[str](), "config": config_to_mapping(config)}  # the donor's reports are of its own record
    return {**content, **own, "optimizer": optimizer, **count}


def _require_schedule_only(old: ExperimentConfig, new: ExperimentConfig, where: str) -> None:
    others = [line for line in changed_fields(old, new) if line.partition(":")[0] not in SCHEDULE]
    if others:
        raise CheckpointError(
            f"{where}: a run can continue with other values of {', '.join(SCHEDULE)} only; undo: {'; '.join(others)}"
        )


def _require_same_data(given: Checkpoint, store: CheckpointStore, where: str) -> None:
    """Compare with the run's own newest checkpoint; a run that has none finds out when it is continued."""
    try:
        found = store.newest(lambda line: None)
    except CheckpointError:
        return
    if found is None:
        return
    own = checkpoint_from(found[1])
    if (own.data_fingerprint, own.precision) != (given.data_fingerprint, given.precision):
        raise CheckpointError(
            f"{where}: trained on {given.data_fingerprint} in {given.precision}, the run itself on "
            f"{own.data_fingerprint} in {own.precision}; choose a donor that is alike"
        )
