"""A run on a local cluster of several nodes that loses one, gets one, and is told that one goes.

Runs in a process of its own, because the other tests of this folder hold a Ray session.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml

ROOT = Path(__file__).parents[2]
MakeConfig = Callable[..., ExperimentConfig]

NODES_COME_AND_GO = """
import os, subprocess, sys, time
from pathlib import Path

import morphmlp.cluster.ray_cluster  # sets Ray's environment before Ray is imported
from ray.cluster_utils import Cluster
from morphmlp.drill.ray_nodes import add_node

pipeline = sys.argv[1]
cluster = Cluster()
sizes = {"head": 0, "ingest": 2, "train": 1}
add = lambda role: add_node(cluster, num_cpus=sizes[role], labels={"node-role": role})
second = [add(role) for role in ("head", "ingest", "train", "train")][-1]
os.environ["RAY_ADDRESS"] = cluster.address


def train(name):
    return subprocess.Popen([sys.executable, pipeline, "--config", f"{name}.yaml", "--run-name", name])


def count(file, text):
    path = Path("runs/elastic") / file
    return path.read_text().count(text) if path.exists() else 0


def wait_for(file, text, *, total):
    while count(file, text) < total:
        assert training.poll() is None, f"it ended before {text} stood {total} times in {file}"
        time.sleep(0.05)


def drain(node):
    notice = {"reason": "DRAIN_NODE_REASON_PREEMPTION", "reason-message": "spot", "deadline-remaining-seconds": "300"}
    options = {"address": cluster.address, "node-id": node.node_id, **notice}
    command = [Path(sys.executable).with_name("ray"), "drain-node"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


training = train("elastic")
wait_for("progress.jsonl", '"loss"', total=8)
cluster.remove_node(second, allow_graceful=False)
wait_for("events.jsonl", "resized from 2 to 1", total=1)
third = add("train")
wait_for("events.jsonl", "resized from 1 to 2", total=1)
wait_for("progress.jsonl", '"loss"', total=count("progress.jsonl", '"loss"') + 8)
drain(third)
assert training.wait() == 0
assert train("fixed").wait() == 0
cluster.shutdown()
"""


def steps_of(run: Path) -> list[tuple[int, float]]:
    """Step and loss of every report, in the order in which they were made."""
    lines = map(json.loads, (run / "progress.jsonl").read_text().splitlines())
    return [(line["progress"]["step"], line["progress"]["loss"]) for line in lines if line.get("progress")]


@pytest.mark.long
def test_a_run_follows_nodes_that_come_and_go_on_the_same_loss_curve(make_config: MakeConfig, tmp_path: Path) -> None:
    for name, workers in {"elastic": {"min": 1, "max": 2}, "fixed": 1}.items():
        config = make_config(
            train__epochs=20,
            cluster__num_workers=workers,
            cluster__resize_check_s=2.0,
            cluster__max_failures=0,
            cluster__storage=str(tmp_path / "runs"),
            ingest__node_labels={"node-role": "ingest"},
        )
        (tmp_path / f"{name}.yaml").write_text(config_to_yaml(config))
    (tmp_path / "nodes_come_and_go.py").write_text(NODES_COME_AND_GO)
    # The cluster keeps to a folder of its own, short enough for Ray's socket names.
    with tempfile.TemporaryDirectory(prefix="mmlp-") as folder:
        done = run_nodes_come_and_go(tmp_path, folder)
    assert done.returncode == 0, done.stderr[-3000:]

    events = [json.loads(line)["event"] for line in (tmp_path / "runs/elastic/events.jsonl").read_text().splitlines()]
    resizes = [event.split(":")[0] for event in events if event.startswith("resized")]
    assert resizes == ["resized from 2 to 1 workers", "resized from 1 to 2 workers", "resized from 2 to 1 workers"]
    assert events[-1].endswith("a node is about to be taken away")

    steps = steps_of(tmp_path / "runs/elastic")
    jumps = [(last, then) for (last, _), (then, _) in itertools.pairwise(steps) if then != last + 1]
    assert len(jumps) <= 1  # only the node that went without a word takes steps with it
    expected = dict(steps_of(tmp_path / "runs/fixed"))
    assert dict(steps).keys() == expected.keys() == set(range(1, 20 * 6 + 1))
    assert dict(steps) == pytest.approx(expected, rel=1e-4)


def run_nodes_come_and_go(tmp_path: Path, ray_folder: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "nodes_come_and_go.py", str(ROOT / "pipelines" / "train_demo.py")],
        cwd=tmp_path,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": "",
            "RAY_TMPDIR": ray_folder,
            "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
