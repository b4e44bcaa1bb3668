"""System metrics of a run: what every machine of the cluster does while the run is at work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from morphmlp.cluster.ray_nodes import NodeResources, cluster_nodes
from morphmlp.config.operation import RecordConfig
from morphmlp.progress import Progress
from morphmlp.record import MetricPoint, Metrics
from morphmlp.tracking import BufferedWriter, RunWriter, read_run, write_waiting
from morphmlp.training.record.run_folder import RunFolder

_POINTS_PER_AGE = 100
_ANSWER_S = 5.0
_CLOSE_S = 10.0


@contextmanager
def system_metrics_recorded(
    record: RecordConfig,
    writer: RunWriter,
    folder: RunFolder,
    progress: Progress,
    *,
    first_interval_s: float = 10.0,
) -> Iterator[None]:
    """Where `record` asks for them, record them from a process of their own that nothing waits for.

    Their step is seconds since the run began. Points come every `first_interval_s`, later every hundredth of the run's
    age: with 10 s a day has some 550 of each metric. What the tracking store hasn't got waits in the run's folder; it
    is written before this ends, unless by an error.
    """
    if not record.system_metrics:
        yield
        return
    waiting = folder.system_metrics_waiting
    began_ms = read_run(writer.uri, writer.run_id).start_ms
    # Zero CPUs: nothing else of the cluster has to make room for it.
    recorder: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Recorder)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    # Two at a time: one records, one stops it.
    recording = recorder.options(scheduling_strategy=here, max_concurrency=2).remote(
        writer, waiting, began_ms, first_interval_s
    )
    recording.record.remote()
    try:
        yield
    finally:
        with suppress(RayError, GetTimeoutError):  # what isn't written waits in the file
            for line in ray.get(recording.stop.remote(), timeout=2 * _ANSWER_S + _CLOSE_S):
                progress.line(line)
        ray.kill(recording)
    write_waiting(waiting, writer)


class _NodeMonitor:
    """A process on a machine."""

    def __init__(self) -> None:
        from morphmlp.tracking.system_metrics import MachineMonitor  # noqa: PLC0415 (mlflow, seconds)

        self._monitor = MachineMonitor()

    def means(self) -> dict[str, float]:
        return self._monitor.means()


class _Recorder:
    """Asks the monitors of all machines, and hands their answers to the record."""

    def __init__(self, writer: RunWriter, waiting: Path, began_ms: int, first_interval_s: float) -> None:
        self._said: list[str] = []
        self._record = BufferedWriter(writer, waiting, log=self._said.append)
        self._began_ms, self._first_interval_s = began_ms, first_interval_s
        self._stopped = threading.Event()
        self._asking = threading.Lock()
        self._monitors: dict[str, Any] = {}
        """By Ray's name of the node."""
        self._pending: dict[str, Any] = {}
        """Questions without an answer yet, likewise."""

    def record(self) -> None:
        """Go on until `stop`."""
        while not self._stopped.wait(max(self._first_interval_s, self._age_s() / _POINTS_PER_AGE)):
            self._take_points()

    def stop(self) -> list[str]:
        """Record a last time; what there is to say to the user."""
        self._stopped.set()
        self._take_points()
        self._record.close(_CLOSE_S)
        return self._said

    def _age_s(self) -> float:
        return time.time() - self._began_ms / 1000

    def _take_points(self) -> None:
        with self._asking:
            machines = machine_names(cluster_nodes())
            self._start_monitors(machines)
            asked = list(self._pending.values())
            ready, _ = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S) if asked else ([], [])
            step = int(self._age_s())
            points = []
            for node_id in [node_id for node_id, reference in self._pending.items() if reference in ready]:
                try:
                    means = ray.get(self._pending.pop(node_id))
                except RayError:
                    del self._monitors[node_id]  # the next time another one is started
                    continue
                points += [
                    MetricPoint.now(f"{Metrics.SYSTEM}{machines[node_id]}/{name}", value, step)
                    for name, value in means.items()
                ]
            self._record.metrics(points)

    def _start_monitors(self, machines: dict[str, str]) -> None:
        """Have one on each machine, and a question at each."""
        for gone in self._monitors.keys() - machines.keys():
            del self._monitors[gone]
            self._pending.pop(gone, None)
        monitor: Any = ray.remote(num_cpus=0)(_NodeMonitor)
        for node_id in machines:
            if node_id not in self._monitors:
                there = NodeAffinitySchedulingStrategy(node_id, soft=False)
                self._monitors[node_id] = monitor.options(scheduling_strategy=there).remote()
            if node_id not in self._pending:
                self._pending[node_id] = self._monitors[node_id].means.remote()


def machine_names(nodes: list[NodeResources]) -> dict[str, str]:
    """Ray's name of a node on each machine, with the machine's name in the record.

    That is its host name, and its address with it where machines share one; nodes at one address are one machine.
    """
    by_address = {node.address: node for node in reversed(nodes)}
    hosts = [node.host for node in by_address.values()]
    return {
        node.node_id: node.host if hosts.count(node.host) == 1 else f"{node.host} {node.address.replace(':', '_')}"
        for node in sorted(by_address.values(), key=lambda node: (node.host, node.address))
    }
