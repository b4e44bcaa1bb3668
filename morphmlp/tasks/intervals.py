"""95 % intervals of shares: Wilson's, and that of a mean over classes which follows from it.

They hold the error of the test set alone: its videos are a sample of all such videos. Another seed of training would
move a score further.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri  # the quantiles of scipy.stats, which takes a second to import

LEVEL = 0.95
Z = float(ndtri((1 + LEVEL) / 2))
"""The 97.5 % quantile: 95 % of a normal distribution lie within so many standard deviations."""
_KEPT_OFF = 4.0
"""Videos by which a class's share is drawn towards that of all, where its variance is estimated: about `Z` squared."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score with its 95 % interval, all on one scale."""

    value: float
    low: float
    high: float

    @property
    def percent(self) -> "Estimate":
        """The estimate of a share on the scale of scores, 0 to 100."""
        return Estimate(value=100 * self.value, low=100 * self.low, high=100 * self.high)

    def __str__(self) -> str:
        return f"{self.value:.2f} (95 % interval {self.low:.2f}-{self.high:.2f})"


NOTHING = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
"""The estimate of no videos."""


def wilson(share: npt.ArrayLike, videos: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Wilson's interval of shares of so many videos; NaN where there are none.

    Not scipy's: that takes one share at a time, and whole numbers, which the videos behind a mean over classes or over
    seeds aren't.
    """
    p, n = np.asarray(share, dtype=np.float64), np.asarray(videos, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrunk = 1 + Z**2 / n
        centre = (p + Z**2 / (2 * n)) / shrunk
        half = Z / shrunk * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # Rounding must not put an end on the wrong side of the share, or beyond what a share can be.
    return np.clip(np.minimum(centre - half, p), 0, 1), np.clip(np.maximum(centre + half, p), 0, 1)


def share_estimate(right: int, videos: int) -> Estimate:
    """The share of the videos that are right."""
    if not videos:
        return NOTHING
    low, high = wilson(right / videos, videos)
    return Estimate(value=right / videos, low=float(low), high=float(high))


def class_mean_estimate(right: npt.NDArray[np.integer], videos: npt.NDArray[np.integer]) -> Estimate:
    """The mean over classes of the share that is right; classes without videos don't count.

    The interval is Wilson's with as many videos as would give a plain share the variance of this mean, which is the
    sum of the classes' own binomial variances over the square of their number (stratified sampling). Few videos say
    little of a class's variance, and one that is right in all of them seems to have none: for its variance, not for
    its value, a class's share counts as if four videos more were scored, right as often as those of all classes. With
    one class it is Wilson's interval itself.
    """
    there = videos > 0
    n, r = videos[there].astype(np.float64), right[there].astype(np.float64)
    if not len(n):
        return NOTHING
    value = float((r / n).mean())
    of_all = (r.sum() + _KEPT_OFF / 2) / (n.sum() + _KEPT_OFF)
    steadied = (r + _KEPT_OFF * of_all) / (n + _KEPT_OFF)
    variance = (steadied * (1 - steadied) / n).sum() / len(n) ** 2
    mean = steadied.mean()
    low, high = wilson(value, mean * (1 - mean) / variance)
    return Estimate(value=value, low=float(low), high=float(high))
