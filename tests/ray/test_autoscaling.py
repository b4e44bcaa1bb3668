"""A cluster without nodes that train or decode gets both for a run, by their labels, and loses them afterwards.

Ray's autoscaler is real; its machines are Ray's own fake ones, raylets of this machine, each with a folder of its own.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_program import ROOT, run_program

from morphmlp.config import ExperimentConfig

MakeConfig = Callable[..., ExperimentConfig]

FAKE_MACHINES = """
import os
from functools import partial
from pathlib import Path
from unittest.mock import patch

from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class FakeMachines(FakeMultiNodeProvider):
    def _create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        folder = Path(os.environ["RAY_TMPDIR"]) / "ray"
        own = {"temp_dir": str(folder / str(len(list(folder.iterdir())))), "memory": resources["memory"]}
        others = {name: amount for name, amount in resources.items() if name != "memory"}
        with patch.object(parameter, "RayParams", partial(parameter.RayParams, **own)):
            super()._create_node_with_resources_and_labels(node_config, tags, count, others, labels)
"""

AUTOSCALED = """
import json, os, socket, subprocess, sys, time
from pathlib import Path

import morphmlp.cluster.ray_cluster  # sets Ray's environment before Ray is imported
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cluster_utils import Cluster
from morphmlp.drill.ray_nodes import add_node

with socket.socket() as free:
    free.bind(("", 0))
    port = free.getsockname()[1]


def machines(role, cpus, most):
    resources = {"CPU": cpus, "memory": 2**32, "object_store_memory": 150 * 2**20}
    return {"resources": resources, "labels": {"node-role": role}, "max_workers": most, "node_config": {}}


Path("cluster.json").write_text(json.dumps({
    "cluster_name": "fake",
    "max_workers": 4,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "external",
        "module": "fake_machines.FakeMachines",
        "launch_multiple": True,
        "disable_node_updaters": True,
        "gcs_address": f"{ray.util.get_node_ip_address()}:{port}",
    },
    "file_mounts": {},
    **{f"{part}_commands": [] for part in ("setup", "head_setup", "worker_setup")},
    "cluster_synced_files": [],
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": machines("head", 0, 0),
        "train": machines("train", 1, 2),
        "ingest": machines("ingest", 2, 2),
    },
}))
head = {
    "RAY_enable_autoscaler_v2": "1",  # as `ray start` does
    "RAY_FAKE_CLUSTER": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}
os.environ |= head
cluster = Cluster()
add_node(cluster, num_cpus=0, gcs_server_port=port, autoscaling_config=os.path.abspath("cluster.json"))
for name in head:
    del os.environ[name]


def nodes():
    roles = [node["Labels"].get("node-role", "head") for node in cluster.global_state.node_table() if node["Alive"]]
    return [roles.count(role) for role in ("train", "ingest")]


seen = [nodes()]
command = [sys.executable, sys.argv[1], "--config", "experiment.yaml", "--run-name", "run"]
training = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": cluster.address})
while training.poll() is None or seen[-1] != [0, 0]:
    time.sleep(0.2)
    seen += [now] if (now := nodes()) != seen[-1] else []
print(json.dumps(seen))
cluster.shutdown()
sys.exit(training.returncode)
"""


@pytest.mark.long
def test_nodes_come_for_a_run_by_their_labels_and_go_afterwards(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        train__epochs=4,
        cluster__num_workers=1,
        cluster__wait_for_nodes_s=300.0,
        cluster__storage=str(tmp_path / "runs"),
        ingest__node_labels={"node-role": "ingest"},
        ingest__cpus=2,
    )
    files = {"autoscaled.py": AUTOSCALED, "fake_machines.py": FAKE_MACHINES}
    # The autoscaler loads its fake machines from there.
    done = run_program(tmp_path, files, config, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen[0] == seen[-1] == [0, 0]
    assert [1, 1] in seen  # for the bundles that the run asks for by label
    assert max(ingest for _, ingest in seen) == 2  # for decode tasks that wait for a CPU
