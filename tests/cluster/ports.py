"""Every port on which a training cluster listens, and what each says to a stranger; the table of docs/cluster.md.

    python tests/cluster/ports.py      bring a cluster up, train on it, print the table, remove it

The stranger is a host of the same network that has no token and no key.
"""

import json
import re
import shlex
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hosts import Host
from lab import Cluster, running_cluster
from runs import prepare_videos, submit_training

_PROCESSES = {
    "gcs/gcs_server --": "Ray's head (GCS)",
    "raylet/raylet --": "raylet",
    "/dashboard.py": "dashboard",
    "ray::DashboardA": "agent",
    "/agent.py": "agent",
    "ray::RuntimeEnv": "agent of runtime environments",
    "runtime_env/agent/main.py": "agent of runtime environments",
    "monitor.py": "autoscaler",
    "ray.util.client.server": "Ray's client",
    "ray::RayTrainWorker": "training worker",
    "ray::": "Ray's processes",
    "train_demo.py": "Ray's processes",
    "_private/workers/": "Ray's processes",
    "job_supervisor": "Ray's processes",
    "sshd": "sshd",
    "mlflow": "MLflow",
    "uvicorn": "MLflow",
}
"""The part of a command line that gives a process away, and its name in the table."""
NAMED = frozenset(_PROCESSES.values())
_FIXED = {22, 5000, 6379, 8076, 8265, 10001, 44217, 44227, 52365}


@dataclass(frozen=True)
class Door:
    """A listening port."""

    host: str
    process: str
    listens_on: str
    """`all addresses`, `the node's address` (and loopback, maybe) or `loopback`."""
    port: int
    asked_at: str
    """Address and port at which a stranger would come: on loopback the same port of the host's address."""


def doors_of(host: Host) -> list[Door]:
    """All listening TCP ports of a host; a process without a name in the table has its command line for one."""
    found = []
    for line in host.run("ss -Hltnp").stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        pids = [f"/proc/{pid}/cmdline" for pid in re.findall(r"pid=(\d+)", line)]  # a server's may share it
        words = host.run(f"cat {' '.join(pids)} < /dev/null | tr '\\0' ' '", check=False).stdout
        process = next((name for part, name in _PROCESSES.items() if part in words), words[:100] or line)
        plain = address.strip("[]").removeprefix("::ffff:").partition("%")[0]
        where = {
            "*": "all addresses",
            "0.0.0.0": "all addresses",
            "::": "all addresses",
            host.address: "the node's address",
        }
        listens_on = "loopback" if plain.startswith("127.") or plain == "::1" else where[plain]
        found.append(Door(host.name, process, listens_on, int(port), f"{host.address}:{port}"))
    elsewhere = {door.port for door in found if door.listens_on != "loopback"}  # the same server
    return [door for door in found if door.listens_on != "loopback" or door.port not in elsewhere]


def knocked(cluster: Cluster, doors: list[Door]) -> dict[Door, str]:
    """What each says to a host without token and key."""
    shutil.copy(Path(__file__).with_name("knock.py"), cluster.hosts.shared)
    asked = sorted({door.asked_at for door in doors})
    python = f"env -i HOME=/tmp PATH=$PATH python /mnt/shared/knock.py {shlex.join(asked)}"
    said = json.loads(cluster.laptop.run(python, timeout_s=300).stdout.splitlines()[-1])
    return {door: said[door.asked_at] for door in doors}


def table(said: dict[Door, str]) -> list[str]:
    """A row for each kind of port, as Markdown."""
    rows = defaultdict(set)
    for door, answer in said.items():
        port = str(door.port) if door.port in _FIXED else "random"
        rows[door.process, door.listens_on, answer].add(port)
    lines = ["| process | port | listens on | to a stranger |", "|---|---|---|---|"]
    for (process, listens_on, answer), ports in sorted(rows.items()):
        named = ", ".join(sorted(ports, key=lambda port: (not port.isdigit(), port.zfill(6))))
        lines.append(f"| {process} | {named} | {listens_on} | {answer} |")
    return lines


def ports_of_a_training(cluster: Cluster) -> dict[Door, str]:
    """While the demo trains on two hosts."""
    run = submit_training(cluster, "ports")
    run.wait_for_step(1)
    doors = [door for host in cluster.hosts.by_name.values() if host is not cluster.laptop for door in doors_of(host)]
    said = knocked(cluster, doors)
    assert run.job.status() == "RUNNING", run.job.said()[-3000:]
    cluster.head.run(f"ray job stop --no-wait --address http://127.0.0.1:8265 {run.job.id}")
    return said


def main() -> None:
    """Print the table."""
    with running_cluster() as cluster:
        prepare_videos(cluster)
        print(*table(ports_of_a_training(cluster)), sep="\n")
        cluster.down()


if __name__ == "__main__":
    main()
