"""What a classifier answers to each video, and every score that is made of it.

Of a video's scores over all classes only what these numbers need is kept, so that a large test set fits in memory
whatever its number of classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax

from morphmlp.tasks.intervals import Estimate, class_mean_estimate, share_estimate, wilson
from morphmlp.tasks.scores import ECE, MEAN_CLASS, NLL, TOP1, TOP5

GUESSES = 5
CONFIDENCE_BINS = 15
"""Equally wide bins of confidence, each with its upper end."""
_ROWS = 4096
"""Videos whose scores are worked on at a time."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """The answers to `n` videos, in any order; top-1, top-5 and the calibration follow from them."""

    labels: Ints
    """True class, `[n]`."""
    ranks: Ints
    """Classes before the true one, `[n]`: 0 is right; of equal scores the lower class comes first."""
    guesses: Ints
    """The first five classes, best first, `[n 5]`; fewer where there aren't five classes."""
    shares: Floats
    """Their probabilities, 0 to 1, `[n 5]`."""
    log_likelihoods: Floats
    """Logarithm of the true class's probability, `[n]`."""
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the first guess is the true class, `[n]`."""
        right: npt.NDArray[np.bool_] = self.ranks == 0
        return right

    @property
    def top1(self) -> Estimate:
        """Share of the videos whose first guess is right, percent."""
        return share_estimate(int(self.right.sum()), len(self)).percent

    @property
    def top5(self) -> Estimate:
        """Share of the videos with the true class among the first five, percent."""
        return share_estimate(int((self.ranks < GUESSES).sum()), len(self)).percent

    @cached_property
    def confusion(self) -> Ints:
        """Videos by true class (rows) and first guess (columns), `[k k]`."""
        cells = self.labels * self.num_classes + self.guesses[:, 0]
        counts: Ints = np.bincount(cells, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)
        return counts

    @property
    def mean_class_accuracy(self) -> Estimate:
        """Mean over classes of the share of their videos that are right, percent; classes without videos don't count.

        Its interval is that of `class_mean_estimate`.
        """
        return class_mean_estimate(*self.right_by_class()).percent

    def right_by_class(self) -> tuple[Ints, Ints]:
        """Of each class the videos that are right, and all of its videos, `[k]` each."""
        counts = np.bincount(self.labels, minlength=self.num_classes)
        return np.bincount(self.labels[self.right], minlength=self.num_classes), counts

    @property
    def reliability(self) -> pd.DataFrame:
        """By bin of the first guess's probability: `above`, `up_to`, videos, mean confidence, and share right (0-1).

        `CONFIDENCE_BINS` bins of equal width; means of a bin without videos are NaN.
        """
        ends = np.linspace(0, 1, CONFIDENCE_BINS + 1)
        confidence = self.shares[:, 0]
        # A bin holds its upper end; rounding may lift a probability just over 1.
        places = np.clip(np.searchsorted(ends, confidence, side="left") - 1, 0, CONFIDENCE_BINS - 1)
        videos = np.bincount(places, minlength=CONFIDENCE_BINS)
        with np.errstate(invalid="ignore"):
            mean, right = (
                np.bincount(places, weights=values, minlength=CONFIDENCE_BINS) / videos
                for values in (confidence, self.right)
            )
        low, high = wilson(right, videos)
        return pd.DataFrame(
            {
                "above": ends[:-1],
                "up_to": ends[1:],
                "videos": videos,
                "confidence": mean,
                "right": right,
                "low": low,
                "high": high,
            }
        )

    @property
    def ece(self) -> float:
        """Expected calibration error, percent: mean distance of confidence and share right over `reliability`'s bins.

        Each bin counts by its videos.
        """
        if not len(self) or np.isnan(self.shares[:, 0]).any():
            return float("nan")
        bins = self.reliability[lambda frame: frame["videos"] > 0]
        return float(100 * ((bins["confidence"] - bins["right"]).abs() * bins["videos"]).sum() / len(self))

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true class, nats."""
        return float(-self.log_likelihoods.mean()) if len(self) else float("nan")

    def estimates(self) -> Mapping[str, Estimate]:
        """The scores that have an interval, by `ScoreName.key`, percent."""
        return {TOP1.key: self.top1, TOP5.key: self.top5, MEAN_CLASS.key: self.mean_class_accuracy}

    def values(self) -> Mapping[str, float]:
        """All scores by `ScoreName.key`."""
        return {
            **{key: estimate.value for key, estimate in self.estimates().items()},
            ECE.key: self.ece,
            NLL.key: self.nll,
        }

    def take(self, rows: npt.NDArray[np.integer] | Sequence[int]) -> Self:
        """The answers to these videos, in this order."""
        return type(self)(
            **{name: getattr(self, name)[rows] for name in _ARRAYS},
            num_classes=self.num_classes,
        )


