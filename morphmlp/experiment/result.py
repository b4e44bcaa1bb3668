"""What a run found, in values and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morphmlp.tasks.scores import ScoreName


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """What a run found; the JSON of `--json`."""

    run_id: str
    run_name: str
    fingerprint: str
    score: float
    """The task's primary score."""
    scores: Mapping[str, float]
    """All of them, by `ScoreName.key`."""
    intervals: Mapping[str, tuple[float, float]]
    """95 % intervals by `ScoreName.key`, of all scores that have one."""
    num_videos: int
    """Test videos scored."""
    items: str
    """What these are: `videos` or `images`."""
    num_quarantined: int
    """Test videos that couldn't be scored."""
    quarantined: Mapping[str, int]
    """Videos that couldn't be used, by split."""
    unscored: tuple[str, ...]
    """Each of them, with its reason."""
    checkpoint: str
    """Folder of the checkpoint that was tested."""
    tested: str
    """Which one that is, in words: the last or the best, its step and validation score."""
    wall_s: float
    """From the first check to the last record of this call, seconds."""
    cpu_s: float
    """CPU core-seconds of its workers, decoding, scorers and this process."""
    clips_per_s: float
    """Training clips per second, all workers, ingest included: median over the run's reports."""

    def in_words(self, views: str, names: Sequence[ScoreName]) -> str:
        """In a line; `views` are those of a test video, in words."""
        scores = ", ".join(name.in_words(self.scores[name.key], self.intervals.get(name.key)) for name in names)
        broken = ", ".join(f"{count} of {split}" for split, count in self.quarantined.items() if count) or "none"
        return (
            f"{self.run_name}: test {scores} of {self.num_videos} {self.items} "
            f"({views}; {self.tested}; quarantined: {broken}), {self.wall_s:.0f} s, "
            f"MLflow run {self.run_id}"
        )
