"""The command: its table in a pipe, JSON alone, a watch that Ctrl-C ends, and faults in a line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from run_here import Done, run_here

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "pipelines/status.py"]
PRICES = """currency: EUR
train: {cpus: 4, gpus: 1, memory_gib: 16, network_gbit: 10, hour_price: 36}
ingest: {cpus: 16, memory_gib: 64, network_gbit: 25, hour_price: 1}
"""


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A store with one run of 2 epochs, 5 of whose 8 steps were reported just now."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    tags = {"morphmlp.experiment": "mine", "morphmlp.data.train": "32:abc"}
    run = client.create_run("0", run_name="first", tags=tags, start_time=int(time.time() * 1000) - 100_000)
    for name, value in {"train.epochs": 2, "train.global_batch_size": 8}.items():
        client.log_param(run.info.run_id, name, value)
    client.log_metric(run.info.run_id, "train/workers", 2, step=0)
    client.log_metric(run.info.run_id, "train/clips_per_s", 4.0, step=5)
    return uri


def status(uri: str, *arguments: str) -> Done:
    return run_here(ROOT / COMMAND[1], *arguments, cwd=ROOT, environment={**os.environ, "MLFLOW_TRACKING_URI": uri})


def status_afresh(uri: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    outside = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=outside, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
def test_a_run_in_a_pipe_and_as_json(uri: str, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    priced = ("--prices", str(tmp_path / "prices.yaml"))
    printed = status_afresh(uri, *priced)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "\x1b" not in printed.stdout
    # In its row, or in the line below where the row is too wide.
    _, _, row = printed.stdout.partition("first")
    assert "5/8 62%" in row
    found = json.loads(status(uri, "--run", "first", "--json", "-", *priced).stdout)
    [run] = found["runs"]
    assert (run["step"], run["total_steps"], run["epochs"], run["workers"]) == (5, 8, 2, 2)
    assert run["left_s"] == 3 * 8 / 4
    # two workers without a GPU hold one node of 4 cores for the 100 s since the start and those of this test
    assert 1.0 <= run["cost"] < 5.0
    assert found["cluster"] is None


@pytest.mark.slow
def test_a_watch_looks_again_until_ctrl_c(uri: str) -> None:
    outside = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    watching = subprocess.Popen(
        [*COMMAND, "--watch", "0.1"], cwd=ROOT, env=outside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        seen = 0
        while seen < 2:
            seen += watching.stdout.readline().startswith("first")
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
    finally:
        watching.kill()
        watching.communicate()
    assert (watching.returncode, said) == (130, "stopped\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "arguments", "said"),
    [
        ("http://127.0.0.1:9", (), "tracking store http://127.0.0.1:9: no answer"),
        ("sqlite:////nowhere/mlflow.db", ("--all", "--last", "3"), "--run, --last, --all: choose one"),
    ],
)
def test_what_is_wrong_is_one_line(where: str, arguments: tuple[str, ...], said: str) -> None:
    done = status(where, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_a_line_below_the_runs(uri: str) -> None:
    done = status_afresh(uri, "--address", "127.0.0.1:9")
    assert done.returncode == 0
    assert "first" in done.stdout
    words = " ".join(done.stdout.split())  # lines are as wide as a terminal
    assert "--address 127.0.0.1:9: no cluster answers: Connection refused; start it, or fix the address" in words
