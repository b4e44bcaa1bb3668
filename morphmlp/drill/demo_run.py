"""A run of the demo in a folder of its own: its command line, how far it has come, and what it said."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.loading import parse_yaml
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.drill import DrillError
from morphmlp.drill.processes import end_marked, marked_environment
from morphmlp.training.record.ledger import History, read_history
from morphmlp.training.record.run_folder import RunFolder

RUN_NAME = "drill"
TRAIN_VIDEOS, OTHER_VIDEOS = 120, 8
"""120 videos make 7 steps an epoch of 16 videos, and leave 8 out."""
CHECKPOINT_EVERY = 5
"""Steps; no divisor of an epoch's."""
PATIENCE_S = 600.0
"""How long a run may take to reach a step, or to end, seconds."""
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What all runs of a drill share."""

    script: Path
    """The training pipeline."""
    config: Path
    """The demo's experiment file."""
    videos: Path
    steps: int
    """Optimiser steps of a run."""

    def make_videos(self) -> None:
        """Write the data set, where it isn't there yet."""
        write_demo_dataset(self.videos, train=TRAIN_VIDEOS, val=OTHER_VIDEOS, test=OTHER_VIDEOS)

    def arguments(self, overrides: Mapping[str, str]) -> list[str]:
        """The overrides of a run as `--field=value`."""
        epochs = -(-self.steps // (TRAIN_VIDEOS // 16))
        fields = {
            **{f"data.{split}": str(self.videos / f"{split}.parquet") for split in ("train", "val", "test")},
            "train.epochs": str(epochs),
            "train.max_steps": str(self.steps),
            "test.num_clips": "1",
            "execution.ledger": "true",
            "execution.report_every_steps": "1",
            "execution.validate_every_epochs": str(epochs),
            "checkpoint.every_epochs": "null",
            "checkpoint.every_steps": str(CHECKPOINT_EVERY),
            "checkpoint.every_minutes": "null",
            "cluster.num_workers": "2",
            "cluster.device": "cpu",
            **overrides,
        }
        return [f"--{name}={value}" for name, value in fields.items()]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a stop needs around the run."""

    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    tracking_uri: str | None = None
    """Where the record can be read afterwards; None: in the trial's folder."""
    piped: bool = False
    """Whether another process reads what the command says, as in `train ... | tee log`."""


class DemoRun:
    """One run of the demo; it may take several commands."""

    def __init__(
        self, demo: Demo, folder: Path, temporary: Path, surroundings: Surroundings, *, name: str = RUN_NAME
    ) -> None:
        """Start nothing yet.

        Args:
            demo: What is run.
            folder: The trial's own; all files of the run are in it.
            temporary: Its temporary folder, short enough for Ray's sockets.
            surroundings: What the stop put around it.
            name: The run's.
        """
        self.demo, self.folder, self.surroundings, self.name = demo, folder, surroundings, name
        self.files = RunFolder(folder / "runs" / name)
        self.seconds = 0.0
        """Wall time of all commands together."""
        self.commands = 0
        self._temporary = temporary
        self._process: subprocess.Popen[bytes] | None = None
        self._tee: subprocess.Popen[bytes] | None = None
        self._began, self._running = 0.0, False

    @property
    def config(self) -> ExperimentConfig:
        """The experiment, with the run's overrides."""
        pairs = (argument[2:].split("=", 1) for argument in self.demo.arguments(self.surroundings.overrides))
        return load_config(self.demo.config, {name: parse_yaml(value) for name, value in pairs})

    @property
    def tracking_uri(self) -> str:
        """Where the record can be read."""
        return self.surroundings.tracking_uri or f"sqlite:///{self.folder / 'mlruns' / 'mlflow.db'}"

    @property
    def checkpoint_storage(self) -> str:
        """Folder or address of the checkpoints, above the run's name."""
        return self.surroundings.overrides.get("checkpoint.storage", str(self.folder / "runs"))

    def start(self) -> None:
        """Begin the run, or continue it with the same command."""
        self.commands += 1
        command = [
            *(sys.executable, str(self.demo.script), "--config", str(self.demo.config), "--run-name", self.name),
            *("--json", "result.json", *self.demo.arguments(self.surroundings.overrides)),
        ]
        environment = {"MLFLOW_TRACKING_URI": "", "TMPDIR": str(self._temporary), **self.surroundings.environment}
        self._began, self._running = time.monotonic(), True
        with self._terminal.open("ab") as terminal, self._reader(terminal) as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # what a terminal sends goes to the whole group, Ray's processes among it
                env=marked_environment(self.folder, environment),
            )

    @contextlib.contextmanager
    def _reader(self, terminal: IO[bytes]) -> Iterator[IO[bytes]]:
        """What the command writes to: the terminal, or a pipe to the process that writes it there."""
        if not self.surroundings.piped:
            yield terminal
            return
        reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=terminal, start_new_session=True)
        if reader.stdin is None:
            raise DrillError("no pipe to cat")
        self._tee = reader
        with reader.stdin:
            yield reader.stdin

    def lose_reader(self) -> None:
        """End the process that reads what the command says.

        Raises:
            DrillError: There is none.
        """
        if self._tee is None:
            raise DrillError("nobody reads what the run says")
        self._tee.kill()
        self._tee.wait()

    @property
    def pid(self) -> int:
        """Process id of the running command, and of its process group."""
        if self._process is None:
            raise DrillError("the run hasn't been started")
        return self._process.pid

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the command, or to all processes of its terminal."""
        (os.killpg if group else os.kill)(self.pid, number)

    def history(self) -> History:
        """The ledger so far."""
        return read_history(self.files.ledger)

    def last_step(self) -> int:
        """The last step that the newest group of workers has begun; -1 where it hasn't begun one."""
        attempts = self.history().attempts
        return max(attempts[-1].steps, default=-1) if attempts else -1

    def said(self) -> list[str]:
        """Lines that the commands wrote to the terminal."""
        return self._terminal.read_text(encoding="utf-8", errors="replace").splitlines()

    def wait_for_step(self, step: int) -> None:
        """Until the run has begun a step.

        Raises:
            DrillError: It ended before, or doesn't get there.
        """
        self.wait_until(lambda: self.last_step() >= step, what=f"begin step {step}")

    def wait_until(self, reached: Callable[[], bool], *, what: str) -> None:
        """Until something holds, while the command runs.

        Args:
            reached: Asked again and again.
            what: What the run should do, for the message.

        Raises:
            DrillError: The command ended before, or it takes too long.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if self._process is None or self._process.poll() is not None:
                raise DrillError(f"the run ended before it could {what}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise DrillError(f"the run didn't {what} in {PATIENCE_S:.0f} s: {self._last_words()}")
            time.sleep(LOOK_EVERY_S)

    def wait_for_end(self) -> int:
        """The command's exit code.

        Raises:
            DrillError: It takes too long.
        """
        if self._process is None:
            raise DrillError("the run hasn't been started")
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise DrillError(f"the run didn't end in {PATIENCE_S:.0f} s: {self._last_words()}") from None
        if self._running:
            self._running = False
            self.seconds += time.monotonic() - self._began
        return code

    def finish(self) -> None:
        """Wait for the end of a command that must succeed.

        Raises:
            DrillError: It failed, or takes too long.
        """
        if code := self.wait_for_end():
            raise DrillError(f"the run ended with code {code}: {self._last_words()}")

    @property
    def _terminal(self) -> Path:
        return self.folder / "terminal.txt"

    def _last_words(self) -> str:
        return next((line for line in reversed(self.said()) if line.strip()), "it said nothing")


@contextlib.contextmanager
def trial_folders(folder: Path) -> Iterator[Path]:
    """A trial's folder, and a short temporary one that is yielded; afterwards nothing of the trial is running."""
    folder.mkdir(parents=True)
    temporary = Path(tempfile.mkdtemp(prefix=""))
    try:
        yield temporary
    finally:
        end_marked(folder)
        shutil.rmtree(temporary, ignore_errors=True)
