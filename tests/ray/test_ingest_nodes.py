"""A local cluster of three nodes: decode tasks run on the one labelled for ingest, and nowhere else.

A folder that the driver alone can see stands for a disk that its machine alone has.

Runs in a process of its own, because the other tests of this folder hold a Ray session.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml
from morphmlp.data.manifest import Manifest, read_manifest, write_manifest

MakeConfig = Callable[..., ExperimentConfig]

THREE_NODES = """
import json, os, sys, threading, time
from pathlib import Path

import morphmlp.cluster.ray_cluster  # sets Ray's environment before Ray is imported
from ray.cluster_utils import Cluster
from morphmlp.drill.ray_nodes import add_node
from morphmlp.cli import experiment_arguments
from morphmlp.errors import ClusterError
from morphmlp.experiment.ray_pipeline import train_and_report

cluster = Cluster()
sizes = {"head": 0, "train": 4, "ingest": 2}
nodes = {role: add_node(cluster, num_cpus=cpus, labels={"node-role": role}) for role, cpus in sizes.items()}
os.environ["RAY_ADDRESS"] = cluster.address
raylets = {node.all_processes["raylet"][0].process.pid: role for role, node in nodes.items()}
seen = {}


def watch():
    while True:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                title = (entry / "cmdline").read_text().split("\\0")[0]
                if title.startswith(("ray::MapBatches(DecodeTask)", "ray::RayTrainWorker")):
                    parent = next(l for l in (entry / "status").read_text().splitlines() if l.startswith("PPid"))
                    seen.setdefault(title.split(".")[0], set()).add(raylets.get(int(parent.split()[1])))
            except OSError:
                pass
        time.sleep(0.01)


def arguments(*others):
    return experiment_arguments("", default_config=sys.argv[1], argv=["--run-name", "three-nodes", *others])


def refusal(*others):
    try:
        train_and_report(arguments(*others))
    except ClusterError as error:
        return str(error)


own = os.open("/", os.O_RDONLY)
os.dup2(own, 57, inheritable=False)  # the test's name for it
refusals = [
    refusal("--cluster.storage", "/proc/self/fd/57" + os.getcwd() + "/own"),
    refusal("--data.val", "own-val.parquet"),
]
threading.Thread(target=watch, daemon=True).start()
result = train_and_report(arguments())
found = {title: sorted(roles - {None}) for title, roles in seen.items()}
print(json.dumps({"num_videos": result.num_videos, "found": found, "refusals": refusals}))
cluster.shutdown()
"""


@pytest.mark.long
def test_all_decode_tasks_run_on_the_node_labelled_for_ingest(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        train__epochs=1, ingest__node_labels={"node-role": "ingest"}, cluster__storage=str(tmp_path / "runs")
    )
    (tmp_path / "experiment.yaml").write_text(config_to_yaml(config))
    (tmp_path / "three_nodes.py").write_text(THREE_NODES)
    val = read_manifest(config.data.val)
    paths = pa.array([f"/proc/self/fd/57{path}" for path in val.table["path"].to_pylist()])
    table = val.table.set_column(val.table.schema.get_field_index("path"), "path", paths)
    write_manifest(Manifest(table, val.class_names), tmp_path / "own-val.parquet")
    # The cluster keeps to a folder of its own, short enough for Ray's socket names.
    with tempfile.TemporaryDirectory(prefix="mmlp-") as folder:
        done = run_three_nodes(tmp_path, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["num_videos"] == 16
    assert answer["found"] == {"ray::MapBatches(DecodeTask)": ["ingest"], "ray::RayTrainWorker": ["train"]}
    storage, videos = answer["refusals"]
    assert storage.count("\n") == videos.count("\n") == 0
    assert re.fullmatch(r"cluster\.storage: node .* doesn't see what the command has just written to /proc/.*", storage)
    assert re.fullmatch(r"data\.val: node .* can't read /proc/self/fd/57/.*, which this machine can; .*", videos)


def run_three_nodes(tmp_path: Path, ray_folder: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "three_nodes.py", "experiment.yaml"],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": "", "RAY_TMPDIR": ray_folder},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
