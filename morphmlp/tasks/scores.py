"""The scores of every task by name, and the one that ranks: for records, sweeps and tables, which need no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ScoreName:
    """A number that validation and test give."""

    key: str
    """As in the record: `val/<key>` and `test/<key>`."""
    title: str
    """As in tables, figures and messages."""
    unit: str = "%"
    higher_is_better: bool = True
    of_videos: bool = False
    """Whether it's a share of the videos: Wilson's interval then follows from their number."""

    def gain(self, value: float) -> float:
        """A number that grows as the score gets better, for sorting."""
        return value if self.higher_is_better else -value

    def in_words(self, value: float, interval: tuple[float, float] | None = None) -> str:
        """`top-1 77.04 (95 % interval 76.45-77.62)`."""
        found = f"{self.title} {value:.2f}{'' if self.unit == '%' else f' {self.unit}'}"
        return found if interval is None else f"{found} (95 % interval {interval[0]:.2f}-{interval[1]:.2f})"

    @property
    def val_metric(self) -> str:
        """Key of its metric at validation."""
        return f"val/{self.key}"

    @property
    def test_metric(self) -> str:
        """Key of its metric in the test."""
        return f"test/{self.key}"


TOP1 = ScoreName(key="top1", title="top-1", of_videos=True)
TOP5 = ScoreName(key="top5", title="top-5", of_videos=True)
MEAN_CLASS = ScoreName(key="mean_class_acc", title="mean class accuracy")
ECE = ScoreName(key="ece", title="ECE", higher_is_better=False)
NLL = ScoreName(key="nll", title="NLL", unit="nats", higher_is_better=False)
MIOU = ScoreName(key="miou", title="mIoU")
MACC = ScoreName(key="macc", title="mAcc")
AACC = ScoreName(key="aacc", title="aAcc")

SCORES = {"classification": (TOP1, TOP5), "segmentation": (MIOU, MACC, AACC)}
"""By task, the primary one first."""
FURTHER_SCORES = {"classification": (MEAN_CLASS, ECE, NLL), "segmentation": ()}
"""By task, those that only a test's table gives; none of them ranks."""


def scores_of(task: str) -> tuple[ScoreName, ...]:
    """All scores of a task, the primary one first."""
    return SCORES[task]


def primary_score(task: str) -> ScoreName:
    """The score of a task by which checkpoints, trials and runs are ranked."""
    return scores_of(task)[0]


def further_scores_of(task: str) -> tuple[ScoreName, ...]:
    """The scores of a task that only a test's table gives."""
    return FURTHER_SCORES[task]
