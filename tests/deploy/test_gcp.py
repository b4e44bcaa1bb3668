"""Google Cloud's file: its machines against Compute Engine's description of itself, and what `ray up` asks for."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from cluster_files import ROOT, filled_in, laptop

FILE = ROOT / "deploy/gcp.yaml"
ROLES = ["storage.objectAdmin", "compute.admin", "iam.serviceAccountUser", "iam.roleViewer"]
FAKE = ROOT / "tests/fixtures/fake_google.py"


@pytest.fixture(scope="module")
def machine() -> jsonschema.Draft4Validator:
    """Compute Engine's `Instance`, from the description that Google's client brings; unknown fields are faults."""
    document = files("googleapiclient.discovery_cache") / "documents/compute.v1.json"
    schemas = json.loads(document.read_text(encoding="utf-8"))["schemas"]

    def strict(node: object) -> object:
        if isinstance(node, list):
            return [strict(item) for item in node]
        if not isinstance(node, dict):
            return node
        found = {key: strict(value) for key, value in node.items() if key not in ("id", "required", "annotations")}
        if isinstance(node.get("properties"), dict):
            found["additionalProperties"] = False
        if isinstance(node.get("$ref"), str):
            found["$ref"] = "#/schemas/" + node["$ref"]
        return found

    return jsonschema.Draft4Validator({"$ref": "#/schemas/Instance", "schemas": strict(schemas)})


@pytest.mark.parametrize("role", ["head", "train", "ingest"])
def test_each_machine_is_one_that_compute_engine_describes(role, machine):
    text = filled_in(FILE)
    spot = re.sub(
        r"(?m)^      # (scheduling: .*SPOT.*)$", r"      \1", re.sub(r"(?m)^      scheduling: .*\n", "", text)
    )
    for cluster in map(yaml.safe_load, (text, spot)):
        body = cluster["available_node_types"][role]["node_config"]
        assert list(machine.iter_errors(body)) == []
        assert machine.is_valid(body | {"machinetype": "x"}) is False
    assert ("scheduling" in body and body["scheduling"]["provisioningModel"] == "SPOT") == (role != "head")


def up(folder: Path, words: list[str]) -> list[dict]:
    """Runs the stand-in's command on a laptop of its own and gives the requests that it added to the record."""
    calls = folder / "calls.jsonl"
    calls.touch()
    before = len(calls.read_text(encoding="utf-8").splitlines())
    credentials = folder / "adc.json"
    user = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    credentials.write_text(json.dumps(user), encoding="utf-8")
    member = "serviceAccount:ray-autoscaler-sa-v1@x"
    never = {"title": "never", "expression": 'request.time < timestamp("2000-01-01T00:00:00Z")'}
    bindings = [{"role": f"roles/{role}", "members": [member], "condition": never} for role in ROLES]
    environment = laptop(folder) | {
        "GOOGLE_CALLS": str(calls),
        "GOOGLE_POLICY": json.dumps({"version": 3, "bindings": bindings}),
        "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
    }
    done = subprocess.run(
        [sys.executable, FAKE, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in calls.read_text(encoding="utf-8").splitlines()[before:]]


@pytest.mark.slow
def test_the_launches_are_those_of_the_file_and_nothing_else_is_made(tmp_path, machine):
    file = tmp_path / "cluster.yaml"
    file.write_text(filled_in(FILE), encoding="utf-8")
    by_laptop = up(tmp_path, ["up", "-y", "--no-config-cache", str(file)])
    bootstrap = tmp_path / "bootstrap.yaml"
    by_head = up(tmp_path, ["workers", str(bootstrap)])

    launches = [call["body"] for call in by_laptop + by_head if call["id"] == "compute.instances.insert"]
    zone = "zones/us-central1-a/machineTypes"
    assert [(body["machineType"], body["serviceAccounts"][0]["email"].partition("@")[0]) for body in launches] == [
        (f"{zone}/n2-standard-8", "morphmlp-head"),
        *[(f"{zone}/g2-standard-48", "morphmlp-node")] * 2,
        *[(f"{zone}/n2-standard-32", "morphmlp-node")] * 2,
    ]
    for body in launches:
        assert list(machine.iter_errors(body)) == []
        assert body["labels"]["ray-cluster-name"] == "morphmlp"
        assert all(re.fullmatch(r"[a-z0-9_-]{0,63}", word) for item in body["labels"].items() for word in item)
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", body["name"])
        [interface], [disk] = body["networkInterfaces"], body["disks"]
        assert "accessConfigs" not in interface, "an address outside the network"
        assert disk["boot"] is True
        assert disk["initializeParams"]["diskType"].endswith("pd-balanced")
        metadata = {item["key"]: item["value"] for item in body["metadata"]["items"]}
        assert (metadata["block-project-ssh-keys"], metadata["serial-port-enable"]) == ("true", "false")

    # No account, right, network, rule, key or disk of its own; what the laptop asks besides only looks.
    made = {call["id"] for call in by_laptop + by_head if not call["id"].endswith((".get", ".list", "getIamPolicy"))}
    assert made == {f"compute.instances.{verb}" for verb in ("insert", "setLabels", "delete")}
    assert "0.0.0.0/0" not in json.dumps(by_laptop + by_head)

    # What the head's Ray asks for is what its role lets it ask.
    role = yaml.safe_load((ROOT / "deploy/gcp/head_role.yaml").read_text(encoding="utf-8"))["includedPermissions"]
    asked = {call["id"].replace(".insert", ".create") for call in by_head}
    assert asked - set(role) == set()
    assert not any("iam" in name or name.startswith("compute.firewalls") for name in role)

    words = (tmp_path / "words.txt").read_text(encoding="utf-8")
    assert "ProxyCommand=gcloud compute start-iap-tunnel %h %p" in words
    assert f"ubuntu@{launches[0]['name']}" in words, "the tunnel goes by the machine's name"
    on_head = yaml.safe_load(bootstrap.read_text(encoding="utf-8"))
    assert {"ssh_proxy_command", "ssh_proxy_use_node_id"} & on_head["auth"].keys() == set()
    assert {name: node["labels"] for name, node in on_head["available_node_types"].items()} == {
        role: {"node-role": role} for role in ("head", "train", "ingest")
    }


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("gcloud"), reason="Google's command line isn't installed here")
def test_gcloud_knows_the_commands_of_the_documents(tmp_path):
    text = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith("gcloud ")]
    commands = [line.replace("$never", "title=x,expression=x") for line in commands]
    commands = [re.sub(r"\$\w+", "x", re.sub(r"<([a-z-]+)>", r"\1", line)) for line in commands]
    wrong = "gcloud compute networks create morphmlp --subnets=custom"
    (tmp_path / "commands").write_text("\n".join(["```", *commands, wrong, "```"]), encoding="utf-8")
    check = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-text-file={tmp_path / 'commands'}", "--format=json"]
    done = subprocess.run(check, capture_output=True, text=True, check=True, timeout=300)
    found, _ = json.JSONDecoder().raw_decode(done.stdout)
    assert len(found) == len(commands) + 1
    assert [line["command_string"] for line in found if not line["success"]] == [wrong]
