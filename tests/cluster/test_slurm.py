"""The Slurm job on a real Slurm: a controller and its daemons on hosts of this machine, whose GPUs are files."""

import re
import shlex
import shutil
from collections.abc import Iterator

import pytest
from hosts import Hosts, lab_folder
from lab import copy_checkout, wait_for

ADDRESSES = {f"n{number}": f"10.0.0.{10 + number}" for number in (1, 2, 3, 4)}
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
SLURM = "/mnt/shared/slurm"
CONFIGURATION = f"""
ClusterName=lab
SlurmctldHost=n1({ADDRESSES["n1"]})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation=/tmp/state
SlurmdSpoolDir=/tmp/spool
SlurmdPidFile=/run/slurmd.pid
SlurmctldPidFile=/run/slurmctld.pid
SlurmdParameters=config_overrides
MpiDefault=none
GresTypes=gpu
NodeName=n[1-4] CPUs=4 RealMemory=4000 Gres=gpu:1
PartitionName=all Nodes=ALL Default=YES
"""
DAEMONS = f"""
install -m 400 {SLURM}/munge.key /run/munge.key && mkdir -p /tmp/state /tmp/spool /tmp/cgroup
munged --force --key-file=/run/munge.key --socket=/run/munge.socket --seed-file=/run/munge.seed \\
  --pid-file=/run/munged.pid --log-file=/tmp/munged.log
[ $(hostname) != n1 ] || slurmctld -L /tmp/slurmctld.log
slurmd -L /tmp/slurmd.log"""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("several_hosts"),
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)), reason="not installed: Slurm (apt install slurm-wlm munge)"
    ),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Hosts]:
    """Four hosts with Slurm, and the checkout on the shared folder."""
    with lab_folder() as folder:
        hosts = Hosts(ADDRESSES, folder)
        try:
            hosts.start_all()
            home = hosts.shared / "slurm"
            home.mkdir()
            (home / "slurm.conf").write_text(CONFIGURATION, encoding="utf-8")
            (home / "cgroup.conf").write_text(
                "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/tmp/cgroup\n", encoding="utf-8"
            )
            (home / "gres.conf").write_text(f"Name=gpu File={SLURM}/gpu\n", encoding="utf-8")
            (home / "gpu").touch()
            (home / "munge.key").write_bytes(bytes(range(256)) * 4)
            copy_checkout(hosts.shared / "project")
            for host in hosts.by_name.values():
                (host.home / ".bashrc").write_text(f"export SLURM_CONF={SLURM}/slurm.conf\n", encoding="utf-8")
                host.run(DAEMONS)
            wait_for(lambda: "idle" in hosts["n1"].run("sinfo -h -N -n n4").stdout, "Slurm's nodes", limit_s=60)
            yield hosts
        finally:
            hosts.stop_all()


def submit(hosts: Hosts, command: str, variables: str = "") -> str:
    """The job as docs/cluster.md says, on two and two smaller nodes; its number."""
    sizes = "--nodes=2 --cpus-per-task=2 : --nodes=2 --cpus-per-task=1 --gpus-per-node=1"
    words = f"sbatch --output=/mnt/shared/job.out {sizes} deploy/slurm.sh {command}"
    said = hosts["n1"].run(f"cd /mnt/shared/project; MORPHMLP_SHARED=/mnt/shared {variables} {words}").stdout
    return re.findall(r"batch job (\d+)", said)[0]


def state(hosts: Hosts, job: str) -> tuple[str, str]:
    """What Slurm says of the job's first part: its state and exit code."""
    said = hosts["n1"].run(f"scontrol show job {job}").stdout
    return re.findall(r"JobState=(\w+)", said)[0], re.findall(r"ExitCode=([\d:]+)", said)[0]


def test_each_node_is_told_its_role_and_joins_by_an_address_that_others_reach(slurm):
    """Slurm is real, `ray` only writes down its words; each host's own name is 127.0.1.1 to itself."""
    programs = slurm.shared / "project/.venv/bin"
    programs.mkdir(parents=True)
    words = 'echo "$(hostname) $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} $*" >> /mnt/shared/words'
    for name, text in {"ray": f"{words}\n[ $1 != start ] || exec sleep 300", "python": "echo $((10**18))"}.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    run = "until [ $(grep -c ' start ' /mnt/shared/words) = 4 ]; do sleep 0.2; done; echo $RAY_ADDRESS; exit 3"
    job = submit(slurm, f"bash -c {shlex.quote(run)}", "MLFLOW_TRACKING_URI=http://10.0.0.1:5000")
    ended = ("COMPLETED", "FAILED", "CANCELLED")
    wait_for(lambda: state(slurm, job)[0] in ended, "the job's end", limit_s=240, every_s=1)
    assert state(slurm, job) == ("FAILED", "3:0"), "the run's exit code is the job's"
    head = f"{ADDRESSES['n1']}:6379"
    assert (slurm.shared / "job.out").read_text(encoding="utf-8").startswith(f"{head}\n")
    said = (slurm.shared / "words").read_text(encoding="utf-8").splitlines()
    starts = {line.split()[0]: line for line in said if " start " in line}
    assert {name: re.findall(r"--labels=node-role=(\w+)", line) for name, line in sorted(starts.items())} == {
        "n1": ["head"],
        "n2": ["ingest"],
        "n3": ["train"],
        "n4": ["train"],
    }
    for name, line in starts.items():
        assert line.startswith(f"{name} token 19 start ")
        assert f"--node-ip-address={ADDRESSES[name]} " in line
        assert name == "n1" or f"--address={head} " in line
    left = {
        name: [words for words in host.processes().values() if "sleep 300" in words]
        for name, host in slurm.by_name.items()
    }
    assert left == {name: [] for name in ADDRESSES}
