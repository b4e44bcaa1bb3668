"""What MLflow's own monitors see of a machine, under the names that its pages know."""

import threading
from contextlib import suppress
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

_KINDS: tuple[Any, ...] = (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor)  # Any: mlflow gives no hints here
_SAMPLE_S = 2.0


class MachineMonitor:
    """Looks every 2 s at CPU, memory, disk, network and NVIDIA GPUs of the machine that this process runs on."""

    def __init__(self) -> None:
        self._monitors: list[Any] = []
        for kind in _KINDS:
            with suppress(RuntimeError):  # the one for GPUs, on a machine without them
                self._monitors.append(kind())
        self._lock = threading.Lock()
        self._take()  # the share of CPU is that since the last look: the first one has none
        threading.Thread(target=self._watch, name="machine monitor", daemon=True).start()

    def means(self) -> dict[str, float]:
        """Means since the last call, by MLflow's names, as in `cpu_utilization_percentage`.

        Those of the network are megabytes since the start of this process.
        """
        with self._lock:
            return self._take()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(_SAMPLE_S):
            with self._lock:
                self._look()

    def _look(self) -> None:
        for monitor in self._monitors:
            monitor.collect_metrics()

    def _take(self) -> dict[str, float]:
        self._look()
        found: dict[str, float] = {}
        for monitor in self._monitors:
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return found
