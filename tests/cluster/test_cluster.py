"""A cluster as docs/cluster.md brings it up, a run on it, and what it does when something breaks."""

import json
import re
import shlex
import time
from collections.abc import Iterator

import pytest
from faults import FAULTS, STRIKE_AT, clock_off
from lab import ROLES, Cluster, say, timed, wait_for
from runs import STEPS, remains, submit_training

from morphmlp.drill.outcome import ROUNDING

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_preflight_is_green(cluster, videos):
    with timed("preflight"):
        run = submit_training(cluster, "look", script="preflight.py")
        assert run.job.ended(limit_s=300) == "SUCCEEDED", run.job.said()
    said = run.job.said()
    assert "green: nothing wrong on 4 nodes" in said
    assert all(f"{name} ({cluster.hosts[name].address})" in said for name in ("head", *ROLES))


def test_decoding_is_on_the_ingest_host_and_training_on_the_two_others(cluster, undisturbed):
    assert undisturbed.job.status() == "SUCCEEDED", undisturbed.job.said()
    # By the hosts' process tables, not by the program's word.
    assert undisturbed.hosts_of("DecodeTask") == {"ingest"}
    assert undisturbed.hosts_of("RayTrainWorker") == {"train1", "train2"}
    assert undisturbed.hosts_of("TrainController") == {"head"}
    found = remains(cluster, "undisturbed")
    assert [found[name] for name in ("repeated", "lost", "doubled", "missing", "redone")] == [0, 0, 0, 0, 0]
    assert (found["steps"], found["workers"], found["status"]) == (STEPS, [2], "FINISHED")


def test_status_shows_the_run_and_the_nodes_from_the_head(cluster, undisturbed):
    with timed("status"):
        said = cluster.head.run("cd ~/morphmlp; python pipelines/status.py --run undisturbed --json -").stdout
    [shown] = json.loads(said[said.index("{") :])["runs"]
    assert (shown["name"], shown["state"], shown["step"], shown["workers"]) == ("undisturbed", "finished", STEPS, 2)
    assert "4 nodes alive" in cluster.head.run("cd ~/morphmlp; python pipelines/status.py").stdout


MACHINES = """
from morphmlp.tracking import find_run, tracking_uri
keys = find_run(tracking_uri(), run_name="undisturbed").metrics
words = [key.split("/") for key in keys if key.startswith("system/")]
print(*sorted(machine for _, machine, name in words if name == "cpu_utilization_percentage"))
"""


def test_the_record_has_what_every_host_did(cluster, undisturbed):
    said = cluster.head.run(f"cd ~/morphmlp; python -c {shlex.quote(MACHINES)}").stdout
    assert said.splitlines()[-1].split() == sorted(["head", *ROLES])


@pytest.fixture
def mended(cluster: Cluster) -> Iterator[None]:
    """Afterwards every host is on, plugged in and has room."""
    yield
    for name, host in cluster.hosts.by_name.items():
        if host.pid is None:
            cluster.hosts.start(name)
        cluster.hosts.cable(name, plugged=True)
        host.run("rm -f /tmp/fill")
    wait_for(lambda: cluster.alive() == 4, "all nodes", limit_s=240, every_s=1)


@pytest.mark.parametrize("words", FAULTS)
def test_a_run_ends_as_if_nothing_had_happened(cluster, undisturbed, mended, words):
    fault, name = FAULTS[words], words.replace(",", "").replace(" ", "-").replace("'", "")
    run = submit_training(cluster, name, overrides=fault.overrides)
    run.wait_for_step(STRIKE_AT)
    struck = time.monotonic()
    fault.strike(cluster, run)
    status = run.job.ended(limit_s=fault.limit_s)
    if fault.ends_run:
        assert status == "FAILED"
        run = submit_training(cluster, name, overrides=fault.overrides)
        status = run.job.ended(limit_s=fault.limit_s)
    took = time.monotonic() - struck
    said = run.job.said()
    assert status == "SUCCEEDED", said[-4000:]
    assert "(raylet)" not in said  # Ray's pages of logs stay out of the terminal
    found = remains(cluster, name)
    say(f"--- {words}: the end {took:.0f} s after the blow (limit {fault.limit_s:.0f}), {found}")
    assert [found[name] for name in ("repeated", "lost", "doubled", "missing", "steps")] == [0, 0, 0, 0, STEPS]
    assert found["losses_apart"] <= ROUNDING
    assert found["weights_apart"] <= ROUNDING if fault.workers else found["identical"]
    assert not fault.workers or tuple(found["workers"]) == fault.workers


def test_a_clock_ten_minutes_off_is_refused_in_words(cluster, undisturbed):
    if cluster.hosts["train2"].run("ls /usr/lib/*/faketime/libfaketimeMT.so.1", check=False).returncode:
        pytest.skip("no libfaketime (apt install libfaketime)")
    with clock_off(cluster, "train2", 600):
        began = time.monotonic()
        run = submit_training(cluster, "clock")
        assert run.job.ended(limit_s=120) == "FAILED"
        say(f"--- clock 600 s off: refused after {time.monotonic() - began:.0f} s")
    said = run.job.said()
    assert "train2" in said
    ahead = re.search(r"its clock is (\d+) s ahead", said)
    assert ahead is not None, said[-600:]
    assert abs(int(ahead[1]) - 600) <= 2  # the clocks are read one after the other
