"""What breaks on a running cluster, and in what time its run must have ended as if nothing had happened."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab import Cluster, say, wait_for
from runs import Run

STRIKE_AT = 20
"""The step that has begun; a checkpoint has been written before."""
OUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One of them."""

    strike: Callable[[Cluster, Run], None]
    """Break it, and repair what a run can't."""
    limit_s: float
    """From the blow to the end of the run, seconds."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    ends_run: bool = False
    """Whether the command ends by it, so that its user submits it again."""
    workers: tuple[int, ...] = ()
    """How many each group of workers had; empty: not asked."""


def power_off_and_on(cluster: Cluster, run: Run) -> None:
    cluster.hosts.power_off("train1")
    wait_for(lambda: run.attempts() > 1, "steps of the other worker", limit_s=180)
    cluster.hosts.start("train1")
    took = wait_for(lambda: cluster.alive() == 4, "its Ray", limit_s=240)
    say(f"    its Ray is back {took:.0f} s after power-on")


def pull_cable(name: str) -> Callable[[Cluster, Run], None]:
    def strike(cluster: Cluster, run: Run) -> None:
        cluster.hosts.cable(name, plugged=False)
        time.sleep(OUT_S)
        cluster.hosts.cable(name, plugged=True)

    return strike


def loose_contact(cluster: Cluster, run: Run) -> None:
    """Nearly half of all packets are lost, in bursts."""
    until = time.monotonic() + OUT_S
    while time.monotonic() < until:
        for plugged, seconds in ((False, 0.6), (True, 0.9)):
            cluster.hosts.cable("train1", plugged=plugged)
            time.sleep(seconds)


def lose_ingest_for_a_while(cluster: Cluster, run: Run) -> None:
    cluster.hosts.power_off("ingest")
    lost = "0 of 1 nodes that decode"
    took = wait_for(lambda: lost in run.job.said(), "a word of the lost host", limit_s=120, every_s=1)
    say(f"    it's said {took:.0f} s after power-off: {said_of(run, lost)}")
    cluster.hosts.start("ingest")


def lose_ingest_for_good(cluster: Cluster, run: Run) -> None:
    cluster.hosts.power_off("ingest")
    took = wait_for(lambda: run.attempts() > 1, "steps on clips that other hosts decode", limit_s=300)
    run.watch_until_end(limit_s=240)
    say(f"    steps again {took:.0f} s after power-off, decoded on {sorted(run.hosts_of('DecodeTask'))}")
    assert run.hosts_of("DecodeTask") in ({"train1"}, {"train2"}, {"train1", "train2"})


def kill_process(host: str, title: str) -> Callable[[Cluster, Run], None]:
    """Kill one as the kernel does where memory runs out."""

    def strike(cluster: Cluster, run: Run) -> None:
        [pid, *_] = [pid for pid, words in cluster.hosts[host].processes().items() if title in words]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: run.attempts() > 1, "steps of the next workers", limit_s=240)
        say(f"    {said_of(run, ' failed: ')}")

    return strike


def said_of(run: Run, words: str) -> str:
    """The first line of the command with these words."""
    return next((line for line in run.job.said().splitlines() if words in line), f"no line says {words!r}")


def kill_driver(cluster: Cluster, run: Run) -> None:
    killed = cluster.head.run(f"pkill -KILL -f '^python pipelines/train_demo.py.*--run-name {run.name} '")
    assert killed.returncode == 0


def fill_disk(cluster: Cluster, run: Run) -> None:
    full = cluster.hosts["train1"].run("head -c 4G /dev/zero > /tmp/fill", check=False)
    assert "No space left" in full.stdout
    wait_for(lambda: run.job.status() != "RUNNING", "the end of the command", limit_s=120, every_s=1)
    assert "No space left on device; the same command continues once that is fixed" in run.job.said()
    cluster.hosts["train1"].run("rm /tmp/fill")


def restart_mlflow(cluster: Cluster, run: Run) -> None:
    script = "bash ~/morphmlp/deploy/mlflow_server.sh {} /mnt/shared/mlflow"
    cluster.head.run(script.format("stop"))
    time.sleep(15)
    cluster.head.run(script.format("start"), timeout_s=180)


FAULTS = {
    "a train host lost and back, elastic": Fault(
        strike=power_off_and_on,
        limit_s=600,
        overrides={"cluster.num_workers": "{min: 1, max: 2}", "cluster.resize_check_s": "5"},
        workers=(2, 1, 2),
    ),
    "cable of a train host out 60 s": Fault(strike=pull_cable("train1"), limit_s=480),
    "cable of the ingest host out 60 s": Fault(strike=pull_cable("ingest"), limit_s=480),
    "cable of the head out 60 s": Fault(strike=pull_cable("head"), limit_s=480),
    "loose contact of a train host for 60 s": Fault(strike=loose_contact, limit_s=480),
    "the ingest host lost and back": Fault(strike=lose_ingest_for_a_while, limit_s=480),
    "the ingest host lost for good, decoding elsewhere allowed": Fault(
        strike=lose_ingest_for_good,
        limit_s=540,
        # One worker, so that a CPU of the other train host is free to decode.
        overrides={
            **{"cluster.num_workers": "1", "ingest.decode_elsewhere": "true"},
            **{"cluster.wait_for_workers_s": "60", "ingest.wait_for_clips_s": "60"},
        },
        workers=(1, 1),
    ),
    "a worker killed for memory": Fault(strike=kill_process("train1", "RayTrainWorker"), limit_s=300, workers=(2, 2)),
    "the controller killed for memory": Fault(
        strike=kill_process("head", "TrainController"), limit_s=300, workers=(2, 2)
    ),
    "the command killed on the head, submitted again": Fault(strike=kill_driver, limit_s=300, ends_run=True),
    "disk of a train host full, made room, submitted again": Fault(strike=fill_disk, limit_s=300, ends_run=True),
    "MLflow's server and database down 15 s": Fault(strike=restart_mlflow, limit_s=400),
}


@contextmanager
def clock_off(cluster: Cluster, name: str, seconds: int) -> Iterator[None]:
    """A host whose Ray has another time."""
    node = cluster.hosts[name].home / "morphmlp.node"
    good = node.read_text(encoding="utf-8")
    library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
    faked = f"export LD_PRELOAD={library} FAKETIME=+{seconds}s FAKETIME_DONT_FAKE_MONOTONIC=1\n"
    try:
        for text in (good + faked, good):
            node.write_text(text, encoding="utf-8")
            cluster.hosts[name].run("ray stop --force")
            wait_for(lambda: cluster.alive() == 3, "the loss of a node", limit_s=120)
            # `ray start` fails now and then, under a wrong clock or on a busy machine, and Ray doesn't try again.
            cluster.start_ray(name, attempts=4)
            if text != good:
                yield
    finally:
        node.write_text(good, encoding="utf-8")
