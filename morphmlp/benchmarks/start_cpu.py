"""Where the CPU time of a start goes: which processes take it, and how much of it is taken during each of its parts.

A part that takes long while little CPU time is used waits for something; on a machine with few cores a part that runs
next to others takes as long as all of them need.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

from morphmlp.benchmarks.process_cpu import cpu_seconds, process_tree

_LOOK_EVERY_S = 0.1
_UNUSED = "Ray worker, not used"
_NAMES = {
    "raylet/raylet": "raylet",  # whose line has its workers' in it
    "isolation.child": "decoder",
    "default_worker.py": _UNUSED,
    "setup_worker.py": _UNUSED,
    "ray::IDLE": _UNUSED,
    "gcs_server": "GCS",
    "runtime_env/agent": "runtime environments' agent",
    "dashboard/agent": "dashboard's agent",
    "log_monitor": "log monitor",
    "pipelines/": "the command",
    "ray_bare_start": "the command",
    "git ": "git",
}
"""What a process is, by a part of its command line."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """The CPU seconds that each process had used at a time."""

    at: float
    """Seconds since 1970."""
    cpu_s: Mapping[int, float]


class CpuAccount:
    """What processes do while something runs, looked at every tenth of a second."""

    def __init__(self, roots: Sequence[int]) -> None:
        """Looks at these processes, to which others may be added, and all that come from them."""
        self._roots = roots
        self._looks: list[Look] = []
        self._names: dict[int, list[str]] = {}
        self._last: dict[int, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look until the end of the block."""
        over = threading.Event()
        thread = threading.Thread(target=self._look_until, args=(over,), name="cpu-account", daemon=True)
        self._look()
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def by_process(self, end: float) -> dict[str, list[float]]:
        """CPU seconds up to a time of each process that used any, by its kind."""
        first, last = self._looks[0], self._at(end)
        kinds: dict[str, list[float]] = {}
        for pid, seconds in last.cpu_s.items():
            if (used := seconds - first.cpu_s.get(pid, 0.0)) > 0:
                kinds.setdefault(self._kind(pid), []).append(used)
        return kinds

    def by_part(self, began: float, parts: Mapping[str, float]) -> dict[str, float]:
        """CPU seconds of all processes together during each part; parts follow each other from a time on."""
        ends = list(accumulate(parts.values(), initial=began))
        used = [sum(self._at(end).cpu_s.values()) for end in ends]
        return {part: after - before for part, before, after in zip(parts, used, used[1:], strict=False)}

    def _at(self, time_s: float) -> Look:
        return self._looks[max(0, bisect_right(self._looks, time_s, key=lambda look: look.at) - 1)]

    def _look_until(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        for root in list(self._roots):
            for pid, line in process_tree(root).items():
                self._last[pid] = max(self._last.get(pid, 0.0), cpu_seconds(pid))  # one that is gone keeps its time
                names = self._names.setdefault(pid, [])
                if line and (name := _name_of(line)) not in names:  # one that has just ended has no line
                    names.append(name)
        self._looks.append(Look(at=time.time(), cpu_s=dict(self._last)))

    def _kind(self, pid: int) -> str:
        """What a process was, by what it did last; a worker of Ray's is one that waits before and after its work."""
        names = self._names[pid]
        return next((name for name in reversed(names) if name != _UNUSED), _UNUSED)


def _name_of(line: str) -> str:
    if line.startswith("ray::") and not line.startswith("ray::IDLE"):
        return line.removeprefix("ray::").partition(".")[0]
    words = " ".join(word.rpartition("/")[2] for word in line.split()[:3])
    return next((name for part, name in _NAMES.items() if part in line), words)
