"""Interleaved rounds and ratios: how measurements on a machine that others use are made comparable. Pure functions."""

import random
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TypeVar

Name = TypeVar("Name", bound=str)


def interleaved(names: Sequence[Name], rounds: int, *, seed: int = 0) -> Iterator[tuple[int, Name]]:
    """`(round, name)`: every name once a round, in an order of its own, so that none always follows the same one."""
    rng = random.Random(seed)
    for number in range(rounds):
        for name in rng.sample(list(names), len(names)):
            yield number, name


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios pair by pair: what disturbed a pair disturbed both of its sides alike.

    Raises:
        ValueError: There are no pairs, or they aren't pairs.
    """
    if not over:
        raise ValueError("no pairs to compare")
    return median(one / other for one, other in zip(over, under, strict=True))
