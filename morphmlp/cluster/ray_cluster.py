"""Joining or starting Ray, and refusing what can't be placed before anything starts.

Ray waits for ever for resources that never come; so the arithmetic is done here first. On one machine
logical CPUs are declared for the workers and for ingest on top, since workers that hold them all would
starve the decode tasks.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

# Read by Ray when it is imported; what the user has set stays.
# Reports of training workers are collected at this interval, seconds.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Training workers stay in the working directory, where an experiment's relative paths start.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
# A thread that still calls Ray while a session ends must not start another one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
# Decode processes that wait for the next epoch are kept: each costs seconds of imports.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
# The workers' places are tried before a start (`ray_capacity.py`); a start that hangs all the same is tried again.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")
# A worker that doesn't answer for so long is ended: its process is stopped, or nothing comes through to its node.
os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "300")
# What Ray says of a lost node twice it would keep, and print when the session ends, past what drops its messages.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# Zero GPUs hide the GPUs from a task, as Ray will do by default (it warns until then).
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# What is started on this machine alone listens on loopback, as it does by default on the systems of that name.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from morphmlp.cluster.address import require_closed, require_cluster
from morphmlp.cluster.ray_nodes import NodeResources, cluster_nodes, inventory
from morphmlp.cluster.ray_same_nodes import require_same_nodes, shipped_code
from morphmlp.cluster.ray_session import (
    hushed_start,
    own_temp_folder,
    quiet_ray,
    ray_faults_reported,
    without_preemption_watcher,
    without_ray_messages,
)
from morphmlp.cluster.started_processes import StartedProcesses
from morphmlp.cluster.token import have_token, keep_token_private
from morphmlp.config.operation import ClusterConfig, IngestConfig, WorkerRange
from morphmlp.errors import ClusterError
from morphmlp.stop_signals import handlers_kept, undisturbed

if TYPE_CHECKING:
    from morphmlp.data.stream.ray_dataset import IngestShare

_BYTES_PER_MB = 2**20
_BYTES_PER_GB = 2**30


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Who gets what, decided before the workers start."""

    num_workers: int
    """How many start now: the most that fit."""
    min_workers: int
    """With fewer the run waits."""
    max_workers: int
    """The run grows to so many where nodes come."""
    on_cluster: bool
    """Nodes may come and go; else it's one machine, or a fixed share of a cluster."""
    device: Literal["cpu", "cuda"]
    cpus_per_worker: int
    ingest_cpus: int
    """CPUs for decode tasks, over all workers."""
    worker_labels: Mapping[str, str] = field(default_factory=dict)
    """Ray label selector of the workers: away from nodes that are labelled for ingest, whose CPUs they would take."""
    ingest_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes that decode; none: any node."""

    @property
    def worker_resources(self) -> dict[str, float]:
        """What one worker holds for as long as it runs, as Ray names it."""
        return {"CPU": self.cpus_per_worker, **({"GPU": 1} if self.device == "cuda" else {})}

    def may_train(self, node: NodeResources) -> bool:
        """Whether a worker may come to a node."""
        return self.workers_on(node) > 0

    def workers_on(self, node: NodeResources) -> int:
        """Most workers that may come to a node; Ray fills one before it turns to the next."""
        away = any(f"!{node.labels.get(name)}" == value for name, value in self.worker_labels.items())
        return 0 if away else min(self.num_workers, _workers_on(node, self.cpus_per_worker, self.device))

    def ingest_share(self, ingest: IngestConfig, *, pipelines: int) -> "IngestShare":
        """What each of `pipelines` pipelines that decode at the same time may use."""
        from morphmlp.data.stream.clip_cache import ClipCache  # noqa: PLC0415 (torch and Ray Data, seconds)
        from morphmlp.data.stream.decode_task import DecodePolicy, decode_limits  # noqa: PLC0415
        from morphmlp.data.stream.ray_dataset import IngestShare  # noqa: PLC0415

        return IngestShare(
            policy=DecodePolicy(
                decoder=ingest.decoder,
                retry_with=ingest.retry_with,
                image_decoder=ingest.image_decoder,
                limits=decode_limits(ingest),
                cache=None
                if ingest.clip_cache is None
                else ClipCache(folder=ingest.clip_cache, max_bytes=int(ingest.clip_cache_gb * _BYTES_PER_GB)),
            ),
            cpus=max(1, self.ingest_cpus // pipelines),
            object_store_bytes=None
            if ingest.object_store_mb is None
            else ingest.object_store_mb * _BYTES_PER_MB // pipelines,
            videos_per_task=ingest.videos_per_task,
            node_labels=dict(self.ingest_labels),
            wait_for_clips_s=ingest.wait_for_clips_s,
            pin_memory=self.device == "cuda",
        )


@contextmanager
def ray_session(
    cluster: ClusterConfig, ingest: IngestConfig, *, micro_batches: int, trials: int = 1, compare_nodes: bool = True
) -> Iterator[Placement]:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine; leave no process behind.

    `compare_nodes`: ask each node for its code and its time.

    Raises:
        ClusterError: The cluster can't hold the run, with the arithmetic, or a node has other code or another time;
            nothing was started.
    """
    quiet_ray()
    if os.environ.get("RAY_ADDRESS"):
        with _joined(os.environ["RAY_ADDRESS"]):
            placement = _place_on_cluster(cluster, ingest, micro_batches=micro_batches)
            if compare_nodes:
                require_same_nodes()
            yield placement
        return
    import torch  # noqa: PLC0415 (only to count GPUs)

    cpus = cluster.local_cpus or len(os.sched_getaffinity(0))  # those that the process may use
    here = NodeResources(cpus=cpus, gpus=torch.cuda.device_count(), labels={})
    placement = place([here], cluster, ingest, micro_batches=micro_batches, oversubscribe=True)
    with _local(cpus=trials * (placement.num_workers * placement.cpus_per_worker + placement.ingest_cpus)):
        yield placement


