"""How long a user waits: from typing a command to its first training step and to the first scores of a test, by part.

The commands are those of a user, in processes of their own; the parts' times are those that each run keeps in its
folder (`morphmlp.start_marks`). Warm: a Ray cluster is running, and files are in the machine's memory. Cold: the
command starts Ray itself, and what it imports comes from the disk.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from tabulate import tabulate

from morphmlp.benchmarks.rounds import interleaved
from morphmlp.errors import ClusterError, MorphMLPError
from morphmlp.progress import Progress
from morphmlp.start_marks import Part, start_parts

ROOT = Path(__file__).parents[2]
Kind = Literal["warm", "cold"]
What = Literal["training", "test"]
KINDS: tuple[Kind, ...] = ("warm", "cold")
LONGEST_S = 600.0
"""Time for one command."""
_IMPORTED = (Path(sys.prefix), Path(os.__file__).parent, ROOT / "morphmlp")
_RAY_WAIT_S = 120.0
_POLL_S = 0.1
_SAID = 2000
"""Letters of what a command said, where it fails."""


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


def measure_starts(
    config: Path, overrides: Sequence[str], *, kinds: Sequence[Kind], rounds: int, cpus: int, progress: Progress
) -> list[StartTimes]:
    """Start a training and a test so many times under each condition, interleaved.

    Args:
        config: The experiment file.
        overrides: Of its fields, as a command takes them.
        kinds: The conditions.
        rounds: Starts under each of them.
        cpus: Of the Ray that is started for warm starts; none is where RAY_ADDRESS names a cluster.
        progress: Takes what is being done.

    Raises:
        MorphMLPError: A command failed, or Ray doesn't start; with what was said.
    """
    found: dict[tuple[What, Kind], list[Mapping[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="mmlp-start-") as name, _warm_ray(cpus, wanted="warm" in kinds) as address:
        folder = Path(name)
        trial = _Trial(folder, config, overrides)
        progress.line("a whole run first, whose weights are tested then")
        trial.train("first", {"RAY_ADDRESS": address} if address else {}, to_end=True)
        progress.phase("starts", total=rounds * len(kinds), unit="rounds")
        for done, (number, kind) in enumerate(interleaved(list(kinds), rounds), start=1):
            environment = {"RAY_ADDRESS": address} if kind == "warm" else {}
            if kind == "cold":
                forget_files(_IMPORTED)
            found.setdefault(("training", kind), []).append(trial.train(f"{kind}-{number}", environment))
            if kind == "cold":
                forget_files(_IMPORTED)
            found.setdefault(("test", kind), []).append(trial.test(f"{kind}-{number}", environment))
            progress.update(done)
    return [_median_of(what, kind, starts) for (what, kind), starts in found.items()]


def starts_table(found: Sequence[StartTimes]) -> str:
    """A line for each part, a column for each command under each condition."""
    sides = sorted(found, key=lambda side: (side.what == "test", side.kind == "cold"))
    names = [part for part in map(str, Part) if any(part in side.parts for side in sides)]
    rows = [[name, *(f"{side.parts[name]:.2f}" if name in side.parts else "-" for side in sides)] for name in names]
    rows.append(["all", *(f"{side.seconds:.2f}" for side in sides)])
    headers = ["part (s)", *(f"{side.what}, {side.kind}" for side in sides)]
    align = ("left", *["right"] * len(sides))
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align)


def forget_files(folders: Sequence[Path]) -> None:
    """Take the files of folders out of the machine's memory, as far as no running process has them mapped."""
    for folder in folders:
        for path in folder.rglob("*"):
            if (path.suffix in {".py", ".pyc", ".so"} or ".so." in path.name) and path.is_file():
                file = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(file)


def _median_of(what: What, kind: Kind, starts: Sequence[Mapping[str, float]]) -> StartTimes:
    parts = {
        part: median(start.get(part, 0.0) for start in starts) for part in dict.fromkeys(p for s in starts for p in s)
    }
    return StartTimes(
        what=what, kind=kind, seconds=median(sum(start.values()) for start in starts), parts=parts, rounds=starts
    )


class _Trial:
    """The commands, in a folder with storage and a record of its own."""

    def __init__(self, folder: Path, config: Path, overrides: Sequence[str]) -> None:
        self._folder, self._runs = folder, folder / "runs"
        self._fields = ["--config", str(config.absolute()), *overrides, "--cluster.storage", str(self._runs)]

    def train(self, name: str, environment: Mapping[str, str], *, to_end: bool = False) -> dict[str, float]:
        """Train until the first step is taken, or `to_end`; the parts of the start."""
        fields = ["--train.max-steps", "1", "--execution.report-every-steps", "1"]
        marks = self._runs / name / "start.jsonl"
        self._run(
            ["train.py", *self._fields, "--run-name", name, *fields],
            environment,
            stopped=lambda: not to_end and Part.STEP in start_parts(marks),
        )
        return start_parts(marks)

    def test(self, name: str, environment: Mapping[str, str]) -> dict[str, float]:
        """Test the weights of the first run; the parts of the start."""
        answer = self._folder / f"{name}.json"
        options = ["--scores", str(self._folder / f"scores-{name}"), "--json", str(answer)]
        self._run(
            ["evaluate.py", "--checkpoint", str(self._runs / "first"), *self._fields, *options],
            environment,
            stopped=lambda: False,
        )
        parts: dict[str, float] = json.loads(answer.read_text(encoding="utf-8"))["start"]
        return parts

    def _run(self, arguments: Sequence[str], environment: Mapping[str, str], *, stopped: Callable[[], bool]) -> None:
        """Run a pipeline to its end, or stop it as a user does."""
        own = {"MLFLOW_TRACKING_URI": f"sqlite:///{self._folder / 'mlruns' / 'mlflow.db'}"}
        others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with (self._folder / "said.txt").open("w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "pipelines" / arguments[0]), *arguments[1:]],
                env={**others, **own, **environment},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            deadline, asked = time.monotonic() + LONGEST_S, False
            while process.poll() is None and time.monotonic() < deadline:
                if not asked and (asked := stopped()):
                    process.terminate()
                time.sleep(_POLL_S)
            process.kill()
            if process.wait() and not asked:
                said.seek(0)
                raise MorphMLPError(f"{arguments[0]} ended with {process.returncode}: {said.read()[-_SAID:]}")


@contextmanager
def _warm_ray(cpus: int, *, wanted: bool) -> Iterator[str]:
    """The address of a cluster: that of RAY_ADDRESS, or of one that runs here for the time being; none: empty."""
    if not wanted or "RAY_ADDRESS" in os.environ:
        yield os.environ.get("RAY_ADDRESS", "")
        return
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback alone, here and for the commands that join
    with tempfile.TemporaryDirectory(prefix="mmlp-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        options = ["--head", "--block", "--port", "0", "--node-ip-address", "127.0.0.1", "--num-cpus", str(cpus)]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--include-dashboard", "false"]
        with (folder / "said.txt").open("w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                [*command, "--temp-dir", name],
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            try:
                deadline, known = time.monotonic() + _RAY_WAIT_S, folder / "ray_current_cluster"
                while not known.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        said.seek(0)
                        raise ClusterError(f"ray start: {said.read()[-_SAID:]}")
                    time.sleep(_POLL_S)
                time.sleep(2)  # its node is there a moment later
                yield known.read_text(encoding="utf-8").strip()
            finally:
                process.terminate()  # ends what it has started, too
                process.wait(_RAY_WAIT_S)
