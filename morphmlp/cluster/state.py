"""What a cluster says of its machines and of the commands that joined it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """One machine that is in the cluster, or was."""

    node_id: str
    name: str
    """Host name and address."""
    alive: bool
    gpus: int
    cpus: int
    ended_ms: int | None
    """When the cluster noticed that it's gone."""
    why: str
    """Ray's reason for that."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A command that joined the cluster."""

    alive: bool
    ended_ms: int | None


@dataclass(frozen=True, kw_only=True)
class ClusterState:
    """Machines, and commands by Ray's name for them."""

    address: str
    nodes: Sequence[NodeState]
    jobs: Mapping[str, JobState]

    @property
    def lost(self) -> list[NodeState]:
        """Machines that are gone and not back (under another `node_id`), the last one first."""
        last = {node.name: node for node in sorted(self.nodes, key=lambda node: (node.alive, node.ended_ms or 0))}
        return sorted((node for node in last.values() if not node.alive), key=lambda node: -(node.ended_ms or 0))

    def gone(self, ray_job: str) -> str | None:
        """By what a command, as the record names it (`JOB NODE`), is known to be gone; None where that isn't known."""
        job_name, _, node_id = ray_job.partition(" ")
        node = next((node for node in self.nodes if node.node_id == node_id), None)
        job = self.jobs.get(job_name)
        if node is None or job is None:  # of another cluster, or of this one before its head was started again
            return None
        if not node.alive:
            return f"its node {node.name} left the cluster"
        return None if job.alive else f"Ray job {job_name} has ended"