@contextmanager
def job_session(*, local_cpus: int | None = None) -> Iterator[None]:
    """Connect for plain tasks, without workers: join the cluster that RAY_ADDRESS names, or start Ray here.

    Ray started here uses `local_cpus` CPUs, by default all that the process may use.

    Raises:
        ClusterError: No cluster answers at RAY_ADDRESS, or Ray doesn't start here.
    """
    quiet_ray()
    if address := os.environ.get("RAY_ADDRESS"):
        with _joined(address):
            yield
    else:
        with _local(cpus=local_cpus or len(os.sched_getaffinity(0))):
            yield


def place(
    nodes: list[NodeResources],
    cluster: ClusterConfig,
    ingest: IngestConfig,
    *,
    micro_batches: int,
    oversubscribe: bool = False,
) -> Placement:
    """Fit workers and ingest onto nodes.

    `oversubscribe`: decode tasks may share CPUs with the workers (one machine); else they need their own.

    Raises:
        ClusterError: It doesn't fit; the message says what is there and what would fit.
    """
    gpus = sum(node.gpus for node in nodes)
    device = _device(cluster, gpus=gpus)
    least, most = _asked_workers(cluster, default=min(gpus, micro_batches) if device == "cuda" else 1)
    labelled = [node for node in nodes if ingest.node_labels.items() <= node.labels.items()]
    if not labelled and ingest.decode_elsewhere:
        ingest, labelled = replace(ingest, node_labels={}), nodes
    if not labelled:
        raise ClusterError(f"ingest.node_labels: no node has the labels {ingest.node_labels}")
    for_training = [node for node in nodes if not ingest.node_labels.items() & node.labels.items()]
    capacity = sum(_workers_on(node, cluster.cpus_per_worker, device) for node in for_training)
    if least > capacity:
        raise ClusterError(
            f"cluster.num_workers: {least} workers on {device} with {cluster.cpus_per_worker} CPU each don't "
            f"fit: {inventory(for_training)} hold{'s' if len(for_training) == 1 else ''} {capacity}; "
            "lower it, or add nodes"
        )
    if least > micro_batches:
        raise ClusterError(
            f"cluster.num_workers: {least} workers share {micro_batches} micro-batches a step; "
            f"use at most {micro_batches}"
        )
    most = min(most, micro_batches)
    total = sum(node.cpus for node in labelled)
    for num_workers in range(min(most, capacity), least - 1, -1):
        free = total - num_workers * cluster.cpus_per_worker if not ingest.node_labels else total
        ingest_cpus = ingest.cpus or max(free, num_workers if oversubscribe else 0)
        if oversubscribe or num_workers <= ingest_cpus <= free:
            return Placement(
                num_workers=num_workers,
                min_workers=least,
                max_workers=num_workers if oversubscribe else most,
                on_cluster=not oversubscribe,
                device=device,
                cpus_per_worker=cluster.cpus_per_worker,
                ingest_cpus=max(ingest_cpus, num_workers),
                worker_labels=_away_from(ingest.node_labels),
                ingest_labels=ingest.node_labels,
            )
    raise ClusterError(
        f"ingest.cpus: decoding needs a CPU for each of {least} workers, at most the {max(free, 0)} that "
        f"training leaves free on {inventory(labelled)}; got {ingest_cpus}"
    )


