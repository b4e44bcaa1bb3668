"""What `ray up cluster.yaml` asks of AWS: Ray against Moto's server; `ssh` and `rsync` only write down their words."""

import json
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from cluster_files import ROOT, TAG, Aws, filled_in, laptop

pytestmark = pytest.mark.slow

RAY = Path(sys.executable).with_name("ray")
LAUNCH_WORKERS = """
import sys, yaml
from ray.autoscaler._private.providers import _get_node_provider
config = yaml.safe_load(open(sys.argv[1]))
provider = _get_node_provider(config["provider"], config["cluster_name"])
for name, node in config["available_node_types"].items():
    if name != config["head_node_type"]:
        tags = {"ray-node-type": "worker", "ray-user-node-type": name, "ray-launch-config": "x", "ray-node-name": name}
        provider.create_node(node["node_config"], tags, node["min_workers"])
provider.terminate_nodes(provider.non_terminated_nodes({"ray-node-type": "worker"}))
"""


def bring_up(aws: Aws, text: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """`ray up -y` with this cluster file, as on a laptop with a home of its own."""
    (folder / "cluster.yaml").write_text(text, encoding="utf-8")
    environment = laptop(folder, aws.environment)
    command = [str(RAY), "up", "-y", "--no-config-cache", str(folder / "cluster.yaml")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


def prepare_account(aws: Aws) -> str:
    """The steps of docs/cluster.md by boto3; gives the cluster file with the names of what they made."""
    where = {"endpoint_url": aws.environment["AWS_ENDPOINT_URL"], "region_name": "us-west-2"}
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    ec2, iam = boto3.client("ec2", **where, **keys), boto3.client("iam", **where, **keys)
    [network] = [vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"] if vpc["IsDefault"]]
    group = ec2.create_security_group(GroupName="morphmlp", Description="-", VpcId=network)["GroupId"]
    image = ec2.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"]
    ec2.create_key_pair(KeyName="morphmlp")
    trust = (ROOT / "deploy/aws/trust.json").read_text(encoding="utf-8")
    for role in ("head", "node"):
        name = f"morphmlp-{role}"
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        for policy in ("bucket", "head")[: 2 if role == "head" else 1]:
            document = (ROOT / f"deploy/aws/{policy}.json").read_text(encoding="utf-8")
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=document)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    aws.calls.clear()
    text = filled_in(ROOT / "cluster.yaml")
    return text.replace("ami-" + "x" * 17, image).replace("sg-" + "x" * 17, group)


def test_the_launches_are_those_of_the_file_and_nothing_else_is_made(aws, tmp_path):
    text = prepare_account(aws)
    group = re.search(r"sg-\w+", text).group()
    done = bring_up(aws, text, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    allowed_to_head = len(aws.calls)
    launched = subprocess.run(
        [sys.executable, "-c", LAUNCH_WORKERS, str(tmp_path / "bootstrap.yaml")],
        env=aws.environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr

    launches = aws.launches()
    counts = [(call["InstanceType"], call["MaxCount"], call["IamInstanceProfile.Name"]) for call in launches]
    assert counts == [
        ("m7i.2xlarge", "1", "morphmlp-head"),
        ("g5.12xlarge", "2", "morphmlp-node"),
        ("c7i.8xlarge", "2", "morphmlp-node"),
    ]
    for call in launches:
        assert call["MetadataOptions.HttpTokens"] == "required"
        assert call["KeyName"] == "morphmlp"
        assert call["BlockDeviceMapping.1.Ebs.VolumeType"] == "gp3"
        assert call["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
        assert [value for name, value in call.items() if "SecurityGroupId" in name] == [group]
        tags = {value for name, value in call.items() if ".Tag." in name}
        assert {"ray-cluster-name", "morphmlp"} <= tags

    made = {name for name in aws.actions() if not name.startswith(("Describe", "Get", "List"))}
    assert made == {"RunInstances", "CreateTags", "TerminateInstances"} & made, "no role, profile, group, rule or key"
    assert "RunInstances" in made
    assert not any("0.0.0.0/0" in json.dumps(call) or "::/0" in json.dumps(call) for call in aws.calls)

    # What the head's Ray calls is what its policy lets it call.
    policy = json.loads((ROOT / "deploy/aws/head.json").read_text(encoding="utf-8"))
    allowed: set[str] = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        allowed |= {name.partition(":")[2] for name in ([actions] if isinstance(actions, str) else actions)}
    assert {name for name, _ in aws.calls[allowed_to_head:]} - allowed == set()

    words = (tmp_path / "words.txt").read_text(encoding="utf-8")
    assert "mlflow_server.sh start /mnt/shared/mlflow" in words
    node_types = yaml.safe_load((tmp_path / "bootstrap.yaml").read_text(encoding="utf-8"))["available_node_types"]
    assert {name: node["labels"] for name, node in node_types.items()} == {
        role: {"node-role": role} for role in ("head", "train", "ingest")
    }


def test_a_placeholder_left_stops_ray_before_it_asks_aws_for_anything(aws, tmp_path):
    """The last one of the file, the shared storage's."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    place = text.rindex(TAG)
    line = text[:place].count("\n") + 1
    refused = bring_up(aws, text[:place].replace(TAG, "") + text[place:], tmp_path)
    assert refused.returncode != 0
    assert f"line {line}" in refused.stdout + refused.stderr
    assert "REPLACE-ME" in refused.stderr
    assert aws.calls == []
