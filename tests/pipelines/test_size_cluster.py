"""The command: a table, its JSON, and node counts in a cluster file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
NODES = """currency: EUR
train: {cpus: 48, gpus: 4, memory_gib: 192, network_gbit: 40, hour_price: 6}
ingest: {cpus: 16, memory_gib: 64, network_gbit: 25, hour_price: 1}
"""


def size(*arguments):
    command = [sys.executable, "pipelines/size_cluster.py", "--config", "experiments/k400/morphmlp_s_16x4.yaml"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_cluster_is_sized_and_written(tmp_path):
    prices, cluster, result = tmp_path / "nodes.yaml", tmp_path / "cluster.yaml", tmp_path / "size.json"
    prices.write_text(NODES)
    shutil.copy(ROOT / "cluster.yaml", cluster)
    done = size(
        *("--gpus", "16", "--train.global-batch-size", "128", "--videos", "240000", "--val-videos", "20000"),
        *("--step-s", "0.1337", "--decode-ms", "30", "--prices", str(prices)),
        *("--write", str(cluster), "--json", str(result)),
    )
    assert done.returncode == 0, done.stderr
    found, written = json.loads(result.read_text()), yaml.load(cluster.read_text(), Loader=yaml.BaseLoader)
    assert found["times"]["workers"] == 16
    assert found["inputs"]["decode_measured_by"] == "--decode-ms"
    for role, count in (("train", found["train_nodes"]), ("ingest", found["ingest_nodes"])):
        assert written["available_node_types"][role]["min_workers"] == str(count)
    assert "16 of 16: a step has 16 micro-batches of 8 videos" in done.stdout


def test_options_that_need_node_types_are_refused_in_a_line():
    done = size("--write", "cluster.yaml", "--scale", "--figure", "plot.txt")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert "error: --write: needs --prices" in done.stderr
