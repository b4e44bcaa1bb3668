"""A local cluster of four nodes is looked over: by the command's own function, and by the part that trainings call.

Runs in a process of its own, because the other tests of this folder hold a Ray session.
"""

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

MakeConfig = Callable[..., ExperimentConfig]

FOUR_NODES = """
import dataclasses, json, os, sys
from pathlib import Path

import morphmlp.cluster.ray_cluster  # sets Ray's environment before Ray is imported
from ray.cluster_utils import Cluster
from morphmlp.cluster import ray_same_nodes
from morphmlp.cluster.ray_cluster import ray_session
from morphmlp.config import load_config
from morphmlp.drill.ray_nodes import add_node
from morphmlp.errors import ClusterError
from morphmlp.experiment.data_splits import read_splits
from morphmlp.preflight import checks, ray_preflight
from morphmlp.preflight.node import node_facts
from morphmlp.preflight.ray_preflight import look_over, require_ready
from morphmlp.progress import TerminalProgress

cluster = Cluster()
for role, cpus in (("head", 0), ("train", 1), ("train", 1), ("ingest", 2)):
    add_node(cluster, num_cpus=cpus, labels={"node-role": role})
os.environ["RAY_ADDRESS"] = cluster.address
config = load_config(sys.argv[1])
data = read_splits(config).by_split()
said = []


class Lines(TerminalProgress):
    def line(self, text):
        said.append(text)


progress = Lines()
with ray_session(config.cluster, config.ingest, micro_batches=4) as placement:
    require_ready(config, placement, progress)
    checks.OPEN_FILES = 10**9
    checks.CLOCK_S = -1.0
    facts = node_facts({})
    ray_preflight.node_facts = lambda _: dataclasses.replace(facts, versions={**facts.versions, "torch": "0.1"})
    try:
        require_ready(config, placement, progress)
    except ClusterError as error:
        refused = str(error)
ray_preflight.node_facts = node_facts
checks.OPEN_FILES, checks.CLOCK_S = 4096, 2.0
report, writer = look_over(config, data, run_name="preflight", progress=progress)
faults = [str(fault) for fault in checks.faults_of(report)]
ray_same_nodes.package_blobs = dict  # as where every node had other code
ray_preflight.node_facts = lambda _: dataclasses.replace(facts, versions={**facts.versions, "code": "0"})
differing, _ = look_over(config, data, run_name="preflight-2", progress=progress)
print(json.dumps({
    "said": said, "refused": refused, "faults": faults, "report": dataclasses.asdict(report),
    "other code": [str(fault) for fault in checks.faults_of(differing)], "steps": differing.steps is not None,
}))
cluster.shutdown()
"""


@pytest.mark.long
def test_nodes_are_looked_over_each_by_its_part(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        ingest__node_labels={"node-role": "ingest"},
        cluster__storage=str(tmp_path / "runs"),
        cluster__num_workers=2,
    )
    (tmp_path / "experiment.yaml").write_text(config_to_yaml(config))
    (tmp_path / "four_nodes.py").write_text(FOUR_NODES)
    # The cluster keeps to a folder of its own, short enough for Ray's socket names.
    with tempfile.TemporaryDirectory(prefix="mmlp-") as folder:
        done = subprocess.run(
            [sys.executable, "four_nodes.py", "experiment.yaml"],
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_TRACKING_URI": "", "RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    report = answer["report"]
    assert answer["faults"] == []
    assert len(report["nodes"]) == 4
    assert sum(node["trains"] for node in report["nodes"]) == 2
    assert [node["decoded"]["videos"] for node in report["nodes"] if node["decodes"]] == [16]
    (pair,) = report["pairs"]
    assert pair["bytes_per_s"] > 0
    assert (report["steps"]["steps"], report["steps"]["workers"]) == (3, 2)
    # What trainings call: another version ends a run before it starts, limits and clocks are said.
    assert answer["refused"].count("versions: ") == len(answer["refused"].splitlines()) == 3  # the head does nothing
    for check in ("open files", "clock"):
        assert sum(line.startswith(f"{check}: ") for line in answer["said"]) == 4
    # Where nodes have other code, that is the fault, and no step is taken.
    assert len(answer["other code"]) == 4
    assert all(line.startswith("versions: ") for line in answer["other code"])
    assert not answer["steps"]
    assert not list((tmp_path / "runs").iterdir())
