"""How long a user waits: from typing a command to its first training step and to the first scores of a test, by part.

The commands are those of a user, in processes of their own; the parts' times are those that each run keeps in its
folder (`morphmlp.start_marks`). Warm: a Ray cluster is running, and files are in the machine's memory. Cold: the
command starts Ray itself, and what it imports comes from the disk. Bare: a program without morphmlp that starts as many
processes of a warm Ray (`ray_bare_start`), which is what Ray and torch cost by themselves.
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
from typing import Self

from morphmlp.benchmarks.rounds import interleaved
from morphmlp.benchmarks.start_cpu import CpuAccount
from morphmlp.benchmarks.start_tables import COMMANDS, Kind, StartTimes, What
from morphmlp.cluster.token import MODE, have_token
from morphmlp.config.operation import ClusterConfig, WorkerRange
from morphmlp.errors import ClusterError, MorphMLPError
from morphmlp.progress import Progress
from morphmlp.start_marks import Part, start_parts

ROOT = Path(__file__).parents[2]
LONGEST_S = 600.0
"""Time for one command."""
_PIPELINES, _BARE_PROGRAM = ROOT / "pipelines", Path(__file__).parent / "ray_bare_start.py"
_IMPORTED = (Path(sys.prefix), Path(os.__file__).parent, ROOT / "morphmlp")
_RAY_WAIT_S = 120.0
_POLL_S = 0.1
_SAID = 2000
"""Letters of what a command said, where it fails."""


@dataclass(frozen=True, kw_only=True)
class BareShape:
    """How many processes a bare program asks for."""

    workers: int
    """Training workers, or scorers."""
    tasks: int
    """Decode tasks at a time, over all workers."""

    @classmethod
    def of(cls, cluster: ClusterConfig, *, cpus: int) -> Self:
        """What the commands ask for, on CPUs, of a cluster with so many."""
        asked = cluster.num_workers
        workers = asked.min if isinstance(asked, WorkerRange) else asked or 1
        return cls(workers=workers, tasks=max(workers, cpus - workers * cluster.cpus_per_worker))


@dataclass(frozen=True, kw_only=True)
class _Start:
    """One start."""

    parts: Mapping[str, float]
    part_cpu_s: Mapping[str, float]
    processes: Mapping[str, Sequence[float]]
    """CPU seconds of each process, by its kind."""


def measure_starts(
    config: Path,
    overrides: Sequence[str],
    *,
    kinds: Sequence[Kind],
    rounds: int,
    cpus: int,
    bare: BareShape,
    progress: Progress,
) -> list[StartTimes]:
    """Start a training and a test so many times under each condition, interleaved.

    Args:
        config: The experiment file.
        overrides: Of its fields, as a command takes them.
        kinds: The conditions.
        rounds: Starts under each of them.
        cpus: Of the Ray that is started for warm starts; none is where RAY_ADDRESS names a cluster.
        bare: Of bare starts.
        progress: Takes what is being done.

    Raises:
        MorphMLPError: A command failed, or Ray doesn't start; with what was said.
    """
    found: dict[tuple[What, Kind], list[_Start]] = {}
    wanted = any(kind != "cold" for kind in kinds)
    with tempfile.TemporaryDirectory(prefix="mmlp-start-") as name, _warm_ray(cpus, wanted=wanted) as warm:
        folder, address = Path(name), warm.address
        trial = _Trial(folder, config, overrides, ray_pids=warm.pids)
        progress.line("a whole run first, whose weights are tested then")
        trial.train("first", {"RAY_ADDRESS": address} if address else {}, to_end=True)
        progress.phase("starts", total=rounds * len(kinds), unit="rounds")
        for done, (number, kind) in enumerate(interleaved(list(kinds), rounds), start=1):
            environment = {} if kind == "cold" else {"RAY_ADDRESS": address}
            for what in COMMANDS:
                if kind == "cold":
                    forget_files(_IMPORTED)
                label = f"{kind}-{number}"
                if kind == "bare":
                    start = trial.bare(what, label, environment, bare)
                else:
                    start = (trial.train if what == "training" else trial.test)(label, environment)
                found.setdefault((what, kind), []).append(start)
            progress.update(done)
    return [_median_of(what, kind, starts) for (what, kind), starts in found.items()]


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


def _median_of(what: What, kind: Kind, starts: Sequence[_Start]) -> StartTimes:
    used = _medians([{name: sum(each) for name, each in start.processes.items()} for start in starts])
    return StartTimes(
        what=what,
        kind=kind,
        seconds=median(sum(start.parts.values()) for start in starts),
        parts=_medians([start.parts for start in starts]),
        rounds=[start.parts for start in starts],
        part_cpu_s=_medians([start.part_cpu_s for start in starts]),
        process_cpu_s=dict(sorted(used.items(), key=lambda item: -item[1])),
        processes=_medians([{name: len(each) for name, each in start.processes.items()} for start in starts]),
    )


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By name, in the order in which they first come; one that a row lacks is 0 there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: median(row.get(name, 0.0) for row in rows) for name in names}


class _Trial:
    """The commands, in a folder with storage and a record of its own."""

    def __init__(self, folder: Path, config: Path, overrides: Sequence[str], *, ray_pids: Sequence[int]) -> None:
        self._folder, self._runs, self._ray_pids = folder, folder / "runs", ray_pids
        self._fields = ["--config", str(config.absolute()), *overrides, "--cluster.storage", str(self._runs)]

    def train(self, name: str, environment: Mapping[str, str], *, to_end: bool = False) -> _Start:
        """Train until the first step is taken, or `to_end`."""
        fields = ["--train.max-steps", "1", "--execution.report-every-steps", "1"]
        marks = self._runs / name / "start.jsonl"
        began, account = self._run(
            [_PIPELINES / "train.py", *self._fields, "--run-name", name, *fields],
            environment,
            stopped=lambda: not to_end and Part.STEP in start_parts(marks),
        )
        return _start_of(start_parts(marks), began, account)

    def test(self, name: str, environment: Mapping[str, str]) -> _Start:
        """Test the weights of the first run."""
        answer = self._folder / f"{name}.json"
        options = ["--scores", str(self._folder / f"scores-{name}"), "--json", str(answer)]
        began, account = self._run(
            [_PIPELINES / "evaluate.py", "--checkpoint", self._runs / "first", *self._fields, *options],
            environment,
            stopped=lambda: False,
        )
        parts: dict[str, float] = json.loads(answer.read_text(encoding="utf-8"))["start"]
        return _start_of(parts, began, account)

    def bare(self, what: What, name: str, environment: Mapping[str, str], shape: BareShape) -> _Start:
        """Start what has nothing of morphmlp."""
        answer = self._folder / f"{what}-{name}.json"
        # Without the folder of the program, whose neighbours' names are for morphmlp alone.
        began, account = self._run(
            ["-P", _BARE_PROGRAM, what, answer, str(shape.workers), str(shape.tasks)],
            environment,
            stopped=lambda: False,
        )
        ends: dict[str, float] = json.loads(answer.read_text(encoding="utf-8"))
        return _start_of(
            {name: at - before for (name, at), before in zip(ends.items(), [began, *ends.values()], strict=False)},
            began,
            account,
        )

    def _run(
        self, arguments: Sequence[str | Path], environment: Mapping[str, str], *, stopped: Callable[[], bool]
    ) -> tuple[float, CpuAccount]:
        """Run a program to its end, or stop it as a user does; when it began, and who has used how much CPU time."""
        own = {"MLFLOW_TRACKING_URI": f"sqlite:///{self._folder / 'mlruns' / 'mlflow.db'}"}
        others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        program = next(word.name for word in arguments if isinstance(word, Path))
        roots, began = [*self._ray_pids], time.time()
        account = CpuAccount(roots)
        with (self._folder / "said.txt").open("w+", encoding="utf-8") as said, account.running():
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**others, **own, **environment},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            roots.append(process.pid)
            deadline, asked = time.monotonic() + LONGEST_S, False
            while process.poll() is None and time.monotonic() < deadline:
                if not asked and (asked := stopped()):
                    process.terminate()
                time.sleep(_POLL_S)
            process.kill()
            if process.wait() and not asked:
                said.seek(0)
                raise MorphMLPError(f"{program} ended with {process.returncode}: {said.read()[-_SAID:]}")
        return began, account


def _start_of(parts: Mapping[str, float], began: float, account: CpuAccount) -> _Start:
    return _Start(
        parts=parts,
        part_cpu_s=account.by_part(began, parts),
        processes=account.by_process(began + sum(parts.values())),
    )


@dataclass(frozen=True, kw_only=True)
class _WarmRay:
    """A cluster that is running; none: an empty address."""

    address: str
    pids: Sequence[int] = ()
    """What it was started by here; none where it runs elsewhere."""


@contextmanager
def _warm_ray(cpus: int, *, wanted: bool) -> Iterator[_WarmRay]:
    """The cluster of RAY_ADDRESS, or one that runs here for the time being."""
    if not wanted or "RAY_ADDRESS" in os.environ:
        yield _WarmRay(address=os.environ.get("RAY_ADDRESS", ""))
        return
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback alone, here and for the commands that join
    os.environ[MODE] = "token"  # the same for them; else a token in the home folder decides, or Ray leaves one there
    have_token()
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
                yield _WarmRay(address=known.read_text(encoding="utf-8").strip(), pids=[process.pid])
            finally:
                process.terminate()  # ends what it has started, too
                process.wait(_RAY_WAIT_S)
