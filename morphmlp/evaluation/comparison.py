"""Two tests on the same videos: how much better one is, and whether chance alone would do that.

Both answered the same questions, so that only the videos count which one gets right and the other wrong.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from morphmlp.tasks.intervals import Estimate, wilson


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Right answers of two tests to the same videos."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def num_videos(self) -> int:
        """Videos that both answered."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def p_value(self) -> float:
        """McNemar's exact test: how likely so uneven a split of the videos is that only one gets right, by chance.

        Exact for many such videos too, where an approximation would do. 1 where there are none.
        """
        apart = self.only_first + self.only_second
        return float(binomtest(self.only_first, apart).pvalue) if apart else 1.0

    @property
    def difference(self) -> Estimate:
        """Top-1 of the first minus that of the second, percentage points.

        The interval is Newcombe's for paired shares (Statistics in Medicine 17, 1998, method 10): from Wilson's two
        intervals and the correlation of the answers.
        """
        n = self.num_videos
        first, second = self.both + self.only_first, self.both + self.only_second
        (p, q) = first / n, second / n
        (low, q_low), (high, q_high) = (ends.tolist() for ends in wilson(np.array([p, q]), n))
        margins = first * (n - first) * second * (n - second)
        together = self.both * self.neither - self.only_first * self.only_second
        phi = together / math.sqrt(margins) if margins else 0.0
        below = _distance(p - low, q_high - q, phi)
        above = _distance(high - p, q - q_low, phi)
        return Estimate(value=p - q, low=max(-1.0, p - q - below), high=min(1.0, p - q + above)).percent

    def in_words(self, first: str, second: str) -> str:
        """What the comparison says of tests of these names."""
        found = self.difference
        verdict = "beyond chance" if self.p_value < 0.05 else "within chance"
        return (
            f"{first} against {second}: top-1 {interval_text(found)} on the same {self.num_videos:,} videos; only the "
            f"first is right in {self.only_first:,}, only the second in {self.only_second:,}; McNemar's p "
            f"{p_text(self.p_value)}, {verdict}"
        )


def paired(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Paired:
    """Of answers to the same videos in the same order, which are right."""
    counts = np.bincount(2 * first.astype(np.int64) + second, minlength=4).tolist()
    return Paired(both=counts[3], only_first=counts[2], only_second=counts[1], neither=counts[0])


def interval_text(found: Estimate) -> str:
    """A difference in percentage points, with its interval."""
    return f"{found.value:+.2f} points (95 % interval {found.low:+.2f} to {found.high:+.2f})"


def p_text(p_value: float) -> str:
    """A p-value as people write it."""
    return "below 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _distance(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))
