"""The files that a run keeps next to its checkpoints, under `<cluster.storage>/<run name>/`."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from morphmlp.errors import RunInUseError


@contextmanager
def run_lock(folder: "RunFolder") -> Iterator[None]:
    """Keep other commands off a run while this one works on it; the operating system ends the lock with the process.

    Raises:
        RunInUseError: Another command works on it.
    """
    with folder.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunInUseError(
                f"--run-name {folder.root.name}: another command works on {folder.root} ({file.read().strip()}); "
                "wait for its end, or choose another name"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files are."""

    root: Path

    @property
    def experiment(self) -> Path:
        """The resolved experiment file."""
        return self.root / "experiment.yaml"

    @property
    def data(self) -> Path:
        """Fingerprints of the videos that the run began with, by split."""
        return self.root / "data.json"

    @property
    def start_weights(self) -> Path:
        """Names of tensors: taken from the weights that the run started from, fresh, and left in their file."""
        return self.root / "start-from.json"

    @property
    def progress(self) -> Path:
        """One JSON line per report of the workers."""
        return self.root / "progress.jsonl"

    @property
    def quarantine(self) -> Path:
        """Broken videos met so far."""
        return self.root / "quarantine.parquet"

    @property
    def predictions(self) -> Path:
        """Per-view logits of the test."""
        return self.root / "predictions.parquet"

    @property
    def lock(self) -> Path:
        """Locked by the command that works on the run; names it."""
        return self.root / "lock"

    @property
    def log(self) -> Path:
        """What the run's commands said, with the time."""
        return self.root / "log.txt"

    @property
    def stop_request(self) -> Path:
        """While it exists, the workers save and stop; its text is the reason."""
        return self.root / "stop-requested"

    @property
    def places(self) -> Path:
        """What holds the places of the workers at work, in Ray's form; for whoever has to free them."""
        return self.root / "places"

    @property
    def ledger(self) -> Path:
        """Which videos every step consumed, with `execution.ledger`."""
        return self.root / "ledger"

    @property
    def skipped_steps(self) -> Path:
        """Steps whose loss or gradient wasn't finite, each with what `pipelines/replay.py` needs."""
        return self.root / "skipped-steps"

    @property
    def record_waiting(self) -> Path:
        """Points and tags that the tracking store hasn't got yet; empty when it has everything."""
        return self.root / "record-waiting.jsonl"

    @property
    def events(self) -> Path:
        """Restarts, resizes and the like, one JSON line each."""
        return self.root / "events.jsonl"
