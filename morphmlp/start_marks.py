"""When the parts of a command's start were over: marks of its processes, one JSON line each in the run's folder.

Times of several machines are taken as their clocks have them.
"""

import json
import os
import time
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Self

from morphmlp.line_file import LineFile, read_json_lines


class Part(StrEnum):
    """What a start consists of; a mark is made where it is over."""

    COMMAND = "command"
    """Nothing yet: the command's process began."""
    IMPORTS = "imports"
    """Of the command's own process."""
    CHECKS = "checks"
    """The experiment, its data and its weights are read and fit each other."""
    RAY = "Ray"
    """Ray is joined, or started here, and has places for the run."""
    CLUSTER = "cluster"
    """It is looked over: its nodes' storage, memory and files."""
    RECORD = "record"
    """The run is open in the record."""
    WORKER = "worker"
    """The first training worker or scorer has its process, with all imports."""
    MODEL = "model"
    """That has built its network."""
    CLIPS = "first clips"
    """Its first clips are decoded and there."""
    STEP = "first step"
    """The first training step is taken."""
    SCORES = "first scores"
    """The first videos of a test are scored, and in the store."""


class StartMarks:
    """The marks that one process makes; kept in memory until it is known where they belong."""

    def __init__(self, path: Path | None = None) -> None:
        """Marks go to the end of a file, which other processes add to."""
        self._file = None if path is None else LineFile(path)
        self._waiting: list[str] = []

    @classmethod
    def of_command(cls) -> Self:
        """Those of a command whose imports are done just now; they begin with its process."""
        marks = cls()
        marks.mark(Part.COMMAND, at=_process_began())
        marks.mark(Part.IMPORTS)
        return marks

    def mark(self, part: Part, *, at: float | None = None) -> None:
        """The part is over, now or at another time (seconds since 1970)."""
        self._waiting.append(json.dumps({"part": str(part), "at": time.time() if at is None else at}))
        self._pass_on()

    def keep_in(self, path: Path) -> None:
        """Write to this file from now on, first what was marked before."""
        self._file = LineFile(path)
        self._pass_on()

    def _pass_on(self) -> None:
        if self._file is not None:
            for line in self._waiting:
                self._file.append(line)
            self._waiting = []


def start_parts(path: Path) -> dict[str, float]:
    """Seconds of each part of the last command's start, from the end of the part before it to its own end.

    Parts that ran at the same time stand in the order in which they ended; all together are the time since the
    command's beginning. None where the file has no command's beginning, as of a sweep's trial.
    """
    found: dict[str, float] = {}
    for line in read_json_lines(path):
        if line["part"] == Part.COMMAND:
            found = {}
        found.setdefault(line["part"], line["at"])
    if Part.COMMAND not in found:
        return {}
    began = found[Part.COMMAND]  # a clock that is behind may give earlier times
    ends = sorted(((max(at, began), part) for part, at in found.items() if part != Part.COMMAND))
    return {part: at - before for (before, _), (at, part) in pairwise([(began, ""), *ends])}


def start_in_words(path: Path) -> str | None:
    """The last command's start in a line, up to its last part; None where there is nothing to say."""
    if not (parts := start_parts(path)):
        return None
    each = ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
    return f"{list(parts)[-1]} {sum(parts.values()):.1f} s after the command began (seconds: {each})"


def _process_began() -> float:
    """When this process began, seconds since 1970; now where the system doesn't say."""
    now, stat = time.time(), Path("/proc/self/stat")
    if not stat.exists():
        return now
    ticks = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
