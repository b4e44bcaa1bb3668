"""The stops that strike the run itself: its processes, its disk, its checkpoints."""

import contextlib
import random
import resource
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from morphmlp.drill import DrillError
from morphmlp.drill.demo_run import CHECKPOINT_EVERY, RUN_NAME, DemoRun, Surroundings
from morphmlp.drill.outcome import Comparison, Remains
from morphmlp.drill.processes import end_marked, kill, train_controller, training_worker
from morphmlp.training.checkpoint.store import CONTENT_FILE, CheckpointStore

SMALL_FILE_BYTES = 64 * 1024
"""Enough for a worker's ledger, too little for a checkpoint."""


class Stop(ABC):
    """One way to stop a run, and how to know that it happened."""

    name: str
    words: str
    """What happens, for the reader of the table."""
    ends_run = False
    """Whether the command ends by it, so that the user continues with the same one."""
    comparison: Comparison = "bit-identical"
    latest_step = 0.6
    """Share of the run before which it strikes."""

    @contextlib.contextmanager
    def surroundings(self, folder: Path, temporary: Path) -> Iterator[Surroundings]:
        """What the run needs around it, in the trial's folder and its short temporary one."""
        del folder, temporary
        yield Surroundings()

    @abstractmethod
    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Do it, and fix what a run can't fix by itself.

        Raises:
            DrillError: It can't be done any more.
        """

    @abstractmethod
    def proof(self, run: DemoRun, remains: Remains) -> str:
        """What shows that it happened, in words.

        Raises:
            DrillError: Nothing does.
        """


class WorkerKilled(Stop):
    """A training process dies; Ray Train starts the group again."""

    name = "worker-killed"
    words = "a training worker is killed (SIGKILL)"

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Kill one of the two."""
        kill(training_worker(run.folder, run.files.ledger, rng.randrange(2)), signal.SIGKILL)

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The workers started twice in one command."""
        return started_again(remains)


class DriverKilled(Stop):
    """The command dies without a word."""

    name = "driver-killed"
    words = "the command is killed (SIGKILL)"
    ends_run = True

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Kill the command alone; Ray's processes find out by themselves."""
        run.signal(signal.SIGKILL)

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The workers started twice."""
        return started_again(remains)


class CtrlC(Stop):
    """The user presses Ctrl-C."""

    name = "ctrl-c"
    words = "Ctrl-C in the terminal"
    ends_run = True
    signum = signal.SIGINT

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """As a terminal does it: to all processes of the group."""
        run.signal(self.signum, group=True)

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The command said how to continue."""
        return said(run, f"--run-name {RUN_NAME}")


class Terminated(Stop):
    """A cluster's scheduler needs the machine for others."""

    name = "sigterm"
    words = "SIGTERM, as before a preemption"
    ends_run = True

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """To the command alone."""
        run.signal(signal.SIGTERM)

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The command said how to continue."""
        return said(run, f"--run-name {RUN_NAME}")


class HungUp(CtrlC):
    """The terminal is closed."""

    name = "sighup"
    words = "SIGHUP, as from a terminal that is closed"
    signum = signal.SIGHUP


class LostLog(Stop):
    """Whoever reads what the command says goes away."""

    name = "lost-log"
    words = "the process that reads what the command says (tee) is killed"

    @contextlib.contextmanager
    def surroundings(self, folder: Path, temporary: Path) -> Iterator[Surroundings]:
        """A pipe to a reader."""
        yield Surroundings(piped=True)

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Kill the reader alone."""
        run.lose_reader()

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The run continued with the same workers, and its end is in its own log only."""
        continued(remains)
        words = f"{RUN_NAME}: test top-1"
        if any(words in line for line in run.said()):
            raise DrillError("the reader was still there at the end")
        line = next((line for line in run.files.log.read_text(encoding="utf-8").splitlines() if words in line), None)
        if line is None:
            raise DrillError(f"{run.files.log} has no {words!r}")
        return line


class ControllerKilled(Stop):
    """What leads the workers dies, as when Ray or the system runs out of memory."""

    name = "controller-killed"
    words = "Ray Train's controller is killed (SIGKILL, as for lack of memory)"

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Kill it; the workers end with it."""
        kill(train_controller(run.folder), signal.SIGKILL)

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The workers started twice in one command, which said why."""
        started_again(remains)
        return said(run, "restarted: the controller of the workers failed")


class FullDisk(Stop):
    """Checkpoints can't be written for a while."""

    name = "full-disk"
    words = "writing a checkpoint fails for a while (a limit on the size of the worker's files)"

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Limit the first worker's files until the run has said that a checkpoint couldn't be written."""
        with full_disk(run):
            struck = run.last_step()
            run.wait_until(
                lambda: any(FAILED_SAVE in line for line in run.said()) and run.last_step() > struck + CHECKPOINT_EVERY,
                what="say that a checkpoint could not be written",
            )
            if not list(CheckpointStore.of(run.checkpoint_storage, RUN_NAME).stored()):
                raise DrillError("the last good checkpoint was removed while the disk was full")

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The run said so, and continued with the same workers."""
        continued(remains)
        return said(run, FAILED_SAVE)


