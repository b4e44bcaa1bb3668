"""Asks a cluster's head for its machines and jobs, without joining: from a node of it, or through the dashboard.

`ray.init` needs a raylet on the machine. The head itself answers any host that reaches it; Ray has that client for its
own use only, so this is the one place that takes it, and a test of a real cluster fails where Ray changes it.
"""

import os
from collections.abc import Mapping
from typing import Any

from morphmlp.cluster.address import VARIABLE, head_address, require_cluster
from morphmlp.cluster.state import ClusterState, JobState, NodeState
from morphmlp.errors import ClusterError

ANSWER_S = 5
"""Time for an answer, seconds."""


def read_cluster(address: str, *, named: str = VARIABLE) -> ClusterState:
    """The state of the cluster of an address: the head's `host:port`, `auto`, or its dashboard's `http://host:port`.

    `named` is the variable or option that the user gave it by.

    Raises:
        ClusterError: It isn't reached, or refuses.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address.startswith(("http://", "https://")):
        return _from_dashboard(address)
    require_cluster(address, named=named)
    return _from_head(head_address(address, named=named))


def _from_head(address: str) -> ClusterState:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # noqa: PLC0415 (see above)

    try:
        client = GcsClient(address=address)
        nodes = client.get_all_node_info(timeout=ANSWER_S)
        jobs = client.get_all_job_info(
            skip_submission_job_info_field=True, skip_is_running_tasks_field=True, timeout=ANSWER_S
        )
    except Exception as error:  # whatever its C++ layer raises
        raise ClusterError(f"{address}: the head gives no answer: {' '.join(str(error).split())[:200]}") from error
    return ClusterState(
        address=address,
        nodes=[
            _node(
                node_id=node.node_id.hex(),
                name=f"{node.node_manager_hostname} ({node.node_manager_address})",
                alive=node.state == 0,
                resources=node.resources_total,
                ended_ms=node.end_time_ms,
                why=node.death_info.reason_message,
            )
            for node in nodes.values()
        ],
        jobs={
            job.job_id.hex(): JobState(alive=not job.is_dead, ended_ms=job.end_time or None) for job in jobs.values()
        },
    )


def _from_dashboard(address: str) -> ClusterState:
    from ray.util.state import list_jobs, list_nodes  # noqa: PLC0415 (seconds of imports)

    try:
        nodes = list_nodes(address=address, limit=10_000, timeout=ANSWER_S, detail=True)
        jobs = list_jobs(address=address, limit=10_000, timeout=ANSWER_S)
    except Exception as error:
        raise ClusterError(f"{address}: no dashboard answers: {' '.join(str(error).split())[:200]}") from error
    return ClusterState(
        address=address,
        nodes=[
            _node(
                node_id=node.node_id,
                name=f"{node.node_name} ({node.node_ip})",
                alive=node.state == "ALIVE",
                resources=node.resources_total,
                ended_ms=node.end_time_ms,
                why=node.state_message,
            )
            for node in nodes
        ],
        jobs={
            job.job_id: JobState(alive=job.status in ("PENDING", "RUNNING"), ended_ms=job.end_time or None)
            for job in jobs
            if job.job_id
        },
    )


def _node(
    *, node_id: str, name: str, alive: bool, resources: Mapping[str, Any], ended_ms: int | None, why: str | None
) -> NodeState:
    return NodeState(
        node_id=node_id,
        name=name,
        alive=alive,
        gpus=int(resources.get("GPU", 0)),
        cpus=int(resources.get("CPU", 0)),
        ended_ms=None if alive else ended_ms or None,
        why=(why or "").strip().partition("\n")[0],
    )
