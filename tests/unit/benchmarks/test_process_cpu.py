"""CPU time of other processes, against what they say of themselves."""

import os
import subprocess
import sys
import time

import pytest

from morphmlp.benchmarks.process_cpu import cpu_between, cpu_clocks, cpu_seconds, process_tree

BUSY = """
import subprocess, sys, threading, time
child = subprocess.Popen([sys.executable, "-c", "import time; print(time.process_time(), flush=True); time.sleep(60)"])
def work():
    end = time.thread_time() + 0.2
    while time.thread_time() < end:
        pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(time.process_time(), child.pid, flush=True)
sys.stdin.read()
child.kill()
"""


@pytest.fixture
def busy():
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.communicate()


def test_the_threads_of_another_process_are_counted_and_its_children_found(busy):
    lines = sorted((busy.stdout.readline().split() for _ in range(2)), key=len)
    (used, child) = lines[1]
    assert cpu_seconds(busy.pid) == pytest.approx(float(used), abs=0.05)
    assert float(used) > 0.2
    tree = process_tree(os.getpid())
    assert {os.getpid(), busy.pid, int(child)} <= set(tree)
    assert tree[busy.pid].startswith(sys.executable)
    assert set(process_tree(busy.pid)) == {busy.pid, int(child)}


def test_the_own_process_agrees_with_pythons_clock():
    assert cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)


def test_time_between_readings_counts_newcomers_whole_and_leavers_not():
    assert cpu_between({1: 2.0, 2: 5.0}, {1: 2.5, 3: 0.25}) == {1: 0.5, 3: 0.25}


def test_a_process_that_is_gone_has_used_nothing_any_more():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert cpu_seconds(process.pid) == 0
    assert cpu_clocks({process.pid: ""}) == {process.pid: 0}
