"""All-reduces between every two nodes that train, as many pairs at a time as there are partners for."""

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from morphmlp.cluster.ray_cluster import Placement
from morphmlp.cluster.ray_nodes import NodeResources
from morphmlp.preflight.pairs import MEETING_S, all_reduce_rounds, rounds_of_pairs
from morphmlp.preflight.report import PairReport
from morphmlp.progress import Progress
from morphmlp.training.workers.ray_process_group import choose_interface, meeting_address
from morphmlp.training.workers.store_listener import listen, open_store

_START_S = 120.0
"""Time for a process to start and import torch."""


class _Partner:
    """A process on a node, with a GPU where training has one."""

    def __init__(self, *, several_nodes: bool) -> None:
        self._alone = not several_nodes
        choose_interface(alone=self._alone)

    def address(self) -> str:
        """Where it can be met next."""
        host = meeting_address(alone=self._alone)
        port = listen(host)
        open_store(host, port)
        return f"{host}:{port}"

    def meet(self, address: str, rank: int, backend: str) -> float | str:
        return all_reduce_rounds(address, rank=rank, backend=backend)


def measure_pairs(nodes: Sequence[NodeResources], placement: Placement, progress: Progress) -> tuple[PairReport, ...]:
    """Let every two of the nodes meet; of one node, two processes, where it has several workers on CPUs."""
    places = list(nodes) if len(nodes) > 1 else list(nodes) * 2
    if len(nodes) == 1 and (placement.max_workers == 1 or placement.device == "cuda"):
        return ()  # GPUs of one machine are joined in the training steps
    backend, gpus = ("nccl", 1) if placement.device == "cuda" else ("gloo", 0)
    partner: Any = ray.remote(num_cpus=0, num_gpus=gpus, max_restarts=0)(_Partner)
    keys = [f"{place}" for place in range(len(places))]
    partners: dict[str, Any] = {
        key: partner.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote(
            several_nodes=len(nodes) > 1
        )
        for key, node in zip(keys, places, strict=True)
    }
    rounds, found = rounds_of_pairs(keys), []
    progress.phase("all-reduce", total=sum(map(len, rounds)), unit="pairs")
    for pairs in rounds:
        met = []
        for one, other in pairs:
            names = (places[int(one)].name, places[int(other)].name)
            try:
                address = ray.get(partners[one].address.remote(), timeout=_START_S)
            except RayError as error:
                found.append(PairReport(nodes=names, fault=f"{names[0]} starts no process: {_short(error)}"))
                continue
            sides = [partners[key].meet.remote(address, rank, backend) for rank, key in enumerate((one, other))]
            met.append((names, sides))
        for names, sides in met:
            found.append(_outcome(names, sides))
            progress.update(len(found))
    for actor in partners.values():
        ray.kill(actor)
    return tuple(found)


def _outcome(names: tuple[str, str], sides: list["ray.ObjectRef[float | str]"]) -> PairReport:
    try:
        results = ray.get(sides, timeout=_START_S + 2 * MEETING_S)
    except GetTimeoutError:
        return PairReport(nodes=names, fault="they don't come to an end with each other")
    except RayError as error:
        return PairReport(nodes=names, fault=f"they don't meet: {_short(error)}")
    for result in results:
        if isinstance(result, str):
            return PairReport(nodes=names, fault=result)
    return PairReport(nodes=names, bytes_per_s=min(result for result in results if isinstance(result, float)))


def _short(error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return " ".join(str(cause).split())[:300] or type(error).__name__
