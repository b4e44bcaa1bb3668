"""Trainings of the demo on the cluster: submitted from the laptop, watched by process tables and the ledger."""

import json
import re
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hosts import Hosts
from lab import Cluster, Job, wait_for

from morphmlp.drill.demo_run import OTHER_VIDEOS, TRAIN_VIDEOS, Demo
from morphmlp.training.record.ledger import History, read_history

STEPS = 140
_CONFIG = "experiments/demo/morphmlp_demo.yaml"
_DEMO = Demo(script=Path(), config=Path(_CONFIG), videos=Path("/mnt/shared/demo"), steps=STEPS)
_OVERRIDES = {
    "cluster.storage": "/mnt/shared/runs",
    "ingest.node_labels": "{node-role: ingest}",
    "record.system_metrics": "true",
}


@dataclass
class Run:
    """One of them."""

    cluster: Cluster
    name: str
    job: Job
    seen: dict[str, set[str]] = field(default_factory=dict)
    """Ray's processes by host, as their process tables named them."""

    def step(self) -> int:
        """The last step that the newest group of workers has begun; -1: none."""
        attempts = self._history().attempts
        return max(attempts[-1].steps, default=-1) if attempts else -1

    def attempts(self) -> int:
        """How many groups of workers have taken a step."""
        return sum(bool(attempt.steps) for attempt in self._history().attempts)

    def wait_for_step(self, step: int, *, limit_s: float = 240.0) -> None:
        """Until it has begun a step."""
        wait_for(lambda: self.step() >= step or self._over(), f"step {step}", limit_s=limit_s, every_s=0.2)
        assert self.step() >= step, self.job.said()[-3000:]

    def watch_until_end(self, *, limit_s: float) -> str:
        """Look at the hosts' processes until the command has ended; its last status."""
        deadline = time.monotonic() + limit_s
        while not self._over():
            for name, host in self.cluster.hosts.by_name.items():
                titles = [words for words in host.processes().values() if words.startswith("ray::")]
                self.seen.setdefault(name, set()).update(titles)
            assert time.monotonic() < deadline, f"no end within {limit_s:.0f} s: {self.job.said()[-3000:]}"
            time.sleep(1)
        return self.job.status()

    def hosts_of(self, title: str) -> set[str]:
        """Hosts on which a process of Ray's had this in its title."""
        return {host for host, titles in self.seen.items() if any(title in words for words in titles)}

    def _history(self) -> History:
        return read_history(self.cluster.hosts.shared / "runs" / self.name / "ledger")

    def _over(self) -> bool:
        return self.job.status() not in ("PENDING", "RUNNING")


def prepare_videos(hosts: Hosts, head: str, project: str) -> None:
    """The demo's, on the shared storage, and the program that compares runs; `project` is the checkout on the head."""
    counts = f"--train {TRAIN_VIDEOS} --val {OTHER_VIDEOS} --test {OTHER_VIDEOS}"
    hosts[head].run(f"cd {project}; python pipelines/prepare.py demo --output /mnt/shared/demo {counts}")
    shutil.copy(Path(__file__).with_name("compare.py"), hosts.shared)


def submit_training(
    cluster: Cluster, name: str, *, script: str = "train_demo.py", overrides: Mapping[str, str] | None = None
) -> Run:
    """Start one by name; the same name again resumes."""
    fields = _DEMO.arguments({**_OVERRIDES, **(overrides or {})})
    if script == "preflight.py":
        fields = [words for words in fields if not re.match(r"--(train|checkpoint|execution)\.", words)]
    command = ["python", f"pipelines/{script}", "--config", _CONFIG, "--run-name", name, *fields]
    return Run(cluster, name, cluster.submit(shlex.join(command)))


def remains(cluster: Cluster, name: str) -> dict:
    """What a finished run left, by `compare.py`."""
    done = cluster.head.run(f"cd ~/morphmlp; python /mnt/shared/compare.py {STEPS} undisturbed {name}", timeout_s=180)
    return json.loads(done.stdout.splitlines()[-1])
