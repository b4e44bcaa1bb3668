"""The files of a sweep, from which it can be resumed after any stop."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import JsonValue

from morphmlp.config.loading import read_yaml, to_yaml
from morphmlp.config.sweep import SweepConfig, load_sweep, sweep_to_yaml
from morphmlp.errors import CheckpointError
from morphmlp.files import atomic_write
from morphmlp.training.record.run_folder import RunFolder, run_lock


class SweepFolder:
    """The files of a sweep, under `<cluster.storage>/<run name>/`; next to them a folder for each trial.

    One that can't be begun or continued is a CheckpointError, one on which another command works a RunInUseError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweep = root / "sweep.yaml"
        """The resolved sweep file."""
        self.base = root / "base.yaml"
        """The base experiment as it was when the sweep began."""
        self.trials = root / "trials.jsonl"
        """Every trial so far, one JSON line each."""
        self.journal = root / "optuna.jsonl"
        """What Optuna knows."""
        self.tune = root / "tune"
        """What Ray Tune writes for itself while it runs."""
        self.clips = root / "clips"
        """Decoded clips that the trials share; removed when the sweep is done."""
        self.log = root / "log.txt"
        """What the sweep's commands said, with the time."""
        self.freed = root / "freed.jsonl"
        """Trials whose checkpoints were removed, with the bytes that these took, one JSON line each."""
        self.table = root / "sweep_table.md"
        """The closing table."""
        self.winners = root / "winners"
        """Experiment files of the best points."""

    def require_new(self) -> None:
        """Refuse a folder that is there already."""
        if self.root.exists():
            raise CheckpointError(
                f"--run-name {self.root.name}: {self.root} exists; choose another name, or continue it with --resume"
            )

    def lock(self) -> AbstractContextManager[None]:
        """Keep other commands off the sweep."""
        return run_lock(RunFolder(self.root))

    def begin(self, sweep: SweepConfig, base: Mapping[str, JsonValue]) -> None:
        """Take a new folder."""
        self.require_new()
        self.root.mkdir(parents=True)
        self.base.write_text(to_yaml(base), encoding="utf-8")
        atomic_write(self.sweep, sweep_to_yaml(sweep))

    def read(self) -> tuple[SweepConfig, dict[str, JsonValue]]:
        """The sweep that began here, and its base experiment."""
        if not self.sweep.exists():
            raise CheckpointError(f"--resume {self.root.name}: {self.root} holds no sweep")
        return load_sweep(self.sweep), read_yaml(self.base)
