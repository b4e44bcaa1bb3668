"""Ctrl-C as a user presses it: a clean end, nothing left running, and the same command continues."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from morphmlp.data.synthetic import write_demo_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    write_demo_dataset(folder / "videos", train=64, val=8, test=8)
    content = yaml.safe_load((ROOT / "experiments/demo/morphmlp_demo.yaml").read_text())
    content["data"] = {split: f"videos/{split}.parquet" for split in ("train", "val", "test")}
    content["train"] |= {"epochs": 12}
    content["execution"] = {"report_every_steps": 1}
    content["cluster"] = {"num_workers": 1}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
    return folder


def start(folder: Path) -> "subprocess.Popen[str]":
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
        start_new_session=True,  # a terminal's Ctrl-C goes to the whole group, Ray's processes among it
        env={**os.environ, "MORPHMLP_TEST_MARK": str(folder), "MLFLOW_TRACKING_URI": ""},
    )


def marked_processes(folder: Path) -> list[str]:
    """Everything on this machine that the command started, directly or through Ray."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"MORPHMLP_TEST_MARK={folder}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " ")[:120])
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_the_same_command_finishes(experiment: Path) -> None:
    process = start(experiment)
    run = experiment / "runs" / "again"
    while not any(run.glob("epoch-0003-*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with the same command and --run-name again" in errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while marked_processes(experiment) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert marked_processes(experiment) == []

    before = len((run / "progress.jsonl").read_text().splitlines())
    process = start(experiment)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    steps = [
        json.loads(line)["progress"]["step"]
        for line in (run / "progress.jsonl").read_text().splitlines()[before:]
        if json.loads(line).get("progress")
    ]
    assert steps[0] > 2 * 4  # Ray may not have noted the third checkpoint yet, but it has the second
    assert steps == list(range(steps[0], 12 * 4 + 1))
    assert json.loads((experiment / "result.json").read_text())["num_videos"] == 8