class FullDiskAtEnd(Stop):
    """The last checkpoint can't be written; room comes while the run waits."""

    name = "full-disk-at-end"
    words = "the disk is full until the run waits with its last checkpoint"

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Limit the first worker's files until the run waits."""
        with full_disk(run):
            run.wait_until(
                lambda: any(WAITING in line for line in run.said()), what="wait for room for its last checkpoint"
            )

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The run took no step again, and said that the checkpoint is written."""
        continued(remains)
        if remains.redone_steps:
            raise DrillError(f"{remains.redone_steps} steps were taken again for a full disk")
        return said(run, f"the checkpoint at step {run.demo.steps} is written now")


FAILED_SAVE = "could not be written"
WAITING = "checkpoint.wait_for_storage_s"


@contextlib.contextmanager
def full_disk(run: DemoRun) -> Iterator[None]:
    """The first worker's files may not grow; Python takes it as it takes a full disk."""
    pid = training_worker(run.folder, run.files.ledger, 0)
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, hard))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


class TruncatedCheckpoint(Stop):
    """The command dies, and the newest checkpoint is cut short."""

    name = "truncated-checkpoint"
    words = "the command is killed and the newest checkpoint is cut in half"
    ends_run = True

    def __init__(self) -> None:
        """Truncate nothing yet."""
        self._truncated = ""

    def strike(self, run: DemoRun, rng: random.Random) -> None:
        """Wait for two checkpoints, kill everything, and cut the newer one."""
        store = CheckpointStore.of(run.checkpoint_storage, RUN_NAME)
        run.wait_until(lambda: len(store.stored()) >= 2, what="write two checkpoints")
        run.signal(signal.SIGKILL)
        run.wait_for_end()
        end_marked(run.folder)
        newest = store.stored()[-1]
        path = run.files.root / "checkpoints" / newest.name / CONTENT_FILE
        with path.open("r+b") as file:
            file.truncate(newest.size // 2)
        self._truncated = newest.name

    def proof(self, run: DemoRun, remains: Remains) -> str:
        """The run named the truncated one, and began at an earlier one."""
        return said(run, self._truncated)


def started_again(remains: Remains) -> str:
    """The proof that workers started more than once.

    Raises:
        DrillError: They didn't.
    """
    if remains.attempts < 2:
        raise DrillError("the stop never happened: the workers started only once")
    return f"{remains.attempts} starts"


def continued(remains: Remains) -> None:
    """Check that the first workers trained to the end.

    Raises:
        DrillError: Others were started.
    """
    if remains.attempts != 1:
        raise DrillError(f"the run should have continued; its workers started {remains.attempts} times")


def said(run: DemoRun, text: str) -> str:
    """The last line of the terminal that contains a text.

    Raises:
        DrillError: None does.
    """
    line = next((line for line in reversed(run.said()) if text in line), None)
    if line is None:
        raise DrillError(f"the run never said {text!r}")
    return line.strip()
