"""The arithmetic of placement: what doesn't fit is refused before Ray starts."""

import pickle
from dataclasses import replace

import pytest
import ray.exceptions

from morphmlp.cluster.ray_cluster import job_session, place
from morphmlp.cluster.ray_nodes import NodeResources, inventory
from morphmlp.cluster.ray_session import ray_faults_reported
from morphmlp.config.operation import ClusterConfig, IngestConfig, WorkerRange
from morphmlp.data.stream.clip_cache import ClipCache
from morphmlp.errors import ClusterError, ManifestError, StorageError

LAPTOP = NodeResources(cpus=2, gpus=0, labels={})
GPU_NODE = NodeResources(cpus=48, gpus=4, labels={"node-role": "train"})
CPU_NODE = NodeResources(cpus=32, gpus=0, labels={"node-role": "ingest"})
CLUSTER = [NodeResources(cpus=0, gpus=0, labels={"node-role": "head"}), GPU_NODE, GPU_NODE, CPU_NODE]
INGEST_NODES = IngestConfig(node_labels={"node-role": "ingest"})


def test_one_worker_by_default_without_gpus():
    placement = place([LAPTOP], ClusterConfig(), IngestConfig(), micro_batches=8, oversubscribe=True)
    assert (placement.num_workers, placement.device, placement.ingest_cpus) == (1, "cpu", 1)


def test_workers_and_decode_tasks_share_the_cpus_of_one_machine():
    placement = place([LAPTOP], ClusterConfig(num_workers=2), IngestConfig(), micro_batches=8, oversubscribe=True)
    assert (placement.num_workers, placement.ingest_cpus) == (2, 2)


def test_a_worker_for_each_gpu_by_default_and_decoding_on_the_rest():
    placement = place(CLUSTER, ClusterConfig(), IngestConfig(), micro_batches=64)
    assert (placement.num_workers, placement.device, placement.ingest_cpus) == (8, "cuda", 48 + 48 + 32 - 8)


def test_workers_keep_away_from_the_nodes_that_decode():
    placement = place(CLUSTER, ClusterConfig(), INGEST_NODES, micro_batches=64)
    assert placement.ingest_cpus == 32
    assert placement.worker_labels == {"node-role": "!ingest"}
    with pytest.raises(ClusterError, match="hold 96; lower it"):
        place(CLUSTER, ClusterConfig(num_workers=97, device="cpu"), INGEST_NODES, micro_batches=128)


def test_never_more_workers_than_micro_batches():
    assert place(CLUSTER, ClusterConfig(), IngestConfig(), micro_batches=3).num_workers == 3
    with pytest.raises(ClusterError, match="4 workers share 3 micro-batches a step; use at most 3"):
        place(CLUSTER, ClusterConfig(num_workers=4), IngestConfig(), micro_batches=3)


def elastic(least: int, most: int, **others: object) -> ClusterConfig:
    return ClusterConfig(num_workers=WorkerRange(min=least, max=most), **others)  # type: ignore[arg-type]


def test_a_range_takes_as_many_workers_as_fit_now_and_may_grow_later():
    placement = place(CLUSTER[:2], elastic(2, 8), IngestConfig(), micro_batches=64)
    assert (placement.num_workers, placement.min_workers, placement.max_workers) == (4, 2, 8)
    assert placement.ingest_cpus == 48 - 4
    assert placement.on_cluster


def test_a_range_never_exceeds_the_micro_batches():
    placement = place(CLUSTER, elastic(2, 8), IngestConfig(), micro_batches=3)
    assert (placement.num_workers, placement.max_workers) == (3, 3)


def test_a_range_leaves_every_worker_a_cpu_to_decode_with():
    nodes = [NodeResources(cpus=7, gpus=0, labels={})]
    placement = place(nodes, elastic(1, 8), IngestConfig(), micro_batches=64)
    assert (placement.num_workers, placement.ingest_cpus) == (3, 4)
    placement = place(nodes, elastic(1, 8), IngestConfig(cpus=2), micro_batches=64)
    assert (placement.num_workers, placement.ingest_cpus) == (2, 2)


def test_one_machine_is_filled_and_never_grows():
    placement = place([LAPTOP], elastic(1, 8), IngestConfig(), micro_batches=64, oversubscribe=True)
    assert (placement.num_workers, placement.min_workers, placement.max_workers) == (2, 1, 2)
    assert (placement.ingest_cpus, placement.on_cluster) == (2, False)


def test_a_placement_travels_to_the_workers():
    placement = place(CLUSTER, elastic(2, 8), INGEST_NODES, micro_batches=64)
    assert pickle.loads(pickle.dumps(placement)) == placement
    assert placement.worker_resources == {"CPU": 1, "GPU": 1}


