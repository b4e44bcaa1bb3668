"""Additive counts of scored videos: summed over micro-batches and workers first, divided once at the end."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class ScoreCounts:
    """How many videos were scored, and how many of them right."""

    num_videos: int = 0
    top1_hits: int = 0
    top5_hits: int = 0
    loss_sum: float = 0.0

    @classmethod
    def of(cls, logits: Float[Tensor, "b k"], labels: Int[Tensor, "b"]) -> Self:
        """Count one batch; with fewer than five classes top-5 counts all of them."""
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = ranked == labels[:, None]
        return cls(
            num_videos=len(labels),
            top1_hits=int(hits[:, 0].sum()),
            top5_hits=int(hits.sum()),
            loss_sum=float(functional.cross_entropy(logits.float(), labels, reduction="sum")),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            num_videos=self.num_videos + other.num_videos,
            top1_hits=self.top1_hits + other.top1_hits,
            top5_hits=self.top5_hits + other.top5_hits,
            loss_sum=self.loss_sum + other.loss_sum,
        )

    @property
    def top1(self) -> float:
        """Percent of videos whose first answer is right; NaN when none was scored."""
        return 100 * _share(self.top1_hits, self.num_videos)

    @property
    def top5(self) -> float:
        """Percent of videos with the right answer among the first five; NaN when none was scored."""
        return 100 * _share(self.top5_hits, self.num_videos)

    @property
    def loss(self) -> float:
        """Mean cross-entropy per video; NaN when none was scored."""
        return _share(self.loss_sum, self.num_videos)


def _share(part: float, whole: int) -> float:
    return part / whole if whole else float("nan")
