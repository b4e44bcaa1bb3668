"""The Slurm job on a real Slurm: a controller and its daemons on hosts of this machine, whose GPUs are files."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts, lab_folder
from lab import copy_checkout, say, timed, wait_for
from runs import prepare_videos

from morphmlp.drill.demo_run import Demo
from morphmlp.training.record.ledger import read_history

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
SchedulerParameters=bf_interval=1
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
KILL_WAIT_S = 30.0
"""Slurm's default."""

STEPS = 80
DEMO = Demo(
    script=Path("pipelines/train_demo.py"),
    config=Path("experiments/demo/morphmlp_demo.yaml"),
    videos=Path("/mnt/shared/demo"),
    steps=STEPS,
)
OVERRIDES = {"cluster.storage": "/mnt/shared/runs", "ingest.node_labels": "{node-role: ingest}"}
STOPS = {
    "scancel": "CANCELLED",  # SIGTERM to every process; all are killed after `KillWait`
    "scancel --full --signal=TERM": "FAILED",  # the same and no more, as a preemption's grace begins
    "scancel --batch --signal=TERM": "FAILED",  # to the batch shell alone, as before the time limit
}
"""How a job is stopped, and what Slurm calls one that ended so with code 143."""
STATUS = """
from morphmlp.tracking import find_run
print(find_run("http://127.0.0.1:5000", run_name="stopped").status)
"""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("several_hosts"),
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)), reason="not installed: Slurm (apt install slurm-wlm munge)"
    ),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Hosts]:
    """Four hosts with Slurm; on the shared folder the checkout with its .venv, the demo's videos, the comparison."""
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
            (hosts.shared / "project/.venv").symlink_to("/root/venv")
            for host in hosts.by_name.values():
                (host.home / ".bashrc").write_text(
                    f'export SLURM_CONF={SLURM}/slurm.conf PATH="$HOME/venv/bin:$PATH"\ncd /mnt/shared/project\n',
                    encoding="utf-8",
                )
                host.run(f"pip install --editable /mnt/shared/project; {DAEMONS}")
            prepare_videos(hosts, "n1", "/mnt/shared/project")
            wait_for(lambda: "idle" in hosts["n1"].run("sinfo -h -N -n n4").stdout, "Slurm's nodes", limit_s=60)
            yield hosts
        finally:
            hosts.stop_all()


def submit(hosts: Hosts, command: str) -> str:
    """The job as docs/cluster.md says, on two and two smaller nodes; its number."""
    sizes = "--nodes=2 --cpus-per-task=2 : --nodes=2 --cpus-per-task=1 --gpus-per-node=1"
    variables = "MORPHMLP_SHARED=/mnt/shared RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES=300000000"
    words = f"sbatch --output=/mnt/shared/%j.out {sizes} deploy/slurm.sh {command}"
    return re.findall(r"batch job (\d+)", hosts["n1"].run(f"{variables} {words}").stdout)[0]


def state(hosts: Hosts, job: str) -> tuple[str, str]:
    """What Slurm says of the job's first part: its state and exit code."""
    said = hosts["n1"].run(f"scontrol show job {job}").stdout
    return re.findall(r"JobState=(\w+)", said)[0], re.findall(r"ExitCode=([\d:]+)", said)[0]


def output(hosts: Hosts, job: str) -> str:
    """What it wrote so far."""
    file = hosts.shared / f"{job}.out"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def step(hosts: Hosts, *, attempt: int) -> int:
    """The last step that this group of workers, from 1, has begun; -1: none."""
    attempts = [each for each in read_history(hosts.shared / "runs/stopped/ledger").attempts if each.steps]
    return max(attempts[-1].steps) if len(attempts) == attempt else -1


def over(hosts: Hosts) -> bool:
    """Whether Slurm has ended all of the jobs."""
    return not hosts["n1"].run("squeue --noheader").stdout.strip()


def processes(hosts: Hosts, words: str) -> dict[str, list[str]]:
    """Command lines that match, by host."""
    return {
        name: [line for line in host.processes().values() if re.search(words, line)]
        for name, host in hosts.by_name.items()
    }