_ARRAYS = [field.name for field in fields(Answers) if field.name != "num_classes"]


def answers_of(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Answers:
    """The answers that lie in scores of classes `[n k]`, whose softmax is their probability, to videos with labels.

    A video whose scores aren't numbers has no right answer, whatever its label.

    Raises:
        ValueError: A label is no class, or there are other labels than scores.
    """
    num_videos, num_classes = scores.shape
    true: Ints = np.asarray(labels, dtype=np.int64)
    if len(true) != num_videos or (num_videos and not 0 <= true.min() <= true.max() < num_classes):
        raise ValueError(f"{len(true)} labels for scores of {num_videos} videos and classes 0 to {num_classes - 1}")
    most = min(GUESSES, num_classes)
    parts = [
        _answers_of(scores[start : start + _ROWS], true[start : start + _ROWS], most)
        for start in range(0, max(num_videos, 1), _ROWS)
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in _ARRAYS}
    return Answers(**joined, num_classes=num_classes)


def ranks_of(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Ints:
    """Classes before the true one, `[n]`, as `Answers.ranks`: of equal scores the lower class comes first.

    Where scores aren't numbers it's a rank that is never right.
    """
    own = scores[np.arange(len(scores)), labels][:, None]
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None]))
    ranks: Ints = np.where(np.isnan(scores).any(axis=1), max(scores.shape[1], GUESSES), before.sum(axis=1))
    return ranks


def _answers_of(scores: npt.NDArray[np.floating], labels: Ints, most: int) -> dict[str, npt.NDArray[np.generic]]:
    num_videos, rows = len(scores), np.arange(len(scores))
    broken = np.isnan(scores).any(axis=1)
    logs = log_softmax(scores.astype(np.float64), axis=1)
    # Of the scores, not of their logarithms: rounding may make a difference between equal ones. Of equal ones argmax
    # takes the lower class.
    left, guesses = np.where(broken[:, None], 0.0, scores), np.empty((num_videos, most), dtype=np.int64)
    for place in range(most):
        guesses[:, place] = left.argmax(axis=1)
        left[rows, guesses[:, place]] = -np.inf
    return {
        "labels": labels,
        "ranks": ranks_of(scores, labels),
        "guesses": guesses,
        "shares": np.exp(logs[rows[:, None], guesses]),
        "log_likelihoods": logs[rows, labels],
    }


def class_table(answers: Answers, class_names: Sequence[str]) -> pd.DataFrame:
    """Of each class, in label order: videos, those that are right, accuracy with its 95 % interval (percent).

    And the class that is taken for it most often, with how many times; none where none was. Accuracy is NaN where a
    class has no videos.
    """
    right, videos = answers.right_by_class()
    with np.errstate(invalid="ignore"):
        share = right / videos
    low, high = wilson(share, videos)
    wrong = answers.confusion - np.diag(np.diagonal(answers.confusion))
    most, times = wrong.argmax(axis=1), wrong.max(axis=1)
    names = np.asarray(class_names, dtype=object)
    return pd.DataFrame(
        {
            "class": names,
            "videos": videos,
            "right": right,
            "accuracy": 100 * share,
            "low": 100 * low,
            "high": 100 * high,
            "taken_for": np.where(times > 0, names[most], ""),
            "times": times,
        }
    )


def confused_pairs(answers: Answers, class_names: Sequence[str], *, most: int = 50) -> pd.DataFrame:
    """The pairs of true class and wrong first guess by how often they come, at most so many.

    With the share of the true class's videos, percent.
    """
    counts = answers.confusion - np.diag(np.diagonal(answers.confusion))
    there = np.flatnonzero(counts)
    order = there[np.argsort(-counts.ravel()[there], kind="stable")][:most]
    true, guessed = np.divmod(order, answers.num_classes)
    names = np.asarray(class_names, dtype=object)
    times = counts.ravel()[order]
    return pd.DataFrame(
        {
            "class": names[true],
            "taken_for": names[guessed],
            "times": times,
            "share": 100 * times / np.maximum(answers.right_by_class()[1][true], 1),
        }
    )
