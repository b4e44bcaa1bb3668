"""What a machine does, held to what the kernel says of it."""

import re
import time
from pathlib import Path

import pytest

from morphmlp.tracking.system_metrics import MachineMonitor

KIB = 1024


def memory_used_mb() -> float:
    fields = dict(re.findall(r"^(\w+):\s+(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE))
    return (int(fields["MemTotal"]) - int(fields["MemAvailable"])) * KIB / 1e6


def busy_share(before: list[int], after: list[int]) -> float:
    """Of the time between two readings of /proc/stat, percent."""
    spent = [later - earlier for earlier, later in zip(before, after, strict=True)]
    idle = spent[3] + spent[4]
    return 100 * (1 - idle / sum(spent[:8]))


def cpu_ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]]


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux says it in /proc")
def test_means_are_what_the_kernel_says():
    monitor = MachineMonitor()
    before = cpu_ticks()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        pass
    found = monitor.means()
    share = busy_share(before, cpu_ticks())
    assert found["cpu_utilization_percentage"] == pytest.approx(share, abs=15)
    assert found["cpu_utilization_percentage"] > 0
    assert found["system_memory_usage_megabytes"] == pytest.approx(memory_used_mb(), rel=0.1, abs=300)
    assert {"disk_usage_percentage", "network_receive_megabytes", "network_transmit_megabytes"} <= found.keys()
    assert not [name for name in found if name.startswith("gpu")] or Path("/proc/driver/nvidia").exists()
