"""What machines do, in the record of a run; whoever looks and writes may die."""

import os
import signal
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config.operation import RecordConfig
from morphmlp.experiment.ray_system_metrics import system_metrics_recorded
from morphmlp.tracking import RunWriter, open_run, prepare_store, tracking_uri
from morphmlp.training.record.run_folder import RunFolder

CPU = f"system/{socket.gethostname()}/cpu_utilization_percentage"


def ray_processes(title: str) -> list[int]:
    """Ids of this Ray's processes of the title."""
    return [process.pid for process in psutil.Process().children(recursive=True) if title in str(process.cmdline())]


def wait_for(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, f"60 s without {what}"
        time.sleep(0.2)


def wait_for_points(writer: RunWriter, *, more_than: int) -> int:
    wait_for(lambda: len(writer.history([CPU])) > more_than, f"more than {more_than} points")
    return len(writer.history([CPU]))


class Lines:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, title: str, *, total: int, unit: str) -> None: ...

    def update(self, done: int, note: str = "") -> None: ...

    def line(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.slow
def test_points_go_on_when_the_writing_and_the_looking_process_are_killed(placement: Placement, tmp_path: Path) -> None:
    del placement  # Ray runs
    uri = tracking_uri()
    prepare_store(uri)
    writer = RunWriter(uri, open_run(uri, experiment="demo", run_name="machines", tags={}, params={}))
    folder, lines = RunFolder(tmp_path), Lines()
    record = RecordConfig(system_metrics=True)
    with system_metrics_recorded(record, writer, folder, lines, first_interval_s=1.0):
        seen = wait_for_points(writer, more_than=1)
        for title in ("_Recorder", "_NodeMonitor"):
            [pid] = ray_processes(title)
            os.kill(pid, signal.SIGKILL)
            seen = wait_for_points(writer, more_than=seen + 2)
    points = writer.history([CPU])
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    assert all(0 <= point.value <= 100 for point in points)
    assert all(later.timestamp_ms > earlier.timestamp_ms for earlier, later in pairwise(points))
    assert folder.system_metrics_waiting.stat().st_size == 0
    assert not lines.said
    wait_for(lambda: not ray_processes("_Recorder"), "the end of the process that writes")