def left(hosts: Hosts) -> list[str]:
    """Processes other than those of a host without a job, and folders of Ray."""
    own = r"sshd|slurmd|slurmctld|slurmscriptd|munged|sleep 3600|host\.sh"
    found = [line for lines in processes(hosts, "").values() for line in lines if not re.search(own, line)]
    for host in hosts.by_name.values():
        found += host.run("ls -d /tmp/ray* 2> /dev/null", check=False).stdout.splitlines()
    return found


def in_record(hosts: Hosts, program: str) -> str:
    """The last line of a program that reads the record, whose server ends with each job."""
    server = "bash deploy/mlflow_server.sh {} /mnt/shared/mlflow"
    hosts["n1"].run(server.format("start"))
    said = hosts["n1"].run(f"python {program}").stdout
    hosts["n1"].run(server.format("stop"))
    return said.splitlines()[-1]


def each_node_has_its_role_and_joins_by_an_address_that_others_reach(seen: dict[str, set[str]]) -> None:
    """By the process tables; each host's own name is 127.0.1.1 to itself."""
    for name, lines in seen.items():
        [raylet] = [line for line in lines if "raylet/raylet " in line]
        assert f"--node_ip_address={ADDRESSES[name]} " in raylet
    for title, hosts in {"TrainController": ["n1"], "DecodeTask": ["n2"], "RayTrainWorker": ["n3", "n4"]}.items():
        assert sorted(name for name, lines in seen.items() if any(title in line for line in lines)) == hosts


def stopped(hosts: Hosts, job: str, stop: str, *, attempt: int, least: int) -> int:
    """Stop a job whose run has begun this step; the steps that its last line says are saved."""
    seen: dict[str, set[str]] = {}

    def reached() -> bool:
        for name, lines in processes(hosts, "^ray::|raylet/raylet ").items():
            seen.setdefault(name, set()).update(lines)
        return step(hosts, attempt=attempt) >= least or state(hosts, job)[0] not in ("PENDING", "RUNNING")

    with timed(f"{stop}: submitted, step {least}"):
        wait_for(reached, f"step {least}", limit_s=400)
    begun = step(hosts, attempt=attempt)
    assert begun >= least, output(hosts, job)[-4000:]
    each_node_has_its_role_and_joins_by_an_address_that_others_reach(seen)
    hosts["n1"].run(f"{stop} {job}")
    took = wait_for(lambda: over(hosts), "the job's end", limit_s=KILL_WAIT_S + 30)
    last = re.search(r"stopped by SIGTERM; .*; the checkpoint of step (\d+) is saved$", output(hosts, job), re.M)
    say(f"--- {stop}: over after {took:.0f} s: {last and last[0]}")
    assert last is not None, output(hosts, job)[-4000:]
    assert int(last[1]) >= begun
    assert took < KILL_WAIT_S
    return int(last[1])


def test_a_run_saves_however_its_job_is_stopped_and_the_same_command_continues_it(slurm):
    command = ["python", str(DEMO.script), "--config", str(DEMO.config), "--run-name", "stopped"]
    command = shlex.join([*command, *DEMO.arguments(OVERRIDES)])
    saved = 0
    for attempt, (stop, called) in enumerate(STOPS.items(), start=1):
        job = submit(slurm, command)
        saved = stopped(slurm, job, stop, attempt=attempt, least=saved + 5)
        assert state(slurm, job) == (called, "143:0")
        wait_for(lambda: left(slurm) == [], "the end of all that ran", limit_s=10)
        assert in_record(slurm, f"-c {shlex.quote(STATUS)}") == "KILLED"
    job = submit(slurm, command)
    with timed("submitted, done"):
        wait_for(lambda: over(slurm), "the run's end", limit_s=400, every_s=1)
    assert state(slurm, job) == ("COMPLETED", "0:0"), output(slurm, job)[-4000:]
    wait_for(lambda: left(slurm) == [], "the end of all that ran", limit_s=10)
    found = json.loads(in_record(slurm, f"/mnt/shared/compare.py {STEPS} stopped stopped"))
    assert [found[name] for name in ("repeated", "lost", "doubled", "missing", "redone")] == [0, 0, 0, 0, 0]
    assert (found["steps"], found["workers"], found["status"]) == (STEPS, [2] * (len(STOPS) + 1), "FINISHED")