@pytest.mark.parametrize(
    ("nodes", "cluster", "ingest", "message"),
    [
        ([LAPTOP], ClusterConfig(num_workers=3), IngestConfig(), r"this machine \(2 CPUs, 0 GPUs\) holds 2; lower it"),
        ([LAPTOP], ClusterConfig(cpus_per_worker=4), IngestConfig(), r"1 workers on cpu with 4 CPU .* holds 0"),
        ([LAPTOP], ClusterConfig(device="cuda"), IngestConfig(), "there are no GPUs; use cpu or auto"),
        (CLUSTER, ClusterConfig(num_workers=9), IngestConfig(), "9 workers on cuda .* hold 8"),
        (CLUSTER, elastic(9, 12), IngestConfig(), "9 workers on cuda .* hold 8"),
        ([LAPTOP, LAPTOP], elastic(3, 4), IngestConfig(), "a CPU for each of 3 workers, at most the 1 that"),
        (CLUSTER, ClusterConfig(), IngestConfig(node_labels={"node-role": "x"}), "no node has the labels"),
        (CLUSTER, ClusterConfig(), IngestConfig(cpus=200), "at most the 120 that training leaves free"),
        (CLUSTER, ClusterConfig(), IngestConfig(cpus=4), "a CPU for each of 8 workers"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_arithmetic(nodes, cluster, ingest, message):
    with pytest.raises(ClusterError, match=message):
        place(nodes, cluster, ingest, micro_batches=64, oversubscribe=len(nodes) == 1)


def test_decode_tasks_share_clips_where_a_folder_is_named_and_only_there():
    placement = place([LAPTOP], ClusterConfig(), IngestConfig(), micro_batches=1, oversubscribe=True)
    share = placement.ingest_share(IngestConfig(clip_cache="/clips", clip_cache_gb=0.5), pipelines=1)
    assert share.policy.cache == ClipCache(folder="/clips", max_bytes=2**29)
    assert pickle.loads(pickle.dumps(share)) == share
    assert placement.ingest_share(IngestConfig(), pipelines=1).policy.cache is None


def test_an_address_that_is_none_is_refused_before_ray_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "garbage")
    with pytest.raises(ClusterError, match="RAY_ADDRESS 'garbage': is no address"), job_session():
        pass


def test_roles_follow_labels_and_room():
    head, trains, _, decodes = CLUSTER
    placement = place(CLUSTER, ClusterConfig(), INGEST_NODES, micro_batches=64)
    assert [placement.may_train(node) for node in (head, trains, decodes)] == [False, True, False]
    assert [node.may_decode(INGEST_NODES.node_labels) for node in (head, trains, decodes)] == [False, False, True]
    anywhere = place(CLUSTER, ClusterConfig(device="cpu"), IngestConfig(), micro_batches=64)
    assert [anywhere.may_train(node) for node in (head, trains, decodes)] == [False, True, True]
    assert [node.may_decode({}) for node in (head, trains, decodes)] == [False, True, True]


@pytest.mark.parametrize(("there", "labels"), [(CLUSTER, {"node-role": "ingest"}), (CLUSTER[:3], {})])
def test_decoding_moves_elsewhere_only_where_allowed_and_no_labelled_node_is_left(
    there: list[NodeResources], labels: dict[str, str]
):
    allowed = replace(INGEST_NODES, decode_elsewhere=True)
    placement = place(there, ClusterConfig(), allowed, micro_batches=64)
    assert placement.ingest_labels == placement.ingest_share(allowed, pipelines=8).node_labels == labels
    assert placement.ingest_cpus == (32 if labels else 96 - 8)
    if not labels:
        with pytest.raises(ClusterError, match="no node has the labels"):
            place(there, ClusterConfig(), INGEST_NODES, micro_batches=64)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([LAPTOP], "this machine (2 CPUs, 0 GPUs)"),
        (
            [NodeResources(cpus=0, gpus=0, labels={}, host="head", address="10.0.0.1")],
            "node head (10.0.0.1) (0 CPUs, 0 GPUs)",
        ),
        ([GPU_NODE, CPU_NODE], "the cluster's 2 nodes (80 CPUs, 4 GPUs)"),
        ([], "the cluster's 0 nodes (0 CPUs, 0 GPUs)"),
    ],
)
def test_what_machines_have_is_said_of_those_that_have_it(nodes: list[NodeResources], words: str):
    assert inventory(nodes) == words


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    def too_slow(**_):
        raise Exception("The current node timed out during startup.\nThe GCS may be overloaded.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(ClusterError) as caught, job_session():
        raise AssertionError("Ray is said to have started")
    assert str(caught.value) == (
        "Ray doesn't start on this machine: The current node timed out during startup. The GCS may be overloaded."
    )


def test_what_ray_cannot_get_over_is_told_by_its_cause():
    with pytest.raises(ClusterError) as caught, ray_faults_reported():
        raise ray.exceptions.WorkerCrashedError
    assert str(caught.value) == (
        "Ray gave up: WorkerCrashedError: The worker died unexpectedly while executing this task; "
        "the same command continues"
    )


def test_a_disk_without_room_for_ray_is_a_fault_of_storage():
    with pytest.raises(StorageError, match="the disk of Ray's object store"), ray_faults_reported():
        raise ray.exceptions.OutOfDiskError("no")


def test_the_project_s_own_error_comes_out_of_a_task_as_it_was():
    own = ManifestError("no such manifest")
    with pytest.raises(ManifestError) as caught, ray_faults_reported():
        raise ray.exceptions.RayTaskError("f", "its traceback", own).as_instanceof_cause()
    assert caught.value is own


def test_a_defect_in_a_task_keeps_its_traceback():
    with pytest.raises(ray.exceptions.RayTaskError, match="its traceback"), ray_faults_reported():
        raise ray.exceptions.RayTaskError("f", "its traceback", ZeroDivisionError("x")).as_instanceof_cause()
