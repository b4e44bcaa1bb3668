"""`pipelines/drill.py` as a user runs it: some of its stops."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def drill(*arguments):
    command = [sys.executable, str(ROOT / "pipelines" / "drill.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "MLFLOW_TRACKING_URI": ""}
    )


def test_a_stop_that_is_not_known_is_one_clear_line():
    done = drill("--stops", "ctrl-c,ctrl-d")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: --stops: there is no 'ctrl-d'; choose from worker-killed, controller-killed, node-lost"
    )


def test_runs_are_never_kept_over_others(tmp_path):
    (tmp_path / "notes.txt").touch()
    done = drill("--keep", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: --keep: {tmp_path} isn't empty; name a new folder\n"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("stops", "steps"),  # 7 an epoch, with a checkpoint every 5
    [
        pytest.param(["worker-killed"], 14, marks=pytest.mark.slow),
        pytest.param(["controller-killed", "full-disk-at-end"], 21, marks=pytest.mark.long),
        pytest.param(
            ["driver-killed", "sigterm", "sighup", "lost-log", "full-disk", "truncated-checkpoint"],
            42,
            marks=pytest.mark.long,
        ),
        pytest.param(["helpers-killed", "decoding-killed"], 28, marks=pytest.mark.long),
    ],
    ids=["worker", "controller", "others", "helpers"],
)
def test_runs_that_are_stopped_end_as_if_nothing_had_happened(stops, steps, tmp_path):
    arguments = ("--stops", ",".join(stops), "--steps", steps, "--json", tmp_path / "drill.json")
    done = drill(*arguments, "--keep", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "drill.json").read_text(encoding="utf-8"))
    assert [stop["stop"] for stop in result["stops"]] == stops
    for stop in result["stops"]:
        assert (stop["repeated"], stop["lost"], stop["weights_equal"]) == (0, 0, True)
        assert stop["comparison"] == "bit-identical"
        assert stop["greatest_difference"] == 0.0
    assert done.stdout.count("yes") == len(stops)
