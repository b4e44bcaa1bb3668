"""Tables of starts: their parts, and which processes take their CPU time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate

from morphmlp.start_marks import Part

Kind = Literal["warm", "cold", "bare"]
What = Literal["training", "test"]
COMMANDS: tuple[What, ...] = ("training", "test")
KINDS: tuple[Kind, ...] = ("warm", "cold", "bare")


@dataclass(frozen=True, kw_only=True)
class StartTimes:
    """Starts of one command under one condition."""

    what: What
    kind: Kind
    seconds: float
    """From the command's beginning to its first step or scores: median over the rounds."""
    parts: Mapping[str, float]
    """Medians of the parts (`Part`), seconds from the end of the part before."""
    rounds: Sequence[Mapping[str, float]]
    """The parts of each round."""
    part_cpu_s: Mapping[str, float]
    """CPU seconds of all processes during each part, medians."""
    process_cpu_s: Mapping[str, float]
    """CPU seconds of each kind of process, medians, the greatest first."""
    processes: Mapping[str, float]
    """How many there were of each kind, medians."""


def starts_table(found: Sequence[StartTimes]) -> str:
    """A line for each part, a column for each command under each condition."""
    sides = sorted(found, key=lambda side: (side.what == "test", KINDS.index(side.kind)))
    names = [part for part in map(str, Part) if any(part in side.parts for side in sides)]
    rows = [[name, *(f"{side.parts[name]:.2f}" if name in side.parts else "-" for side in sides)] for name in names]
    rows.append(["all", *(f"{side.seconds:.2f}" for side in sides)])
    headers = ["part (s)", *(f"{side.what}, {side.kind}" for side in sides)]
    align = ("left", *["right"] * len(sides))
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align)


def cpu_tables(side: StartTimes) -> str:
    """Of one command: CPU time by part next to its length, and CPU time by kind of process."""
    parts = [[part, f"{seconds:.2f}", f"{side.part_cpu_s.get(part, 0.0):.2f}"] for part, seconds in side.parts.items()]
    processes = [[name, f"{side.processes[name]:g}", f"{cpu_s:.2f}"] for name, cpu_s in side.process_cpu_s.items()]
    processes.append(["all", f"{sum(side.processes.values()):g}", f"{sum(side.process_cpu_s.values()):.2f}"])
    return "\n\n".join(
        tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", "right", "right"))
        for rows, headers in (
            (parts, (f"part of a {side.kind} {side.what}", "s", "CPU s")),
            (processes, (f"processes of a {side.kind} {side.what}", "number", "CPU s")),
        )
    )


def floor_tables(found: Sequence[StartTimes]) -> list[str]:
    """Of each command that was measured next to a bare program: the processes of both, those first that add most."""
    sides = {(side.what, side.kind): side for side in found}
    return [_floor_table(sides[what, "warm"], sides[what, "bare"]) for what in COMMANDS if (what, "bare") in sides]


def _floor_table(side: StartTimes, bare: StartTimes) -> str:
    names = dict.fromkeys([*side.process_cpu_s, *bare.process_cpu_s])
    used = {name: [each.process_cpu_s.get(name, 0.0) for each in (side, bare)] for name in names}
    counts = {name: [each.processes.get(name, 0.0) for each in (side, bare)] for name in names}
    used["all"], counts["all"] = ([sum(sums) for sums in zip(*table.values(), strict=True)] for table in (used, counts))
    rows = [
        [name, f"{counts[name][0]:g}", f"{ours:.2f}", f"{counts[name][1]:g}", f"{least:.2f}", f"{ours - least:+.2f}"]
        for name, (ours, least) in used.items()
    ]
    headers = (f"processes of a {side.what}", "number", "CPU s", "bare: number", "CPU s", "added")
    return tabulate(
        rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1))
    )