def _device(cluster: ClusterConfig, *, gpus: int) -> Literal["cpu", "cuda"]:
    """What `cluster.device` means where there are so many GPUs."""
    if cluster.device == "auto":
        return "cuda" if gpus else "cpu"
    if cluster.device == "cuda" and not gpus:
        raise ClusterError("cluster.device: cuda, but there are no GPUs; use cpu or auto")
    return cluster.device


@contextmanager
def _local(*, cpus: int) -> Iterator[None]:
    keep_token_private()
    have_token()
    started = StartedProcesses()
    with own_temp_folder() as folder, without_preemption_watcher():
        try:
            try:
                with hushed_start(), handlers_kept(), started.noted():
                    ray.init(
                        address="local",
                        num_cpus=cpus,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        _temp_dir=str(folder),
                    )
            except Exception as error:  # of no type of Ray's own, where it takes too long
                raise ClusterError(f"Ray doesn't start on this machine: {' '.join(str(error).split())}") from error
            # Where Ray's own helpers look a cluster up. Without it they find another Ray of this machine, miss our
            # controller there, take it for dead and remove its workers.
            (folder / "ray_current_cluster").write_text(ray.get_runtime_context().gcs_address, encoding="utf-8")
            with ray_faults_reported():
                yield
        finally:
            with undisturbed(), started.ended():
                ray.shutdown()


@contextmanager
def _joined(address: str) -> Iterator[None]:
    keep_token_private()
    require_cluster(address)
    try:
        with hushed_start(), handlers_kept():
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=shipped_code() or None
            )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(f"RAY_ADDRESS {address}: can't join the cluster: {' '.join(str(error).split())}") from None
    try:
        with ray_faults_reported(), without_ray_messages():
            require_closed(ray.get_runtime_context().gcs_address, (node.address for node in cluster_nodes()))
            yield
    finally:
        if ray.is_initialized():
            request_resources(bundles=[])  # or the autoscaler would keep the nodes for us
        with undisturbed():  # a second Ctrl-C would leave processes behind
            ray.shutdown()


def _place_on_cluster(cluster: ClusterConfig, ingest: IngestConfig, *, micro_batches: int) -> Placement:
    deadline = time.monotonic() + cluster.wait_for_nodes_s
    if cluster.wait_for_nodes_s and cluster.device == "auto":
        raise ClusterError("cluster.device: auto can't wait for nodes that aren't there yet; set cuda or cpu")
    if cluster.wait_for_nodes_s:
        gpu = {"GPU": 1} if cluster.device == "cuda" else {}
        gpus = sum(node.gpus for node in cluster_nodes()) if gpu else 0
        _, most = _asked_workers(cluster, default=min(max(gpus, 1), micro_batches))
        request_nodes({"CPU": cluster.cpus_per_worker, **gpu}, most, ingest)
    while True:
        late = time.monotonic() >= deadline
        try:
            # Nodes that were asked for are waited for, also where others could decode.
            now = ingest if late else replace(ingest, decode_elsewhere=False)
            return place(cluster_nodes(), cluster, now, micro_batches=micro_batches)
        except ClusterError:
            if late:
                raise
            time.sleep(1)


def request_nodes(worker: Mapping[str, float], workers: int, ingest: IngestConfig) -> None:
    """Ask an autoscaling cluster for nodes that hold so many workers, and for labelled ones that decode for them.

    Without labels in the request it would start nodes of any type that have the CPUs. It replaces earlier requests, as
    those of Ray Data do in turn, which know no labels: what came by then is in use, and decode tasks that wait for a
    CPU ask by label themselves.
    """
    # Decode tasks without labels take what workers leave free.
    decoding = (ingest.cpus or workers) if ingest.node_labels else 0
    request_resources(
        bundles=[dict(worker)] * workers + [{"CPU": 1}] * decoding,
        bundle_label_selectors=[_away_from(ingest.node_labels)] * workers + [dict(ingest.node_labels)] * decoding,
    )


def _away_from(labels: Mapping[str, str]) -> dict[str, str]:
    """Ray's selector of nodes without these labels."""
    return {name: f"!{value}" for name, value in labels.items()}


def _asked_workers(cluster: ClusterConfig, *, default: int) -> tuple[int, int]:
    """Fewest and most workers."""
    if isinstance(cluster.num_workers, WorkerRange):
        return cluster.num_workers.min, cluster.num_workers.max
    fixed = cluster.num_workers or default
    return fixed, fixed


def _workers_on(node: NodeResources, cpus_per_worker: int, device: str) -> int:
    by_cpus = node.cpus // cpus_per_worker
    return min(by_cpus, node.gpus) if device == "cuda" else by_cpus
