"""The Slurm job as its batch node runs it; `srun`, `scontrol` and the rest only write down their words."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from cluster_files import ROOT
from signals import send

STANDIN = """#!/bin/bash
name=$(basename "$0")
echo "$name token=${#RAY_AUTH_TOKEN} mode=$RAY_AUTH_MODE $*" >> "$RECORD"
case "$name $*" in
  scontrol*) printf 'n1\\nn2\\nn3\\n' ;;
  *getent*) printf '10.0.0.1  STREAM n1\\n10.0.0.1  DGRAM\\n' ;;
  "python "*secrets*) echo 0123456789abcdef0123456789abcdef ;;
  "ray health-check"*) [ -z "${SILENT_HEAD:-}" ] ;;
  "srun "*slurm_node.py*) trap 'echo "$name gets USR1" >> "$RECORD"; kill $!; exit' USR1; sleep 60 & wait ;;
esac
"""


@pytest.fixture
def job(tmp_path):
    """A copy of the repository's root as the script sees it, and the environment of a job of 3 + 2 nodes."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("srun", "scontrol", "ray", "python"):
        (programs / name).write_text(STANDIN, encoding="utf-8")
        (programs / name).chmod(0o755)
    slurm = {"JOB_ID": "7", "JOB_NODELIST_HET_GROUP_0": "n[1-3]", "JOB_NUM_NODES_HET_GROUP_0": "3"}
    slurm |= {"JOB_NUM_NODES_HET_GROUP_1": "2"}
    slurm |= {"CPUS_PER_TASK_HET_GROUP_0": "32", "CPUS_PER_TASK_HET_GROUP_1": "48"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    record = {"RECORD": str(tmp_path / "words.txt"), "MLFLOW_TRACKING_URI": "http://10.0.0.9:5000"}
    return {"cwd": tmp_path, "env": {"PATH": os.environ["PATH"], **environment, **record}}


def start(job: dict, *command: str) -> "subprocess.Popen[str]":
    words = ["bash", str(ROOT / "deploy/slurm.sh"), *command]
    return subprocess.Popen(words, **job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_roles_are_those_of_every_cluster_and_the_runs_code_is_the_jobs(job):
    started = 'until [ "$(grep -c slurm_node.py "$RECORD")" = 3 ]; do sleep 0.1; done; '
    process = start(job, "bash", "-c", started + 'echo "$RAY_ADDRESS ${#RAY_AUTH_TOKEN}"; exit 3')
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.split()) == (3, ["10.0.0.1:6379", "32"])
    words = (job["cwd"] / "words.txt").read_text(encoding="utf-8").splitlines()
    assert "python token=32 mode=token - 5" in words, "the run's nodes are waited for"
    starts = [line for line in words if "slurm_node.py" in line]
    assert words.count("srun gets USR1") == 3, "Ray's nodes are ended"
    assert all("token=32 mode=token" in line and "0123456789abcdef" not in line for line in starts)
    by_role = {
        role: [line for line in starts if f"--labels=node-role={role}" in line] for role in ("head", "ingest", "train")
    }
    assert {role: len(lines) for role, lines in by_role.items()} == {"head": 1, "ingest": 1, "train": 1}
    [head], [ingest], [train] = by_role.values()
    assert "--nodelist=n1 " in head
    assert "--num-cpus=0 --num-gpus=0" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "--nodes=2 --ntasks=2 --exclude=n1 " in ingest
    assert "--num-cpus=32" in ingest
    assert "--het-group=1 " in train
    assert "--num-cpus=48" in train


def test_the_signal_before_the_time_limit_reaches_the_run_which_may_save(job):
    saves = 'trap "sleep 1; echo saved; exit 143" TERM; touch running; while :; do sleep 0.1; done'
    process = start(job, "bash", "-c", saves)
    deadline = time.monotonic() + 60
    while not (job["cwd"] / "running").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (143, "saved\n")


def test_a_signal_before_the_run_ends_what_has_been_started(job):
    process = start({**job, "env": job["env"] | {"SILENT_HEAD": "yes"}}, "touch", "run")
    words = job["cwd"] / "words.txt"
    deadline = time.monotonic() + 60
    while not (words.exists() and " health-check " in words.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert words.read_text(encoding="utf-8").count("srun gets USR1") == 1
    assert not (job["cwd"] / "run").exists()


RAY = """#!/bin/bash
echo "$*" > "$FOLDER/words"
setsid bash -c 'sleep 300 & sleep 300' &
wait
"""


def test_a_nodes_ray_outlives_sigterm_to_every_process_and_ends_by_sigusr1(tmp_path):
    (tmp_path / "ray").write_text(RAY, encoding="utf-8")
    (tmp_path / "ray").chmod(0o755)
    folder = tmp_path / "local"
    folder.mkdir()
    words = [sys.executable, str(ROOT / "deploy/slurm_node.py"), "127.0.0.1", str(folder), "--head"]
    node = subprocess.Popen(words, env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "FOLDER": str(tmp_path)})
    process = psutil.Process(node.pid)
    deadline = time.monotonic() + 60
    while len(process.children(recursive=True)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    started = process.children(recursive=True)
    assert len(started) == 4
    send(node, signal.SIGTERM, "every process")
    time.sleep(0.5)
    assert all(each.status() != psutil.STATUS_ZOMBIE for each in (process, *started))
    node.send_signal(signal.SIGUSR1)
    assert node.wait(timeout=10) == 0
    assert not any(each.is_running() for each in started)
    assert not folder.exists()
    expected = f"start --block --disable-usage-stats --temp-dir={folder} --node-ip-address=127.0.0.1 --head\n"
    assert (tmp_path / "words").read_text(encoding="utf-8") == expected


def test_without_a_command_it_says_how_to_start_it(job):
    process = start(job)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors == "error: name the command to run: sbatch deploy/slurm.sh python pipelines/train_k400.py ...\n"
