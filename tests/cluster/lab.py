"""A cluster on the hosts of this machine, brought up by the project's own file for owned machines.

    python tests/cluster/lab.py      bring it up, say how to enter the hosts, and remove it after Ctrl-C

The laptop holds a copy of this checkout and does what docs/cluster.md says; the other hosts get what `ray up` brings.
"""

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import yaml
from hosts import ROOT, Host, Hosts, lab_folder, why_not

CLUSTER_FILE = "deploy/owned_machines.yaml"
ROLES = {"train1": "train", "train2": "train", "ingest": "ingest"}
_ADDRESSES = {
    "laptop": "10.0.0.5",
    "head": "10.0.0.10",
    "train1": "10.0.0.11",
    "train2": "10.0.0.12",
    "ingest": "10.0.0.13",
}
_CPUS = {"head": 0, "train": 1, "ingest": 2}
_OBJECT_STORE_BYTES = 300_000_000
_TOKEN = "(umask 077; ray get-auth-token --generate > /dev/null; chmod 600 ~/.ray/auth_token)"
_ASK = 'curl -sf -m 20 -H "Authorization: Bearer $(cat ~/.ray/auth_token)" http://127.0.0.1:8265'


def say(text: str) -> None:
    """A line on the terminal."""
    print(text, flush=True)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long something took."""
    began = time.monotonic()
    yield
    say(f"--- {what}: {time.monotonic() - began:.0f} s")


def wait_for(reached: Callable[[], bool], what: str, *, limit_s: float, every_s: float = 0.5) -> float:
    """Until something holds; the seconds that it took.

    Raises:
        AssertionError: It doesn't within the limit.
    """
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < limit_s, f"{limit_s:.0f} s without {what}"
        time.sleep(every_s)
    return time.monotonic() - began


def copy_checkout(folder: Path) -> None:
    """This checkout's files as git would take them, edited ones too."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)


