"""The end of the cluster: after the other files that use it, by its name."""

from pathlib import Path

import pytest
from hosts import namespaces_of
from lab import say, timed, wait_for

pytestmark = pytest.mark.cluster


def test_down_leaves_nothing_behind(cluster):
    networks = {str(Path(f"/proc/{host.pid}/ns/net").readlink()) for host in cluster.hosts.by_name.values()}
    with timed("ray down"):
        cluster.down()
    assert not [words for words in cluster.head.processes().values() if "raylet" in words or "gcs_server" in words]
    cluster.hosts.stop_all()
    wait_for(lambda: not namespaces_of("net") & networks, "the end of the last process", limit_s=20)
    assert str(cluster.hosts.folder) not in Path("/proc/self/mounts").read_text(encoding="utf-8")
    say(f"--- nothing of {cluster.hosts.folder} is running or mounted")
