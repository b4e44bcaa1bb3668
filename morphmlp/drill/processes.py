"""Finding and ending what a drill has started, and nothing else: every process of it carries a mark."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from morphmlp.drill import DrillError

MARK = "MORPHMLP_DRILL"
"""Environment variable that all processes of a trial inherit; its value is the trial's folder."""
END_PATIENCE_S = 30.0
_LEDGER_FILE = re.compile(r"-worker(\d+)-of-\d+\.jsonl$")


def marked_environment(folder: Path, changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the trial's mark and changes."""
    return {**os.environ, **changes, MARK: str(folder)}


def marked_processes(folder: Path) -> list[int]:
    """Ids of the processes that a trial started, directly or through Ray."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def end_marked(folder: Path) -> None:
    """Kill what is left of a trial.

    Raises:
        DrillError: Something can't be ended.
    """
    deadline = time.monotonic() + END_PATIENCE_S
    while left := marked_processes(folder):
        if time.monotonic() > deadline:
            raise DrillError(f"processes {', '.join(map(str, left))} of {folder} can't be ended")
        for pid in left:
            kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def kill(pid: int, signal_number: signal.Signals) -> None:
    """Send a signal; a process that has just ended is no fault."""
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return


def training_worker(folder: Path, ledger: Path, rank: int) -> int:
    """Process id of the training worker of a rank.

    Args:
        folder: The trial's.
        ledger: `RunFolder.ledger` of its run.
        rank: Of the worker.

    Raises:
        DrillError: There is none.
    """
    workers = training_workers(folder, ledger)
    if rank not in workers:
        raise DrillError(f"no training worker {rank} is running in {folder}")
    return workers[rank]


def processes_named(folder: Path, name: str) -> list[int]:
    """Ids of a trial's processes with this in their command lines; Ray's are called `ray::` and their actor or task."""
    found = []
    for pid in marked_processes(folder):
        with contextlib.suppress(OSError):  # it has ended
            if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def train_controller(folder: Path) -> int:
    """Process id of Ray Train's controller.

    Args:
        folder: The trial's.

    Raises:
        DrillError: There is none.
    """
    found = processes_named(folder, "ray::TrainController")
    if not found:
        raise DrillError(f"no controller is running in {folder}")
    return found[0]


def training_workers(folder: Path, ledger: Path) -> dict[int, int]:
    """Process ids by rank: each has its ledger file open."""
    found = {}
    for pid in marked_processes(folder):
        try:
            opened = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        for path in opened:
            if path.parent == ledger and (name := _LEDGER_FILE.search(path.name)):
                found[int(name[1])] = pid
    return found
