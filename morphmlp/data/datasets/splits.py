"""Divides videos into training, validation and test: by hash, stratified by class, sources kept together.

The order in which groups are placed follows from a seed and the groups' names alone, so the same videos are divided
alike everywhere. Videos that have a split already keep it: one that is added later moves no other.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from morphmlp.data.datasets.lines import composed
from morphmlp.data.manifest import SPLITS
from morphmlp.errors import ConfigError

_SHARES = re.compile(r"[0-9]{1,3}(/[0-9]{1,3}){1,2}")


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How videos are divided."""

    shares: tuple[int, ...]
    """Of train and val, or of train, val and test."""
    seed: int = 0

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Self:
        """`80/10/10` or `80/20`; only their ratio counts.

        Raises:
            ConfigError: It's something else, or a share is 0.
        """
        shares = tuple(map(int, text.split("/"))) if _SHARES.fullmatch(text) else ()
        if not shares or 0 in shares:
            raise ConfigError(
                [f"--split: {text!r} must be shares such as 80/10/10 (train, val, test) or 80/20 (train, val)"]
            )
        return cls(shares=shares, seed=seed)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that get videos."""
        return SPLITS[: len(self.shares)]

    def order(self, group: str) -> str:
        """What groups of one size are sorted by: as good as drawn, and the same wherever it's computed."""
        return hashlib.sha256(f"{self.seed}\t{composed(group)}".encode()).hexdigest()


def assign_splits(
    rule: SplitRule, *, groups: Sequence[str], classes: Sequence[str], kept: Sequence[str | None]
) -> list[str]:
    """The split of each video.

    Groups are placed whole, the largest first, those of one size in the order of their hashes: each goes where its
    classes are furthest below their share. The last groups of a class go to splits that have none of it yet, so that a
    class with as many groups as there are splits is in all of them. Videos of one group get one split: the one that a
    video of it has already (`kept`; None where it has none).
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    of_group = {
        group: next((split for place in places if (split := kept[place]) is not None), None)
        for group, places in members.items()
    }
    tally = _Tally(rule, classes, [of_group[group] for group in groups])
    new = [group for group, split in of_group.items() if split is None]
    waiting: dict[str, int] = defaultdict(int)
    for group in new:
        for name in {classes[place] for place in members[group]}:
            waiting[name] += 1
    for group in sorted(new, key=lambda group: (-len(members[group]), rule.order(group))):
        held = [classes[place] for place in members[group]]
        of_group[group] = split = tally.best_split(held, waiting)
        tally.add(split, held)
        for name in set(held):
            waiting[name] -= 1
    return [str(of_group[group]) for group in groups]


class _Tally:
    """How many videos of each class every split has, and should have."""

    def __init__(self, rule: SplitRule, classes: Sequence[str], placed: Sequence[str | None]) -> None:
        self._rule = rule
        self._total: dict[str, int] = defaultdict(int)
        self._has: dict[tuple[str, str], int] = defaultdict(int)
        for name, split in zip(classes, placed, strict=True):
            self._total[name] += 1
            if split is not None:
                self._has[split, name] += 1

    def add(self, split: str, classes: Sequence[str]) -> None:
        """Count a group's videos."""
        for name in classes:
            self._has[split, name] += 1

    def best_split(self, classes: Sequence[str], waiting: Mapping[str, int]) -> str:
        """Where a group's videos are missed most; of equals the first split."""
        needed = {
            split
            for name in set(classes)
            if waiting[name] <= len(lacking := [split for split in self._rule.splits if not self._has[split, name]])
            for split in lacking
        }
        choice = [split for split in self._rule.splits if not needed or split in needed]
        return max(choice, key=lambda split: (self._missed(split, classes), -SPLITS.index(split)))

    def _missed(self, split: str, classes: Sequence[str]) -> int:
        """How far a split is below its share of these classes; whole numbers, so that ties are exact."""
        share, whole = self._rule.shares[SPLITS.index(split)], sum(self._rule.shares)
        return sum(share * self._total[name] - whole * self._has[split, name] for name in classes)


def groups_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """The group of each file name: what the pattern's parts in brackets match, or the whole match without any.

    Raises:
        ConfigError: The pattern is none, or names don't match it.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError([f"--group-pattern: {pattern!r} is no regular expression: {error}"]) from None
    found = [compiled.search(name) for name in names]
    if unlike := [name for name, match in zip(names, found, strict=True) if match is None]:
        raise ConfigError(
            [f"--group-pattern: {len(unlike)} of {len(names)} file names don't match {pattern!r}, as {unlike[0]!r}"]
        )
    return ["\t".join(part or "" for part in match.groups()) or match[0] for match in found if match is not None]
