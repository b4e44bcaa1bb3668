"""What became of a sweep's trials: values that the record, the table and the report are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from morphmlp.tasks.scores import ScoreName, primary_score
from morphmlp.tuning.space.space import ImpossiblePoint

TrialState = Literal["finished", "stopped", "timed_out", "diverged", "failed"]
"""`finished`: trained and tested. `stopped`: by the scheduler, behind others. `timed_out`: by `max_trial_minutes`.
`diverged`: its loss or gradients were no numbers. `failed`: an error."""


@dataclass(frozen=True, kw_only=True)
class TrialEnd:
    """How a trial ended; numbers are missing where it didn't get so far."""

    state: TrialState
    error: str | None = None
    """Why it ended early, in one line; none where it finished."""
    run_id: str | None = None
    """MLflow run; none where the trial ended before it was opened."""
    score: float | None = None
    """The task's primary score in the test, over `num_videos`; it ranks."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """All scores of the test by key; none where it wasn't tested."""
    score_interval: Sequence[float] | None = None
    """95 % interval of the primary score, low and high; None where it's a share of the videos and has theirs."""
    num_videos: int | None = None
    """Test videos scored."""
    clips_per_s: float | None = None
    """Training clips per second, ingest included."""
    wall_s: float | None = None
    cpu_s: float | None = None
    """CPU core-seconds of all its processes."""


@dataclass(frozen=True, kw_only=True)
class Trial(TrialEnd):
    """One training of one point with one seed, and how it ended."""

    number: int
    """From 1, in the order of the plan."""
    point: Mapping[str, JsonValue]
    """The swept fields, dotted, and what they are here."""
    title: str
    """The point's values as people read them, the same for all its seeds."""
    seed: int
    run_name: str
    val_score: float | None
    """The primary score at its last validation."""
    epochs: int
    """Epochs trained and validated; where the length is in steps, validations."""
    gmacs: float
    """Billion multiply-accumulates of one view."""
    params: int
    replaces: Mapping[str, JsonValue] | None = None
    """The values that the search chose, where others took their place."""
    steps: int | None = None
    """Where the length is in steps: those up to the last validation."""
    printed: str | None = None
    """What the paper prints for the same fields, `79.6 (MorphMLP-T, ImageNet-1K, Table 7)`: of another training, so
    that it is shown next to the point and ranks nothing."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep found; the JSON of `--json`."""

    parent_run_id: str
    run_name: str
    wall_s: float
    task: str
    """Of its experiments."""
    trials: tuple[Trial, ...]
    impossible: tuple[ImpossiblePoint, ...]
    with_checkpoints: tuple[str, ...] | None = None
    """Names of the trials' runs whose checkpoints were kept; None where all were kept."""
    freed_bytes: int = 0
    """What the removed checkpoints took."""

    @property
    def primary(self) -> ScoreName:
        """The score that ranks the trials."""
        return primary_score(self.task)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Trials that ended with an error."""
        return tuple(trial for trial in self.trials if trial.state in ("failed", "diverged"))
