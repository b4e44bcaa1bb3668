"""The files that a run keeps beside its checkpoints, under `<cluster.storage>/<run name>/`."""

from dataclasses import dataclass
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that under its name there is always a whole one."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files are."""

    root: Path

    @property
    def experiment(self) -> Path:
        """The resolved experiment file."""
        return self.root / "experiment.yaml"

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
