"""Where a worker begins: at the run's newest checkpoint, the same one on all workers, or at the beginning."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from morphmlp.config import ExperimentConfig
from morphmlp.errors import StorageError
from morphmlp.line_file import LineFile
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore, StoredCheckpoint
from morphmlp.training.loop.state import TrainState, checkpoint_from, restore
from morphmlp.training.weights.start import start

Value = TypeVar("Value")
READ_AGAIN_S = 10.0
"""Between two tries to read storage that fails, seconds."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Where a worker begins."""

    checkpoint: StoredCheckpoint | None = None
    """Which one it continues from, on the first worker."""
    unrecorded: Sequence[str] = ()
    """Reports that the checkpoint carries, on the first worker (see `Reporter.unrecorded`)."""
    notes: Sequence[str]
    """Lines for the user."""

    @property
    def facts(self) -> CheckpointFacts | None:
        """What is known of that checkpoint."""
        return None if self.checkpoint is None else self.checkpoint.facts


def resume_or_start(
    state: TrainState,
    store: CheckpointStore,
    *,
    config: ExperimentConfig,
    data_fingerprint: str,
    class_names: Sequence[str],
    progress: Path,
    first: bool,
) -> Beginning:
    """Continue from the newest complete checkpoint, the same one on all workers; without one, begin as configured.

    The first worker reads for all; the progress file takes a line while storage is waited for.
    """
    notes: list[str] = []
    found, name = newest_for_all(
        store, notes, patience_s=config.checkpoint.wait_for_storage_s, progress=progress, first=first
    )
    if name is None:
        return Beginning(notes=[*notes, *start(state, config, class_names, data_fingerprint=data_fingerprint)])
    checkpoint = checkpoint_from(found[1] if found is not None else store.read(name))
    restore(state, checkpoint, config=config, data_fingerprint=data_fingerprint)
    notes.append(f"continuing from {name}")
    if found is None:
        return Beginning(notes=notes)
    return Beginning(checkpoint=found[0], unrecorded=checkpoint.unrecorded, notes=notes)


def newest_for_all(
    store: CheckpointStore, notes: list[str], *, patience_s: float, progress: Path, first: bool
) -> tuple[tuple[StoredCheckpoint, dict[str, Any]] | None, str | None]:
    """The newest checkpoint, on the first worker, and its name on all; storage that can't be read is waited for.

    Raises:
        StorageError: It can't be read for longer than `checkpoint.wait_for_storage_s`.
    """
    begun, logged = time.monotonic(), False
    while True:
        found, fault, lines = None, None, list[str]()
        try:
            found = store.newest(lines.append) if first else None
        except StorageError as error:
            if time.monotonic() - begun >= patience_s:
                raise
            fault = str(error)
        name, waits = agreed((None if found is None else found[0].name, fault is not None))
        if not waits:
            notes += lines
            return found, name
        if fault is not None and not logged:
            logged = True
            waiting = f"{fault}; waiting up to {patience_s:.0f} s for it (checkpoint.wait_for_storage_s)"
            LineFile(progress).append(json.dumps({"notes": [waiting]}))
        time.sleep(min(READ_AGAIN_S, patience_s))


def agreed(value: Value) -> Value:
    """The first worker's value, on all workers."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values, src=0)
    return values[0]
