"""The end of processes that don't hear SIGTERM, and of those that these started."""

import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from morphmlp.cluster.started_processes import StartedProcesses
from morphmlp.stop_signals import handlers_kept

SLEEP = "import time; time.sleep(60)"
WITH_CHILDREN = f"""
import os, subprocess, sys
sleep = [sys.executable, "-c", {SLEEP!r}]
subprocess.Popen(sleep)
subprocess.Popen(sleep, process_group=0)  # as Ray's workers
print("ready", flush=True)
{SLEEP}
"""


def start(program):
    # As Ray starts its own.
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: None,  # noqa: PLW1509 (without one nothing of Python's runs in the child)
    )


def is_alive(process):
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("terminated", [True, False])
def test_what_was_started_ends_at_once_with_all_that_it_started_and_nothing_else_does(terminated):
    started, other = StartedProcesses(), start(SLEEP)
    with handlers_kept(), started.noted():
        root = start(WITH_CHILDREN)
    later = start(SLEEP)
    assert root.stdout.readline() == "ready\n"
    own = [psutil.Process(root.pid), *psutil.Process(root.pid).children(recursive=True)]
    assert len(own) == 3
    with started.ended():
        if terminated:
            root.terminate()
            assert root.wait(20) == -9
    assert root.wait(20) == -9
    deadline = time.monotonic() + 20
    while (alive := [process for process in own if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive == []
    for process in (other, later):
        assert process.poll() is None
        process.terminate()
        assert process.wait(20) == -15
        process.stdout.close()
    root.stdout.close()


def test_what_has_ended_by_itself_is_no_fault():
    started = StartedProcesses()
    with started.ended():
        pass
    with handlers_kept(), started.noted():
        root = start("")
    root.wait(20)
    with started.ended():
        pass
    root.stdout.close()
