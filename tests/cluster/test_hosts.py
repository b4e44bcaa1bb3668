"""The hosts of the lab: apart from each other and from the machine, and gone afterwards; a small cluster on them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import Hosts, lab_folder, namespaces_of
from lab import running_cluster, wait_for

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("several_hosts")]

PROGRAM = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from hosts import Hosts, lab_folder
with lab_folder() as folder:
    hosts = Hosts({"one": "10.0.0.11", "two": "10.0.0.12"}, folder)
    try:
        hosts.start_all()
        print(folder, *(os.readlink(f"/proc/{host.pid}/ns/net") for host in hosts.by_name.values()), flush=True)
        signal.pause()
    finally:
        hosts.stop_all()
"""


def interfaces():
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.mark.slow
def test_a_host_sees_the_others_by_the_network_and_the_shared_folder_alone():
    with lab_folder() as folder:
        hosts = Hosts({"one": "10.0.0.11", "two": "10.0.0.12"}, folder)
        try:
            hosts.start_all()
            one, two = hosts["one"], hosts["two"]
            one.run("echo mine > /tmp/own; echo mine > ~/own; echo ours > /mnt/shared/common")
            assert two.run("ls /tmp/own ~/own", check=False).returncode != 0
            assert two.run("cat /mnt/shared/common; hostname; getent hosts two").stdout.split() == [
                "ours",
                "two",
                "127.0.1.1",
                "two",
            ]
            reach = "timeout 3 bash -c '(echo > /dev/tcp/one/22) 2> /dev/null'"
            assert two.run(reach, check=False).returncode == 0
            hosts.cable("one", plugged=False)
            assert two.run(reach, check=False).returncode != 0
            hosts.cable("one", plugged=True)
            wait_for(lambda: two.run(reach, check=False).returncode == 0, "the cable", limit_s=20)
            assert two.run("touch /etc/own /usr/own", check=False).returncode != 0
            hosts.power_off("one")
            hosts.start("one")
            assert one.run("cat ~/own; ls /tmp").stdout.split() == ["mine"]
            assert len(two.processes()) < 10 < len(list(Path("/proc").glob("[0-9]*")))
        finally:
            hosts.stop_all()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_hosts_whose_program_is_ended(number, tmp_path):
    before = interfaces()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)], env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with program:
        folder, *networks = program.stdout.readline().split()
        assert namespaces_of("net") >= set(networks)
        assert interfaces() == before
        program.send_signal(number)
    wait_for(lambda: not namespaces_of("net") & set(networks), "the end of the last process", limit_s=20)
    assert folder not in Path("/proc/self/mounts").read_text(encoding="utf-8")
    assert interfaces() == before
    if number == signal.SIGINT:  # a program that is killed can't remove its folder
        assert not Path(folder).exists()


@pytest.mark.cluster
def test_a_worker_joins_a_job_runs_there_and_nothing_is_left():
    with running_cluster({"train1": "train"}) as cluster:
        host = "ray.get(ray.remote(lambda: socket.gethostname()).remote())"
        program = f"import ray, socket; ray.init(); print('ran on', {host})"
        job = cluster.submit(f'python -c "{program}"')
        assert job.ended(limit_s=120) == "SUCCEEDED", job.said()
        assert "ran on train1" in job.said()
        networks = {str(Path(f"/proc/{host.pid}/ns/net").readlink()) for host in cluster.hosts.by_name.values()}
        folder = cluster.hosts.folder
        cluster.down()
        assert not [words for words in cluster.head.processes().values() if "raylet" in words]
    wait_for(lambda: not namespaces_of("net") & networks, "the end of the last process", limit_s=20)
    assert not folder.exists()
