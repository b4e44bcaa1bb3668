"""CPU time of processes, of all their threads, by the clocks that Linux keeps for each."""

import time
from collections.abc import Mapping
from pathlib import Path

from morphmlp.errors import MorphMLPError

_PROCESSES = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far, all its threads together, seconds; 0 where it is gone.

    Its children aren't counted.
    """
    # The clock id that clock_getcpuclockid(3) gives. It counts nanoseconds, where /proc has ticks of 10 ms.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def process_tree(root: int) -> dict[int, str]:
    """Command lines of a process and all that come from it, by process id.

    Raises:
        MorphMLPError: There's no /proc here.
    """
    if not (_PROCESSES / "self" / "stat").exists():
        raise MorphMLPError("this measurement reads CPU times from /proc; run it on Linux")
    parents: dict[int, int] = {}
    for entry in _PROCESSES.iterdir():
        if entry.name.isdigit():
            try:
                # The name, in brackets, may hold anything; the parent is the second field after it.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it ended between two looks
    found = {root}
    grown = True
    while grown:
        new = {pid for pid, parent in parents.items() if parent in found} - found
        grown = bool(new)
        found |= new
    return {pid: _command_line(pid) for pid in sorted(found)}


def cpu_clocks(processes: Mapping[int, str]) -> dict[int, float]:
    """CPU seconds of each process so far."""
    return {pid: cpu_seconds(pid) for pid in processes}


def cpu_between(before: Mapping[int, float], after: Mapping[int, float]) -> dict[int, float]:
    """CPU seconds that each process has used between two readings; one that began in between counts from its start."""
    return {pid: max(seconds - before.get(pid, 0.0), 0.0) for pid, seconds in after.items()}


def _command_line(pid: int) -> str:
    try:
        return (_PROCESSES / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
