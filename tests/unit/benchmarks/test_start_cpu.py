"""Which processes take the CPU time of a start."""

import subprocess
import sys
import time

import pytest

from morphmlp.benchmarks.start_cpu import CpuAccount, Look, _name_of

BUSY = "import time\nwhile time.process_time() < {seconds}: pass\n"


def spend(seconds, name):
    """A process that spends so many CPU seconds; its name is part of its command line."""
    code = BUSY.format(seconds=seconds) + "input()"
    return subprocess.Popen([sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_cpu_time_is_counted_by_kind_and_of_processes_that_are_gone():
    roots = []
    account = CpuAccount(roots)
    with account.running():
        processes = [spend(0.3, "pipelines/train.py"), spend(0.2, "isolation.child"), spend(0.2, "isolation.child")]
        roots += [process.pid for process in processes]
        time.sleep(0.3)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(_spent(account)) < 3:
            time.sleep(0.1)
        for process in processes:
            process.communicate(b"\n", timeout=60)
        time.sleep(0.3)
    found = account.by_process(time.time())
    assert found["the command"] == [pytest.approx(0.3, abs=0.15)]
    assert found["decoder"] == [pytest.approx(0.2, abs=0.15)] * 2


def _spent(account):
    return [seconds for seconds in account._last.values() if seconds >= 0.2]


def test_each_part_has_what_was_used_during_it():
    account = CpuAccount([])
    account._looks = [
        Look(at=10.0, cpu_s={1: 1.0}),
        Look(at=11.0, cpu_s={1: 1.5, 2: 0.5}),
        Look(at=12.0, cpu_s={1: 1.5, 2: 0.5}),
        Look(at=13.0, cpu_s={1: 1.5, 2: 2.5}),
    ]
    assert account.by_part(10.0, {"imports": 1.0, "Ray": 1.0, "worker": 1.5}) == {
        "imports": 1.0,
        "Ray": 0.0,
        "worker": 2.0,
    }


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ray::MapWorker(MapBatches(Scorer)).submit", "MapWorker(MapBatches(Scorer))"),
        ("ray::IDLE", "Ray worker, not used"),
        ("/venv/bin/python /venv/ray/_private/workers/default_worker.py --node-ip", "Ray worker, not used"),
        ("python /repo/pipelines/evaluate.py --checkpoint first", "the command"),
        ("python -P -m morphmlp.data.decoding.isolation.child --socket 3", "decoder"),
        ("/venv/ray/core/src/ray/raylet/raylet --python_worker_command=/venv/ray/workers/default_worker.py", "raylet"),
        ("/venv/bin/python -m ray.util.client.server --port 1", "python -m ray.util.client.server"),
    ],
)
def test_processes_are_named_by_what_they_do(line, name):
    assert _name_of(line) == name
