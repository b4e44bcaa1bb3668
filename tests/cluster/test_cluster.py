"""A cluster from `ray up` to `ray down`, as docs/cluster.md says."""

from pathlib import Path

import pytest
from hosts import namespaces_of
from lab import ROLES, say, timed
from runs import STEPS, remains, submit_training

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
    assert (found["repeated"], found["lost"], found["doubled"], found["redone"]) == (0, 0, 0, 0)
    assert (found["steps"], found["workers"]) == (STEPS, [2])


def test_status_shows_the_run_from_the_head(cluster, undisturbed):
    if not (Path(__file__).parents[2] / "pipelines/status.py").exists():
        pytest.skip("no pipelines/status.py yet")
    with timed("status"):
        said = cluster.head.run("cd ~/morphmlp; python pipelines/status.py").stdout
    assert "undisturbed" in said


def test_down_leaves_nothing_behind(cluster, undisturbed):
    networks = {str(Path(f"/proc/{host.pid}/ns/net").readlink()) for host in cluster.hosts.by_name.values()}
    with timed("ray down"):
        cluster.down()
    assert not [words for words in cluster.head.processes().values() if "raylet" in words or "gcs_server" in words]
    cluster.hosts.stop_all()
    assert not namespaces_of("net") & networks
    assert str(cluster.hosts.folder) not in Path("/proc/self/mounts").read_text(encoding="utf-8")
    say(f"--- nothing of {cluster.hosts.folder} is running or mounted")
