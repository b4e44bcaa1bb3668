"""How much more CPU time work takes while other cores of its node are busy, as `benchmark.py busy-cores` measured it.

Cores share memory and caches, and on cloud nodes two CPUs are often one core: a node that is full does less for each
second of CPU time than one that does a single thing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue, TypeAdapter, ValidationError

from morphmlp.errors import ConfigError

COMPUTING, DECODING = "computing", "decoding"
"""Kinds of work: optimiser steps, and clips of decode tasks."""


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """A piece of work among processes that are all busy."""

    work: str
    """Its kind."""
    beside: str
    """What all other processes do."""
    processes: int
    """It and the others; more than cores take turns."""
    cpu_ratio: float
    """Its CPU time over that of the same work alone."""


@dataclass(frozen=True, kw_only=True)
class Contention:
    """One node's measurement."""

    cores: int
    alone_s: Mapping[str, float]
    """By kind: CPU seconds of a step of one micro-batch, of a clip, with nothing else on the node."""
    optimiser_s: float
    """CPU seconds of a step alone that don't grow with its micro-batches: the optimiser's, first of all."""
    crowds: Sequence[Crowd]
    clip_fields: Mapping[str, JsonValue]
    """The experiment's fields by which a clip costs what it costs."""

    @classmethod
    def find(cls, path: Path) -> "Contention | None":
        """What a file holds; None where it is no such measurement.

        Raises:
            ConfigError: It is one in part.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or "crowds" not in content:
            return None
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError:
            raise ConfigError([f"--measured {path}: isn't whole; measure again by `benchmark.py busy-cores`"]) from None

    def growth(self, work: str, jobs: Mapping[str, int]) -> float:
        """CPU time over that alone, of work of one kind among so many jobs of each kind, it included.

        Measured where all others do the same; where they do this and that, between the two by their numbers. Between
        two numbers of processes on a line, beyond the largest as there. Kinds that weren't measured neither slow
        others down nor are slowed down.
        """
        others = {kind: number - (kind == work) for kind, number in jobs.items()}
        total = sum(others.values())
        if not total:
            return 1.0
        return sum(number * self._ratio(work, kind, total + 1) for kind, number in others.items() if number) / total

    def full(self, work: str) -> float:
        """`growth` where each core of the node has a process that does the same."""
        return self._ratio(work, work, self.cores)

    def _ratio(self, work: str, beside: str, processes: int) -> float:
        points = sorted(
            (crowd.processes, crowd.cpu_ratio) for crowd in self.crowds if (crowd.work, crowd.beside) == (work, beside)
        )
        numbers, ratios = zip((1, 1.0), *points, strict=True)
        return float(np.interp(processes, numbers, ratios))
