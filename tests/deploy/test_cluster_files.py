"""What the cluster files of all places have in common, by Ray's own checks and shellcheck's."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster_files import ROOT, filled_in
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

RAY_UP_FILES = ["cluster.yaml", "deploy/gcp.yaml", "deploy/owned_machines.yaml"]
PLACES = [*RAY_UP_FILES, "deploy/kuberay.yaml", "deploy/slurm.sh"]
GPUS = {"deploy/gcp.yaml": 4, "deploy/kuberay.yaml": 4}  # of a node that trains, where Ray isn't left to find them
INSTALLERS = [*RAY_UP_FILES, "deploy/Dockerfile"]
SCRIPTS = sorted(path.name for path in (ROOT / "deploy").glob("*.sh"))


def loaded(name: str) -> dict:
    return yaml.safe_load(filled_in(ROOT / name))


def roles(name: str) -> dict[str, dict]:
    """Each role's labels and resources as Ray reads them; of scripts, the options that they give to `ray start`."""
    if name == "deploy/kuberay.yaml":
        [cluster] = [item for item in yaml.safe_load_all(filled_in(ROOT / name)) if item["kind"] == "RayCluster"]
        cluster["metadata"]["namespace"] = "default"
        types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
        return {"head" if role == "headgroup" else role: node for role, node in types.items()}
    if name in ("cluster.yaml", "deploy/gcp.yaml"):
        return prepare_config(loaded(name))["available_node_types"]
    found = {}
    text = filled_in(ROOT / name).replace("\\\n", " ").replace("\n    ", " ")
    for words in re.findall(r".*--labels=.*", text):
        [role] = re.findall(r"--labels=node-role=([$\w]+)", words)
        amounts = {kind: float(n) for kind, n in re.findall(r"--num-(cpus|gpus)=(\d+)", words)}
        resources = {"CPU": amounts.get("cpus"), "GPU": amounts.get("gpus", 0)}
        for named in ("train", "ingest") if role == "$NODE_ROLE" else (role,):
            found[named] = {"labels": {"node-role": named}, "resources": resources}
    return found


@pytest.mark.parametrize("name", PLACES)
def test_every_place_has_the_same_roles_and_a_head_that_computes_nothing(name):
    found = roles(name)
    assert {role: node["labels"] for role, node in found.items()} == {
        role: {"node-role": role} for role in ("head", "train", "ingest")
    }
    assert found["head"]["resources"]["CPU"] == 0
    assert [found[role]["resources"].get("GPU", 0) for role in ("head", "ingest")] == [0, 0]
    assert found["train"]["resources"].get("GPU", 0) == GPUS.get(name, 0)


