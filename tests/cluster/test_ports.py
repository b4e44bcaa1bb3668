"""A host of the network that has no token and no key gets nothing from a training cluster, at none of its ports."""

import pytest
from hosts import ROOT
from ports import NAMED, ports_of_a_training, table

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

KNOWN = {
    ("sshd", "answers: SSH"),  # it asks for a key
    ("training worker", "connects, and says nothing"),  # gloo
}
"""What a stranger gets beyond a refusal, besides health and metrics."""
HARMLESS = {"answers: metrics", "answers: Health/Check"}


@pytest.fixture(scope="module")
def said(cluster, videos):
    found = ports_of_a_training(cluster)
    print(*table(found), sep="\n")
    return found


def test_no_door_is_open_to_a_stranger(said):
    opened = {(door.process, answer) for door, answer in said.items() if answer not in ("no connection", "refused")}
    assert {one for one in opened if one[1] not in HARMLESS} <= KNOWN
    # What must be there to be tried at all.
    processes = {door.process for door in said}
    assert processes <= NAMED
    assert processes >= {
        "Ray's head (GCS)",
        "raylet",
        "agent",
        "dashboard",
        "Ray's client",
        "training worker",
        "MLflow",
    }


def test_loopback_and_torchs_store_give_no_connection(said):
    assert {answer for door, answer in said.items() if door.listens_on == "loopback"} == {"no connection"}
    workers = [(door, answer) for door, answer in said.items() if door.process == "training worker"]
    assert "no connection" in {answer for door, answer in workers if door.listens_on == "the node's address"}


def test_the_documented_table_is_this_one(said):
    documented = set((ROOT / "docs/cluster.md").read_text(encoding="utf-8").splitlines())
    assert not set(table(said)) - documented


@pytest.mark.parametrize(
    "command",
    [
        "ray job submit --address http://{head}:8265 -- touch /tmp/a-stranger-was-here",
        "ray job submit --address http://{head}:52365 -- touch /tmp/a-stranger-was-here",
        "ray status --address {head}:6379",
        "ray start --address {head}:6379 --num-cpus 1",
        "python -c 'import ray; ray.init(\"ray://{head}:10001\"); print(ray.nodes())'",
    ],
)
@pytest.mark.parametrize("token", ["", "0" * 64], ids=["no token", "a wrong one"])
def test_rays_own_clients_are_refused_without_the_token(cluster, command, token):
    shown = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={token}" if token else "RAY_AUTH_MODE=disabled"
    done = cluster.laptop.run(
        f"mkdir -p /tmp/stranger; env -i HOME=/tmp/stranger PATH=$PATH {shown} timeout 60 "
        + command.format(head=cluster.head.address),
        check=False,
    )
    assert done.returncode != 0, done.stdout
    assert cluster.alive() == 1 + len(cluster.workers)
    assert cluster.head.run("test ! -e /tmp/a-stranger-was-here", check=False).returncode == 0


def test_the_token_is_its_owners_alone(cluster):
    for host in (cluster.laptop, cluster.head, *(cluster.hosts[name] for name in cluster.workers)):
        assert host.run("stat -c %a ~/.ray/auth_token").stdout.split() == ["600"]