@dataclass
class Job:
    """A command that was submitted."""

    cluster: "Cluster"
    id: str

    def status(self) -> str:
        """As Ray's job server says: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        return str(self.cluster.ask(f"/api/jobs/{self.id}")["status"])

    def said(self) -> str:
        """What the command wrote."""
        return str(self.cluster.ask(f"/api/jobs/{self.id}/logs")["logs"])

    def ended(self, *, limit_s: float) -> str:
        """Its last status.

        Raises:
            AssertionError: It doesn't end within the limit.
        """
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self.status() not in ("PENDING", "RUNNING"), "its end", limit_s=limit_s, every_s=1)
            return self.status()
        raise AssertionError(f"{self.id} didn't end within {limit_s:.0f} s:\n{self.said()[-3000:]}")


@dataclass
class Cluster:
    """A running cluster."""

    hosts: Hosts
    workers: dict[str, str] = field(default_factory=lambda: dict(ROLES))
    """Role by host."""
    _tunnel: "subprocess.Popen[bytes] | None" = None

    @property
    def head(self) -> Host:
        """Its head."""
        return self.hosts["head"]

    @property
    def laptop(self) -> Host:
        """Where its user sits."""
        return self.hosts["laptop"]

    def up(self) -> None:
        """As docs/cluster.md says."""
        self._fill_in()
        self.laptop.run(f"{_TOKEN}; cd checkout; ray up -y {CLUSTER_FILE}", timeout_s=600)
        wait_for(lambda: self.alive() == 1 + len(self.workers), "all nodes", limit_s=300, every_s=1)

    def start_ray(self, name: str, *, attempts: int = 1) -> None:
        """By hand on a worker host, as docs/cluster.md says, until all nodes are there.

        Raises:
            AssertionError: They aren't.
        """
        content = yaml.safe_load((ROOT / CLUSTER_FILE).read_text(encoding="utf-8").replace("!REPLACE-ME", ""))
        script = "; ".join(content["worker_start_ray_commands"])
        for left in reversed(range(attempts)):
            # Into a file: Ray's processes would keep a pipe open.
            started = f"({script}) > ~/ray_start.out 2>&1 || (cat ~/ray_start.out; exit 1)"
            self.hosts[name].run(f"export RAY_HEAD_IP={_ADDRESSES['head']}; {started}", check=not left)
            with contextlib.ExitStack() as tried:
                if left:
                    tried.enter_context(contextlib.suppress(AssertionError))
                wait_for(lambda: self.alive() == 1 + len(self.workers), f"the Ray of {name}", limit_s=60)
                return

    def down(self) -> None:
        """As docs/cluster.md says."""
        self.close_tunnel()
        self.laptop.run(f"cd checkout; ray down -y {CLUSTER_FILE}", timeout_s=120)

    def close_tunnel(self) -> None:
        """As the user does by Ctrl-C."""
        if self._tunnel is not None:
            self._tunnel.terminate()
            self._tunnel.wait()
        self._tunnel = None

    def submit(self, command: str) -> Job:
        """Start a command as docs/cluster.md says."""
        self._open_tunnel()
        done = self.laptop.run(
            f"cd checkout; ray job submit --address http://127.0.0.1:8265 --working-dir . --no-wait -- {command}"
        )
        found = re.search(r"Job '(raysubmit_\w+)' submitted", done.stdout)
        assert found, done.stdout
        return Job(self, found[1])

    def ask(self, path: str) -> dict:
        """An answer of the dashboard."""
        return json.loads(self.head.run(f"{_ASK}{path}").stdout)

    def alive(self) -> int:
        """How many nodes Ray counts."""
        with contextlib.suppress(AssertionError):
            nodes = self.ask("/api/v0/nodes")["data"]["result"]["result"]
            return sum(node["state"] == "ALIVE" for node in nodes)
        return 0

    def _open_tunnel(self) -> None:
        """`ray dashboard`, which the user leaves open, and opens again where SSH has given up."""
        if self._tunnel is not None and self._tunnel.poll() is None:
            return
        command = self.laptop.command(f"cd checkout; exec ray dashboard {CLUSTER_FILE}")
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._tunnel = subprocess.Popen(command, **quiet)
        reach = "(echo > /dev/tcp/127.0.0.1/8265) 2> /dev/null"
        wait_for(lambda: self.laptop.run(reach, check=False).returncode == 0, "the tunnel", limit_s=60)

    def _fill_in(self) -> None:
        """What each host says of itself, and what the cluster file asks of its user."""
        for name, role in {"head": "head", **self.workers}.items():
            lines = [f"NODE_ROLE={role}", f"NODE_CPUS={_CPUS[role]}"]
            lines += [f"NODE_RAY_ARGS=--object-store-memory={_OBJECT_STORE_BYTES}", ""]
            (self.hosts[name].home / "morphmlp.node").write_text("\n".join(lines), encoding="utf-8")
        copy_checkout(self.laptop.home / "checkout")
        file = self.laptop.home / "checkout" / CLUSTER_FILE
        addresses = ", ".join(_ADDRESSES[name] for name in self.workers)
        values = {"head_ip": _ADDRESSES["head"], "worker_ips": f"[{addresses}]"}
        values |= {"ssh_user": "root", "ssh_private_key": "~/.ssh/id_ed25519"}
        text = file.read_text(encoding="utf-8")
        for key, value in values.items():
            text = re.sub(rf"{key}: !REPLACE-ME .*", f"{key}: {value}", text)
        file.write_text(text, encoding="utf-8")
        shutil.copy(self.hosts.folder / "key", self.laptop.home / ".ssh/id_ed25519")
        (self.laptop.home / ".bashrc").write_text(
            'export PATH="$HOME/venv/bin:$PATH" RAY_AUTH_MODE=token\n', encoding="utf-8"
        )


@contextlib.contextmanager
def running_cluster(workers: dict[str, str] | None = None) -> Iterator[Cluster]:
    """Hosts and a cluster on them; all of it removed at the end, however it comes."""
    workers = dict(ROLES) if workers is None else workers
    addresses = {name: address for name, address in _ADDRESSES.items() if name in ("laptop", "head", *workers)}
    with lab_folder() as folder:
        hosts = Hosts(addresses, folder)
        cluster = Cluster(hosts, workers)
        try:
            with timed(f"{len(addresses)} hosts"):
                hosts.start_all()
            with timed("ray up, all nodes there"):
                cluster.up()
            yield cluster
        finally:
            cluster.close_tunnel()
            hosts.stop_all()


def main() -> None:
    """Until Ctrl-C."""
    if reason := why_not():
        sys.exit(f"error: {reason}")
    with running_cluster() as cluster:
        for host in cluster.hosts.by_name.values():
            say(f"{host.name}: {shlex.join(host.command('exec bash -i'))}")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        with timed("ray down"):
            cluster.down()


if __name__ == "__main__":
    main()