@pytest.mark.parametrize("name", PLACES)
def test_every_place_asks_for_the_token_opens_nothing_and_runs_the_ray_of_these_tests(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.search(r"RAY_AUTH_MODE=token|authOptions: \{mode: token\}", text)
    assert "0.0.0.0" not in text
    assert "::/0" not in text
    assert "mlflow_server.sh start" in text or "mlflow server --host 127.0.0.1 " in text
    image = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8") if "kuberay" in name else ""
    versions = re.findall(r"(?:ray\[[a-z,]+\]==|rayVersion: |rayproject/ray:)([\d.]+)", text + image)
    assert set(versions) == (set() if name == "deploy/slurm.sh" else {importlib.metadata.version("ray")})


@pytest.mark.parametrize("name", [*RAY_UP_FILES, "deploy/kuberay.yaml", "deploy/kuberay_job.yaml"])
def test_each_blank_left_is_refused_by_its_line(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    blank = re.compile(r"(?m)^(?!#)(.*?)(!REPLACE-ME |\*REPLACE-ME +# )")
    lines = [number for number, line in enumerate(text.splitlines()) if blank.match(line)]
    assert lines
    list(yaml.safe_load_all(filled_in(ROOT / name)))
    for number in lines:  # the first of a file is named, so each is tried alone
        alone = [line if n == number else blank.sub(r"\1", line) for n, line in enumerate(text.splitlines())]
        with pytest.raises(yaml.MarkedYAMLError, match=f"REPLACE-ME'\n.*line {number + 1},"):
            list(yaml.safe_load_all("\n".join(alone)))


@pytest.mark.parametrize("name", RAY_UP_FILES)
def test_ray_accepts_the_file_once_filled_in(name):
    validate_config(prepare_config(loaded(name)))


@pytest.mark.parametrize("name", RAY_UP_FILES)
def test_every_place_has_the_same_fences(name):
    cluster = loaded(name)
    assert "0.0.0.0" not in (ROOT / name).read_text(encoding="utf-8")
    assert cluster["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"
    assert cluster["file_mounts"] == loaded("cluster.yaml")["file_mounts"]
    [head] = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    [worker] = [command for command in cluster["worker_start_ray_commands"] if "ray start" in command]
    assert all("export RAY_AUTH_MODE=token" in command for command in (head, worker))
    assert {"--head", "--num-cpus=0", "--dashboard-host=127.0.0.1"} <= set(head.split())
    assert any("mlflow_server.sh start /mnt/shared/" in command for command in cluster["head_start_ray_commands"])


TOKEN = r"\(umask 077; ray get-auth-token .*?auth_token\)"
RAY_WRITES_ITS_TOKEN = """#!/bin/sh
mkdir -p ~/.ray; [ -s ~/.ray/auth_token ] || echo secret > ~/.ray/auth_token
"""


@pytest.mark.parametrize("there", [False, True], ids=["no token yet", "one that all may read"])
@pytest.mark.parametrize("name", [*RAY_UP_FILES, "docs/cluster.md"])
def test_the_token_is_its_owners_alone_wherever_it_is_written(name, there, tmp_path):
    [make] = re.findall(TOKEN, (ROOT / name).read_text(encoding="utf-8"))
    commands = [make, *loaded(name)["setup_commands"][:1]] if name in RAY_UP_FILES else [make]
    (tmp_path / "ray").write_text(RAY_WRITES_ITS_TOKEN, encoding="utf-8")
    (tmp_path / "ray").chmod(0o755)
    file = tmp_path / ".ray/auth_token"
    for command in commands:
        if there:
            file.parent.mkdir(exist_ok=True)
            file.write_text("secret", encoding="utf-8")
            file.chmod(0o644)
        environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
        subprocess.run(["bash", "-c", f"umask 022; {command}"], env=environment, check=True)
        assert file.read_text(encoding="utf-8").strip() == "secret"
        assert file.stat().st_mode & 0o777 == 0o600


def test_all_places_install_the_same_versions():
    pins = [set(re.findall(r'"[a-z0-9-]+(?:\[[^\]]*\])?==[^"]+"', (ROOT / name).read_text())) for name in RAY_UP_FILES]
    assert len(pins[0]) == 9
    assert all(found == pins[0] for found in pins)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name):
    checker = Path(sys.executable).with_name("shellcheck")
    found = subprocess.run([checker, ROOT / "deploy" / name], capture_output=True, text=True, check=False)
    assert found.stdout + found.stderr == ""


def start_words(command: str, folder: Path, node: str) -> list[list[str]]:
    """What `ray` is given when this start command runs on a host with that ~/morphmlp.node."""
    (folder / "venv/bin").mkdir(parents=True)
    ray = folder / "venv/bin/ray"
    ray.write_text('#!/bin/sh\necho "$RAY_AUTH_MODE $RAY_enable_autoscaler_v2 $*"\n', encoding="utf-8")
    ray.chmod(0o755)
    (folder / "morphmlp.node").write_text(node, encoding="utf-8")
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "10.0.0.10"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("node", "given"),
    [
        ("NODE_ROLE=train\nNODE_CPUS=\nNODE_RAY_ARGS=", ["--labels=node-role=train"]),
        ("NODE_ROLE=ingest\nNODE_CPUS=2", ["--num-cpus=2", "--labels=node-role=ingest"]),
        ("NODE_ROLE=train\nNODE_RAY_ARGS='--num-gpus=1 -v'", ["--labels=node-role=train", "--num-gpus=1", "-v"]),
    ],
)
def test_an_owned_machine_starts_ray_as_its_own_file_says(node, given, tmp_path):
    [command] = [
        words for words in loaded("deploy/owned_machines.yaml")["worker_start_ray_commands"] if "ray start" in words
    ]
    [[mode, autoscaler_v2, *words]] = start_words(command, tmp_path, node)
    assert (mode, autoscaler_v2) == ("token", "0")
    fixed = ["start", "--address=10.0.0.10:6379", "--object-manager-port=8076"]
    assert words == [*fixed, *given, "--disable-usage-stats"]


@pytest.mark.parametrize("role", ["head", "train", "ingest", "worker", ""])
def test_a_role_that_is_none_is_refused_by_the_set_up(role, tmp_path):
    [check] = [words for words in loaded("deploy/owned_machines.yaml")["setup_commands"] if "NODE_ROLE" in words]
    (tmp_path / "morphmlp.node").write_text(f"NODE_ROLE={role}\n", encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", check], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    right = role in ("head", "train", "ingest")
    assert done.returncode == (0 if right else 2)
    assert right or "head, train or ingest" in done.stderr
