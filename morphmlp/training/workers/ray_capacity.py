"""What the cluster can start now: looked up before the workers start again, and while they run to grow.

Ray Train alone waits for ever for workers that can't be placed, and kills running ones to grow onto new nodes. So
places are tried first, by reservations that are given back.
"""

import contextlib
import pickle
import time
from dataclasses import replace
from pathlib import Path

import ray
from ray.util.placement_group import get_current_placement_group, placement_group, remove_placement_group

from morphmlp.cluster.ray_cluster import Placement, place, request_nodes
from morphmlp.cluster.ray_nodes import cluster_nodes, inventory
from morphmlp.config.operation import ClusterConfig, IngestConfig, WorkerRange
from morphmlp.errors import ClusterError

START_WAIT_S = 5.0
"""Within this time the CPUs of decode tasks that ended with the workers are free."""
_GROWTH_WAIT_S = 3.0
NOTICE_S = 30.0
"""Within this time a cluster notices that a node is gone (13 s where its connections are refused)."""


class Capacity:
    """How many workers of a run fit: on a cluster whose nodes come and go, or on a fixed share of one."""

    def __init__(
        self, placement: Placement, *, cluster: ClusterConfig, ingest: IngestConfig, micro_batches: int
    ) -> None:
        self.placement = placement
        workers = WorkerRange(min=placement.min_workers, max=placement.max_workers)
        self._cluster = replace(cluster, num_workers=workers, device=placement.device)
        self._ingest, self._micro_batches = ingest, micro_batches
        self._most_decode = 0
        """Labelled nodes that decode, at their most so far."""

    @property
    def workers(self) -> int:
        """How many the next start has."""
        return self.placement.num_workers

    def look(self) -> str | None:
        """Find out how many workers can start now; what is lacking where there aren't enough."""
        try:
            wanted = self._placed()
        except ClusterError as error:
            return str(error)
        found = places(wanted, wanted.num_workers, wait_s=START_WAIT_S)
        if found < wanted.min_workers:
            each = ", ".join(f"{name} {amount:g}" for name, amount in wanted.worker_resources.items())
            return (
                f"{wanted.min_workers} x {{{each}}} are needed, {found} can start now; "
                f"{inventory(cluster_nodes())}, shared with whatever else runs there"
            )
        self.placement = replace(wanted, num_workers=found)
        return None

    def more(self) -> int:
        """How many more could run; an autoscaling cluster is asked for the most."""
        now = self.placement
        if now.num_workers == now.max_workers:
            return 0
        request_nodes(now.worker_resources, now.max_workers, self._ingest)
        try:
            more = self._placed().num_workers - now.num_workers
        except ClusterError:
            return 0
        return places(now, more, wait_s=_GROWTH_WAIT_S) if more > 0 else 0

    def ingest_lacking(self) -> str | None:
        """Which labelled nodes that decode have gone, in words; None: none, or any node may decode."""
        labels = self.placement.ingest_labels
        if not labels or not self.placement.on_cluster:
            return None
        there = sum(node.may_decode(labels) for node in cluster_nodes())
        self._most_decode = max(self._most_decode, there)
        if there == self._most_decode:
            return None
        return f"{there} of {self._most_decode} nodes that decode ({labels}) are there"

    def _placed(self) -> Placement:
        """By the arithmetic of what all nodes have."""
        if not self.placement.on_cluster:
            return self.placement
        return place(cluster_nodes(), self._cluster, self._ingest, micro_batches=self._micro_batches)


def places(placement: Placement, most: int, *, wait_s: float) -> int:
    """How many workers could start right now, up to `most`: places are taken for a moment, and given back.

    Unlike sums over nodes this counts what others hold, and leaves out nodes that are about to go.
    """
    labels = [dict(placement.worker_labels)] if placement.worker_labels else None
    groups = [placement_group([placement.worker_resources], bundle_label_selector=labels) for _ in range(most)]
    try:
        placed, _ = ray.wait([group.ready() for group in groups], num_returns=most, timeout=wait_s)
        return len(placed)
    finally:
        for group in groups:
            remove_placement_group(group)


def note_places(path: Path) -> None:
    """Write down what holds the places of the worker that calls this; a disk that refuses is no reason to fail."""
    with contextlib.suppress(OSError):
        path.write_bytes(pickle.dumps(get_current_placement_group()))


def free_places(path: Path) -> bool:
    """Free the places that workers held, whose controller died without doing it; whether it was known what held them.

    Ray frees them only at the end of the whole session, or of a dashboard's helper, which there is none of.
    The workers die with their places.
    """
    try:
        remove_placement_group(pickle.loads(path.read_bytes()))
    except OSError:
        return False
    return True


def alive_nodes() -> frozenset[str]:
    """Identities of the machines that the cluster takes for alive."""
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]


def lost_node(before: frozenset[str], *, wait_s: float) -> bool:
    """Whether one of these machines is gone; waits for the cluster to notice."""
    deadline = time.monotonic() + wait_s
    while before <= alive_nodes():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.5)
    return True
