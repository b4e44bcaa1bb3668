"""The cluster file, read by Ray's own code; nothing is launched."""

import copy
import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from cluster_files import ROOT, filled_in
from packaging.requirements import Requirement

# Private, and on purpose: `ray up` has no dry run, and these functions are the checks that it makes before it asks AWS
# for anything. Only this test uses them.
from ray.autoscaler._private.aws.config import _configure_security_group
from ray.autoscaler._private.util import prepare_config, validate_config

from morphmlp.config import schema

CLUSTER_FILE = ROOT / "cluster.yaml"
TEXT = filled_in(CLUSTER_FILE)
SERVER = (ROOT / "deploy/mlflow_server.sh").read_text(encoding="utf-8")


@pytest.fixture
def cluster() -> dict:
    return yaml.safe_load(TEXT)


def prepared_types(cluster: dict) -> list[tuple[str, dict]]:
    return list(prepare_config(cluster)["available_node_types"].items())


def installed_packages(cluster: dict) -> dict[str, str]:
    """The exactly pinned packages of the set-up commands, by name."""
    commands = " ".join(cluster["setup_commands"])
    return dict(re.findall(r'"([A-Za-z0-9_-]+)(?:\[[^\]]*\])?==([^"]+)"', commands))


def test_ray_accepts_the_cluster_file(cluster):
    validate_config(prepare_config(cluster))


@pytest.mark.parametrize("place", [(), ("auth",), ("available_node_types", "train")])
def test_ray_refuses_a_misspelt_key(cluster, place):
    section = cluster
    for key in place:
        section = section[key]
    section["max_wrokers"] = 1
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config(cluster))


def test_ray_refuses_more_nodes_than_the_cluster_may_have(cluster):
    cluster["max_workers"] = 2
    with pytest.raises(ValueError, match="min_workers"):
        validate_config(prepare_config(cluster))


def test_nothing_is_open_to_the_world():
    assert "0.0.0.0" not in TEXT
    assert "::/0" not in TEXT


def test_ray_makes_no_security_group_of_its_own(cluster):
    # Ray's own groups admit SSH from anywhere; with groups named on every node type it returns before it asks AWS.
    prepared = prepare_config(cluster)
    assert all(node["node_config"]["SecurityGroupIds"] for node in prepared["available_node_types"].values())
    assert _configure_security_group(copy.deepcopy(prepared)) == prepared
    assert "security_group" not in prepared["provider"]


def test_ray_makes_no_role_and_no_key_pair_of_its_own(cluster):
    # Its role may do everything in EC2 and S3, and stays after `ray down`.
    profiles = {name: node["node_config"]["IamInstanceProfile"] for name, node in prepared_types(cluster)}
    assert profiles == {
        "head": {"Name": "morphmlp-head"},
        "train": {"Name": "morphmlp-node"},
        "ingest": {"Name": "morphmlp-node"},
    }
    assert all(node["node_config"]["KeyName"] for _, node in prepared_types(cluster))
    assert "ssh_private_key" in cluster["auth"]


def test_policies_allow_no_kind_of_call_as_a_whole():
    for name in ("head", "bucket"):
        for statement in json.loads((ROOT / f"deploy/aws/{name}.json").read_text(encoding="utf-8"))["Statement"]:
            assert "*" not in json.dumps(statement["Action"])
            if "Condition" not in statement and name == "head":
                assert statement["Resource"] != "*" or statement["Action"] == ["ec2:DescribeInstances"]


def test_the_dashboard_and_mlflow_listen_on_the_loopback_only(cluster):
    start = " ".join(cluster["head_start_ray_commands"])
    assert re.findall(r"--(?:dashboard-)?host[= ](\S+)", start + SERVER) == ["127.0.0.1", "127.0.0.1"]


def test_mlflow_starts_no_jobs_of_its_own_beside_training():
    for text in (SERVER, (ROOT / "Makefile").read_text(encoding="utf-8")):
        assert text.count("mlflow server --") == 1
        assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in text.partition("mlflow server --")[0]


def test_the_record_lies_on_the_shared_storage(cluster):
    assert any("mlflow_server.sh start /mnt/shared/" in command for command in cluster["head_start_ray_commands"])
    assert cluster["file_mounts"]["~/morphmlp/deploy"] == "deploy"


def test_scripts_on_the_head_find_the_cluster_and_the_record(cluster):
    profile = " ".join(cluster["head_setup_commands"])
    assert "export RAY_ADDRESS=auto MLFLOW_TRACKING_URI=http://127.0.0.1:5000" in profile


def test_every_node_asks_for_the_token(cluster):
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        assert all("export RAY_AUTH_MODE=token" in command for command in commands if "ray start" in command)


def test_the_head_takes_no_tasks(cluster):
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"]["CPU"] == 0
    [start] = [command for command in cluster["head_start_ray_commands"] if "ray start --head" in command]
    assert "--num-cpus=0" in start.split()


def test_all_nodes_install_the_ray_that_the_tests_ran_with(cluster):
    assert installed_packages(cluster)["ray"] == importlib.metadata.version("ray")


def test_pinned_versions_lie_within_the_projects_own_bounds(cluster):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}
    pins = installed_packages(cluster)
    assert {"ray", "torch", "numpy", "pyarrow", "mlflow"} <= pins.keys()
    outside = [name for name, version in pins.items() if not requirements[name].specifier.contains(version)]
    assert outside == []


def test_all_ray_extras_of_the_project_are_installed(cluster):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [wanted] = [item for item in map(Requirement, project["dependencies"]) if item.name == "ray"]
    [extras] = re.findall(r'"ray\[([^\]]*)\]==', " ".join(cluster["setup_commands"]))
    assert set(extras.split(",")) == wanted.extras


def test_the_ingest_nodes_carry_the_label_that_the_documents_name(cluster):
    labels = [node["labels"] for node in cluster["available_node_types"].values()]
    assert cluster["available_node_types"]["ingest"]["labels"] == {"node-role": "ingest"}
    for page in [CLUSTER_FILE, Path(schema.__file__), ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for role in re.findall(r"node-role[:=] ?(\w+)", page.read_text(encoding="utf-8")):
            assert {"node-role": role} in labels, f"{page}: no node type has node-role {role}"


def test_mounted_files_exist_and_are_those_an_installation_needs(cluster):
    local = {path for path in cluster["file_mounts"].values() if not path.startswith("~")}
    assert [path for path in local if not (ROOT / path).exists()] == []
    assert {"morphmlp", "pyproject.toml", "README.md", "LICENSE", "pipelines", "experiments"} <= local
