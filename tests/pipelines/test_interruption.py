"""Ctrl-C, SIGTERM and SIGHUP as a run meets them: it saves and ends; the same command continues with the next step."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from signals import Reach, send

from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.drill.services import mlflow_server
from morphmlp.tracking import find_run
from morphmlp.training.record.run_folder import RunFolder, run_lock

ROOT = Path(__file__).parents[2]
EPOCHS = 6
STEPS = EPOCHS * 4
ENDS_WITHIN_S = 30.0
"""Slurm and container runtimes send SIGKILL after as long."""


@pytest.fixture
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("interrupted")
    write_demo_dataset(folder / "videos", train=64, val=8, test=8)
    content = yaml.safe_load((ROOT / "experiments/demo/morphmlp_demo.yaml").read_text())
    content["data"] = {split: f"videos/{split}.parquet" for split in ("train", "val", "test")}
    content["train"] |= {"epochs": EPOCHS}
    content["execution"] = {"report_every_steps": 1}
    content["checkpoint"] = {"every_epochs": None, "every_minutes": None}  # none but those of stops and of the end
    content["cluster"] = {"num_workers": 1}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as short:
        (folder / "tmpdir").write_text(short)
        yield folder


def temporary(folder: Path) -> Path:
    """Where the command keeps what it doesn't need longer; Ray's sockets take no long names."""
    return Path((folder / "tmpdir").read_text())


def start(folder: Path, *, uri: str = "") -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        str(ROOT / "pipelines/train_demo.py"),
        "--config",
        "experiment.yaml",
        "--run-name",
        "again",
    ]
    return subprocess.Popen(
        [*command, "--json", "result.json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what a terminal sends goes to the whole group, Ray's processes among it
        env={
            **os.environ,
            "MORPHMLP_TEST_MARK": str(folder),
            "MLFLOW_TRACKING_URI": uri,
            "TMPDIR": str(temporary(folder)),
        },
    )


def pids_of(folder: Path) -> list[int]:
    """Everything on this machine that the command started, directly or through Ray."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"MORPHMLP_TEST_MARK={folder}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def marked_processes(folder: Path) -> list[str]:
    """What these are."""
    found = []
    for pid in pids_of(folder):
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:120])
    return found


def steps_reported(run: Path) -> list[int]:
    path = run / "progress.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["progress"]["step"] for line in lines if line.get("progress")]


def wait_for_steps(process: "subprocess.Popen[str]", run: Path, count: int) -> None:
    while len(steps_reported(run)) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


def nothing_is_left(folder: Path) -> None:
    """Neither a process of the command nor a folder of its Ray."""
    deadline = time.monotonic() + 20
    while marked_processes(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert marked_processes(folder) == []
    assert list(temporary(folder).glob("mmlp-*")) == []


def status(folder: Path, uri: str = "") -> str:
    summary = find_run(uri or f"sqlite:///{folder}/mlruns/mlflow.db", run_name="again")
    assert summary is not None
    return summary.status


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


def it_saved_and_ended(
    process: "subprocess.Popen[str]", signum: signal.Signals, folder: Path, *, uri: str = ""
) -> None:
    """The last line, the exit code, what is left, and the record of a command that got the signal."""
    began = time.monotonic()
    _, errors = process.communicate(timeout=400)
    assert time.monotonic() - began < ENDS_WITHIN_S
    assert process.returncode == CODES[signum], errors
    assert f"{NAMES[signum]}: stopping after this step" in errors
    assert f"stopped by {NAMES[signum]}; continue with the same command and --run-name again" in errors
    assert (saved := re.search(r"; the checkpoint of step (\d+) is saved$", errors.rstrip()))
    assert int(saved[1]) >= steps_reported(folder / "runs" / "again")[-1]
    assert "Traceback" not in errors
    nothing_is_left(folder)
    assert status(folder, uri) == "KILLED"


@pytest.mark.parametrize(
    "signum",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_a_signal_leaves_a_run_that_the_same_command_finishes_without_repeating_a_step(
    signum: signal.Signals, experiment: Path
) -> None:
    run = experiment / "runs" / "again"
    process = start(experiment)
    wait_for_steps(process, run, 5)
    send(process, signum, "group")
    if signum == signal.SIGTERM:
        time.sleep(0.005)
        process.send_signal(signum)  # `timeout` ends the group, make passes on what it got
    it_saved_and_ended(process, signum, experiment)

    with run_lock(RunFolder(run)):
        _, refusal = start(experiment).communicate(timeout=400)
    assert f"process {os.getpid()} on" in refusal.splitlines()[-1]

    process = start(experiment)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert steps_reported(run) == list(range(1, STEPS + 1))
    assert status(experiment) == "FINISHED"
    assert json.loads((experiment / "result.json").read_text())["num_videos"] == 8


@pytest.mark.parametrize(
    ("signum", "reach"),
    [
        pytest.param(signal.SIGTERM, "every process", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "every process", marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, "every process", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "command", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, "command", marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, "command", marks=pytest.mark.long),
    ],
)
def test_a_run_saves_and_ends_whomever_a_signal_reaches(signum: signal.Signals, reach: Reach, experiment: Path) -> None:
    process = start(experiment)
    wait_for_steps(process, experiment / "runs" / "again", 3)
    send(process, signum, reach)
    it_saved_and_ended(process, signum, experiment)


@pytest.mark.long
def test_a_run_recorded_by_a_server_is_not_left_running_where_sigterm_reaches_every_process(experiment: Path) -> None:
    with mlflow_server(experiment) as server:
        process = start(experiment, uri=server.address)
        wait_for_steps(process, experiment / "runs" / "again", 3)
        send(process, signal.SIGTERM, "every process")
        it_saved_and_ended(process, signal.SIGTERM, experiment, uri=server.address)
