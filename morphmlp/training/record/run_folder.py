"""The files that a run keeps next to its checkpoints, under `<cluster.storage>/<run name>/`."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphmlp.errors import RunInUseError
from morphmlp.files import FilePath

_GLANCE_S = 0.05
"""`lock_holder_gone` has a lock for less time than this."""


@contextmanager
def run_lock(folder: "RunFolder") -> Iterator[None]:
    """Keep other commands off a run while this one works on it; the operating system ends the lock with the process.

    Raises:
        RunInUseError: Another command works on it.
    """
    with folder.lock.open("a+", encoding="utf-8") as file:
        for final in (False, True):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not final:
                    time.sleep(_GLANCE_S)
                    continue
                file.seek(0)
                raise RunInUseError(
                    f"--run-name {folder.root.name}: another command works on {folder.root} ({file.read().strip()}); "
                    "wait for its end, or choose another name"
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def lock_holder_gone(folder: "RunFolder") -> str | None:
    """Who had the lock of a run that no command works on now; None where one does, or nobody can tell from here."""
    try:
        with folder.lock.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return file.read().strip()
    except OSError:
        return None


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files are."""

    root: Path

    experiment = FilePath("{root}/experiment.yaml")
    """The resolved experiment file."""
    data = FilePath("{root}/data.json")
    """Fingerprints of the videos that the run began with, by split."""
    branch = FilePath("{root}/branch-begun.json")
    """What a run that continues from another's checkpoint is about to become, until it is."""
    start_weights = FilePath("{root}/start-from.json")
    """Names of tensors: taken from the weights that the run started from, fresh, and left in their file."""
    progress = FilePath("{root}/progress.jsonl")
    """One JSON line per report of the workers."""
    quarantine = FilePath("{root}/quarantine.parquet")
    """Broken videos met so far."""
    broken_found = FilePath("{root}/broken-found.jsonl")
    """Those that workers other than the first met, one JSON line each, before they are reported."""
    scores = FilePath("{root}/scores")
    """The test's score store."""
    predictions = FilePath("{root}/predictions.parquet")
    """The test's scores in one file, in the order of the manifest."""
    lock = FilePath("{root}/lock")
    """Locked by the command that works on the run; names it."""
    log = FilePath("{root}/log.txt")
    """What the run's commands said, with the time."""
    stop_request = FilePath("{root}/stop-requested")
    """While it exists, the workers save and stop; its text is the reason."""
    places = FilePath("{root}/places")
    """What holds the places of the workers at work, in Ray's form; for whoever has to free them."""
    ledger = FilePath("{root}/ledger")
    """Which videos every step consumed, with `execution.ledger`."""
    skipped_steps = FilePath("{root}/skipped-steps")
    """Steps whose loss or gradient wasn't finite, each with what `pipelines/replay.py` needs."""
    record_waiting = FilePath("{root}/record-waiting.jsonl")
    """Points and tags that the tracking store hasn't got yet; empty when it has everything."""
    system_metrics_waiting = FilePath("{root}/system-metrics-waiting.jsonl")
    """The same for what its machines do, with `record.system_metrics`."""
    start = FilePath("{root}/start.jsonl")
    """When the parts of each command's start were over, one JSON line each."""
    events = FilePath("{root}/events.jsonl")
    """Restarts, resizes and the like, one JSON line each."""
