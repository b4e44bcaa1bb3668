"""The machines of a cluster: what they have, and what each of them answers when it is asked."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from morphmlp.errors import ClusterError
from morphmlp.record import Tags

ANSWER_S = 120.0
"""Time for an answer; a process has to start for it."""

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where `ray job submit` hands its runtime environment to the command."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class NodeResources:
    """What one machine of the cluster has."""

    cpus: int
    gpus: int
    labels: Mapping[str, str] = field(hash=False)
    memory_bytes: int = 0
    """What processes and Ray's object store may take there: what was free when its Ray was started, or what that was
    told; 0 where nobody knows."""
    object_store_bytes: int = 0
    """Of these, Ray's object store's."""
    node_id: str = ""
    """Ray's name for it."""
    host: str = ""
    """Its own name."""
    address: str = ""
    """In the network by which Ray's nodes reach each other."""

    @property
    def name(self) -> str:
        """Host name and address, for messages."""
        return f"{self.host} ({self.address})" if self.host else ""

    def may_decode(self, labels: Mapping[str, str]) -> bool:
        """Whether decode tasks may come here that go to nodes with these labels."""
        return self.cpus > 0 and labels.items() <= self.labels.items()


def cluster_nodes() -> list[NodeResources]:
    """The machines of the cluster that are alive."""
    return [
        NodeResources(
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            labels=node.get("Labels", {}),
            memory_bytes=sum(int(node["Resources"].get(kind, 0)) for kind in ("memory", "object_store_memory")),
            object_store_bytes=int(node["Resources"].get("object_store_memory", 0)),
            node_id=node["NodeID"],
            host=node["NodeManagerHostname"],
            address=node["NodeManagerAddress"],
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        if node["Alive"]
    ]


def ray_job_tag() -> dict[str, str]:
    """How the record names the command that runs here: by it `status.py` finds out whether that is still at work."""
    context = ray.get_runtime_context()
    return {Tags.RAY_JOB: f"{context.get_job_id()} {context.get_node_id()}"}


def was_submitted() -> bool:
    """Whether this command runs as a job of `ray job submit`."""
    return SUBMITTED in os.environ


def inventory(nodes: list[NodeResources]) -> str:
    """What machines have, in words."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    where = f"the cluster's {len(nodes)} nodes"
    if len(nodes) == 1:  # Ray that is started here has no name for it yet
        where = f"node {nodes[0].name}" if nodes[0].name else "this machine"
    return f"{where} ({cpus} CPUs, {gpus} GPUs)"


def ask_nodes(
    answer: Callable[[Question], Answer],
    questions: Mapping[NodeResources, Question],
    *,
    doing: Callable[[Question], str],
) -> list[tuple[NodeResources, Answer]]:
    """What each machine answers, all asked at once; one that is gone by then has no part any more.

    `doing` says in words what a machine that doesn't answer was at, as in `read its clock`.

    Raises:
        ClusterError: A machine doesn't answer in time, or failed at the question.
    """
    asked = {
        # Zero CPUs: nothing else of the cluster has to make room for it.
        ray.remote(num_cpus=0, max_retries=0)(answer)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False))
        .remote(question): node
        for node, question in questions.items()
    }
    _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
    if silent:
        node = asked[silent[0]]
        raise ClusterError(f"node {node.name}: no answer within {ANSWER_S:.0f} s while it {doing(questions[node])}")
    answers = []
    for reference, node in asked.items():
        try:
            answers.append((node, ray.get(reference)))
        except RayTaskError as error:
            raise ClusterError(f"node {node.name}: {str(error).strip().splitlines()[-1]}") from error
        except RayError:
            continue
    return answers
