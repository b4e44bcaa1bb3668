"""Damage as disks, networks and interrupted copies do it to files, from a seed."""

from collections.abc import Callable

import numpy as np

Mutation = Callable[[np.random.Generator, bytes], bytes]

_MOST_BITS = 16
_HEAD_BYTES = 512


def flipped_bits(rng: np.random.Generator, data: bytes) -> bytes:
    """One to sixteen bits the other way round, anywhere."""
    changed = bytearray(data)
    for place in rng.integers(0, 8 * len(data), rng.integers(1, _MOST_BITS + 1)):
        changed[place // 8] ^= 1 << (place % 8)
    return bytes(changed)


def cut_short(rng: np.random.Generator, data: bytes) -> bytes:
    """The end is missing, up to all but one byte."""
    return data[: rng.integers(1, len(data))]


def overwritten_head(rng: np.random.Generator, data: bytes) -> bytes:
    """Noise over up to 64 of the first or the last 512 bytes, where containers keep their tables."""
    length = int(rng.integers(1, 65))
    place = int(rng.integers(0, max(min(_HEAD_BYTES, len(data)) - length, 1)))
    start = place if rng.random() < 0.5 else max(len(data) - place - length, 0)
    return data[:start] + rng.bytes(length) + data[start + length :]


def zeroed_range(rng: np.random.Generator, data: bytes) -> bytes:
    """Up to an eighth of the file reads as zeros, as blocks that were never written do."""
    start, length = _range(rng, data)
    return data[:start] + bytes(length) + data[start + length :]


def swapped_ranges(rng: np.random.Generator, data: bytes) -> bytes:
    """Two ranges of one length have changed places."""
    length = _range(rng, data)[1]
    one, other = sorted(int(place) for place in rng.integers(0, len(data) - length + 1, 2))
    other = max(other, min(one + length, len(data)))
    between = data[one + length : other]
    return data[:one] + data[other : other + length] + between + data[one : one + length] + data[other + length :]


def repeated_range(rng: np.random.Generator, data: bytes) -> bytes:
    """A range stands in the file twice, one after the other."""
    start, length = _range(rng, data)
    return data[: start + length] + data[start:]


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (flipped_bits, cut_short, overwritten_head, zeroed_range, swapped_ranges, repeated_range)
}
"""All of them by name."""


def _range(rng: np.random.Generator, data: bytes) -> tuple[int, int]:
    length = int(rng.integers(1, max(len(data) // 8, 2)))
    return int(rng.integers(0, max(len(data) - length, 1))), length
