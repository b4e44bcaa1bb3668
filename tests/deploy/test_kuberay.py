"""Kubernetes' files: each object against Kubernetes' schemas and KubeRay's fields, and as kubectl reads it."""

import copy
import re
import shlex
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster_files import ROOT, filled_in

CLUSTER, JOB = ROOT / "deploy/kuberay.yaml", ROOT / "deploy/kuberay_job.yaml"
SCHEMA = yaml.safe_load((ROOT / "tests/fixtures/kuberay_schema.yaml").read_text(encoding="utf-8"))
OBJECTS = [item for file in (CLUSTER, JOB) for item in yaml.safe_load_all(filled_in(file))]
[RAY_CLUSTER] = [item for item in OBJECTS if item["kind"] == "RayCluster"]
[RAY_JOB] = [item for item in OBJECTS if item["kind"] == "RayJob"]
GROUPS = {"head": RAY_CLUSTER["spec"]["headGroupSpec"]} | {
    group["groupName"]: group for group in RAY_CLUSTER["spec"]["workerGroupSpecs"]
}
TEMPLATES = {role: group["template"] for role, group in GROUPS.items()} | {
    "job": RAY_JOB["spec"]["submitterPodTemplate"],
    "postgres": next(item for item in OBJECTS if item["kind"] == "StatefulSet")["spec"]["template"],
}
KUBERNETES = ["1.29", kubernetes_validate.latest_version()]


def faults(item: dict, kubernetes: str) -> list[str]:
    """What is wrong with an object, by the schema of who reads it; unknown fields are faults."""
    if item["apiVersion"] == "ray.io/v1":
        schema = {"$ref": f"#/definitions/{item['kind']}", **SCHEMA}
        return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(item["spec"])]
    try:
        kubernetes_validate.validate(item, kubernetes, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_each_object_and_each_pod_is_one_that_kubernetes_and_kuberay_take(kubernetes):
    pods = [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": role}, "template": template}
        for role, template in TEMPLATES.items()
    ]
    for item in [*OBJECTS, *pods]:
        assert faults(item, kubernetes) == []
        wrong = copy.deepcopy(item)
        wrong.get("spec", wrong.get("template"))["replica"] = 1
        assert faults(wrong, kubernetes), "a misspelt field"


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl isn't installed here")
@pytest.mark.parametrize("file", [CLUSTER, JOB], ids=lambda file: file.stem)
def test_kubectl_reads_the_file_once_filled_in_and_refuses_each_blank(file, tmp_path):
    def read(text: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        words = ["kubectl", "annotate", "--local", "-f", str(tmp_path / "x.yaml"), "a=b", "-o", "jsonpath={.kind} "]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    documents = re.split(r"(?m)^---$", file.read_text(encoding="utf-8"))
    blanks = [text for text in documents if re.search(r"\*REPLACE-ME ", text.partition("apiVersion")[2])]
    assert len(blanks) == (2 if file == CLUSTER else 1)
    for text in blanks:
        refused = read(text)
        assert refused.returncode != 0
        assert "unknown anchor 'REPLACE-ME' referenced" in refused.stderr
    done = read(filled_in(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [item["kind"] for item in yaml.safe_load_all(filled_in(file))]


@pytest.mark.parametrize("role", TEMPLATES)
def test_no_pod_may_more_than_it_needs(role):
    """The rules of Kubernetes' `restricted` level, but for the kind of volumes."""
    pod = TEMPLATES[role]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    # The head's autoscaler asks Kubernetes for pods; nobody else asks it for anything.
    assert pod.get("automountServiceAccountToken", True) is (role == "head")
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert not any("hostPort" in port for port in container.get("ports", []))
    assert RAY_CLUSTER["spec"]["autoscalerOptions"]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_nothing_has_an_address_outside_and_each_pod_has_a_fence():
    for item in OBJECTS:
        assert item["kind"] != "Ingress"
        assert item.get("spec", {}).get("type", "ClusterIP") == "ClusterIP"
    assert not {"enableIngress", "serviceType", "headService"} & GROUPS["head"].keys()
    fences = [item["spec"] for item in OBJECTS if item["kind"] == "NetworkPolicy"]
    for template in TEMPLATES.values():
        labels = template["metadata"]["labels"].items()
        assert any(fence["podSelector"]["matchLabels"].items() <= labels for fence in fences)
    sources = [source for fence in fences for rule in fence["ingress"] for source in rule["from"]]
    assert all(source["podSelector"]["matchLabels"] for source in sources)
    assert all("Ingress" in fence["policyTypes"] for fence in fences)


def test_the_record_outlives_the_cluster_and_only_the_head_reaches_it():
    [database] = [item["spec"] for item in OBJECTS if item["kind"] == "StatefulSet"]
    assert set(database["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    [server] = TEMPLATES["head"]["spec"]["initContainers"]
    assert server["restartPolicy"] == "Always"
    assert "--host 127.0.0.1 " in server["args"][0]
    assert "--artifacts-destination /mnt/shared/" in server["args"][0]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in TEMPLATES["head"]["spec"]["volumes"][:1]]
    assert claims == ["morphmlp-shared"]
    assert [name for name, pod in TEMPLATES.items() if "part" in pod["metadata"]["labels"]] == ["head"]


def test_the_run_of_the_job_survives_two_shells():
    """KubeRay puts the entrypoint into a script that calls `ray job submit`, which puts its words into another."""
    entrypoint = RAY_JOB["spec"]["entrypoint"]
    script = f"printf '%s\\0' {entrypoint}"
    once = subprocess.run(["bash", "-ce", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    again = subprocess.list2cmdline(once)  # as Ray's command does
    assert shlex.split(again) == shlex.split(entrypoint)
    assert "{node-role: ingest}" in shlex.split(entrypoint)
    for word in shlex.split(entrypoint):
        assert (ROOT / word).is_file() or not word.startswith(("pipelines/", "experiments/"))
    assert yaml.safe_load(RAY_JOB["spec"]["runtimeEnvYAML"])["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "300"}
    assert RAY_JOB["spec"]["clusterSelector"]["ray.io/cluster"] == RAY_CLUSTER["metadata"]["name"]
