"""Each planted fault is named with its node and what to do, and nothing else is."""

from dataclasses import replace

import pytest

from morphmlp.models.cost import ActivationBytes
from morphmlp.preflight.checks import CHECKS, STOPPING, faults_of
from morphmlp.preflight.memory import TrainingMemory
from morphmlp.preflight.report import (
    RAY,
    ClusterReport,
    DecodeSample,
    Disk,
    Needs,
    NodeFacts,
    NodeReport,
    PairReport,
    StepsReport,
)
from morphmlp.preflight.words import tables, verdict

GIB = 2**30
VERSIONS = {
    "python": "3.11.7",
    "ray": "2.60.0",
    "morphmlp": "0.1.0",
    "code": "ab12",
    "torch": "2.14.1",
    "numpy": "2.4",
    "pyarrow": "22",
    "av": "18.1",
    "decord": "none",
    "driver": "580.1",
    "CUDA": "13.0",
}
MEMORY = TrainingMemory(
    device="cuda",
    activations=ActivationBytes(outside=60 * GIB, stages=()),
    in_16_bit=False,
    recomputed="off",
    averaged=False,
    micro_batch=GIB,
    decode_task=GIB,
    clips_ahead=GIB,
    decoder_limit=4 * GIB,
)
STEPS = StepsReport(steps=3, workers=2, start_s=5.0, step_s=0.3, wall_s=30.0)


def node(name, *, trains=True, gpus=1):
    return NodeReport(
        name=name,
        trains=trains,
        decodes=not trains,
        gpus=gpus,
        memory_bytes=64 * GIB,
        object_store_bytes=8 * GIB,
        workers=4 if trains else 0,
        decode_tasks=0 if trains else 16,
        facts=NodeFacts(
            versions=VERSIONS if gpus else VERSIONS | {"driver": "none"},
            gpus=("H200",) * gpus,
            disks={
                RAY: Disk(path="/a", total_bytes=100 * GIB, free_bytes=50 * GIB),
                **({"cluster.storage": Disk(path="/b", total_bytes=900 * GIB, free_bytes=80 * GIB)} if trains else {}),
            },
            shm=Disk(path="/dev/shm", total_bytes=16 * GIB, free_bytes=16 * GIB),
            open_files=65536,
            gpu_bytes=80 * GIB if gpus else 0,
        ),
        clock_ahead_s=0.001,
        clock_error_s=0.002,
        decoded=None if trains else DecodeSample(videos=16, clips_per_s=30.0, broken={}),
    )


def sound():
    """Three nodes that train, three that decode, and a head that does neither and has no GPU."""
    training = [node(f"train-{number}") for number in (1, 2, 3)]
    ingest = [node(f"ingest-{number}", trains=False, gpus=0) for number in (1, 2, 3)]
    head = replace(node("head", gpus=0), trains=False, workers=0, decoded=None)
    pairs = [("train-1", "train-2"), ("train-1", "train-3"), ("train-2", "train-3")]
    return ClusterReport(
        needs=Needs(device="cuda", free_bytes={"cluster.storage": 10 * GIB}, memory=MEMORY),
        here=VERSIONS | {"driver": "none"},
        nodes=(*training, *ingest, head),
        pairs=tuple(PairReport(nodes=pair, bytes_per_s=1e9) for pair in pairs),
        steps=STEPS,
    )


def with_node(name, **changes):
    """The sound cluster with one node's report changed; `facts__x` changes its facts."""
    report = sound()
    facts = {key.removeprefix("facts__"): changes.pop(key) for key in list(changes) if key.startswith("facts__")}

    def changed(each):
        if each.name != name:
            return each
        if facts:
            each = replace(each, facts=replace(each.facts, **facts))
        return replace(each, **changes)

    return replace(report, nodes=tuple(map(changed, report.nodes)))


def with_version(name, **versions):
    there = next(each for each in sound().nodes if each.name == name).facts.versions
    return with_node(name, facts__versions=there | versions)


def full_disk(field, *, total, free):
    disks = sound().nodes[0].facts.disks
    return with_node("train-1", facts__disks=disks | {field: Disk(path="/b", total_bytes=total, free_bytes=free)})


def with_pair(**changes):
    report = sound()
    pairs = (replace(report.pairs[0], **changes), *report.pairs[1:])
    return replace(report, pairs=pairs)


SEEN = "node train-2 doesn't see what the command has just written to /runs (No such file or directory)"
PLANTED = {
    "python": (
        with_version("train-2", python="3.12.1"),
        "versions: train-2: python 3.12.1, this machine 3.11.7; install",
    ),
    "ray on the head": (with_version("head", ray="2.59.0"), "versions: head: ray 2.59.0, this machine 2.60.0; install"),
    "torch": (with_version("train-3", torch="2.11.0"), "versions: train-3: torch 2.11.0, this machine 2.14.1; install"),
    "driver": (
        with_version("train-1", driver="550.2"),
        "versions: train-1: driver 550.2, most nodes 580.1; install the same NVIDIA",
    ),
    "CUDA": (
        with_version("train-1", CUDA="12.8"),
        "versions: train-1: CUDA 12.8, most nodes 13.0; install the same build",
    ),
    "decoder": (with_version("ingest-1", av="17.0"), "versions: ingest-1: av 17.0, this machine 18.1; install"),
    "no decoder": (with_version("ingest-1", av="none"), "versions: ingest-1: av none, this machine 18.1; install"),
    "old code": (
        with_version("train-2", code="cd34"),
        "versions: train-2: code cd34, this machine ab12; bring the same files",
    ),
    "too few workers": (
        replace(sound(), needs=replace(sound().needs, misfit="cluster.num_workers: 8 workers don't fit; lower it")),
        "gpus: cluster.num_workers: 8 workers don't fit; lower it",
    ),
    "a GPU gone": (
        with_node("train-2", facts__gpus=()),
        "gpus: train-2: Ray counts 1 GPUs, the driver shows 0; look at",
    ),
    "storage of its own": (
        replace(sound(), files=(f"cluster.storage: {SEEN}; name a folder that all have",)),
        f"files: cluster.storage: {SEEN}; name a folder that all have",
    ),
    "a video that doesn't decode": (
        with_node("ingest-2", decoded=DecodeSample(videos=16, clips_per_s=30.0, broken={"/v/a.mp4": "no such file"})),
        "decoding: ingest-2: 1 of 16 videos don't decode, as /v/a.mp4 (no such file); repair",
    ),
    "slow decoding": (
        with_node("ingest-2", decoded=DecodeSample(videos=16, clips_per_s=9.0, broken={})),
        "decoding: ingest-2: 9.0 clips/s a core, the median of the nodes is 30.0; look for",
    ),
    "full storage": (
        full_disk("cluster.storage", total=900 * GIB, free=3 * GIB),
        "disk: train-1: 3.0 GiB free of 900.0 GiB at /b, where cluster.storage lies; make room for 10.0 GiB",
    ),
    "Ray's disk full": (
        full_disk(RAY, total=100 * GIB, free=4 * GIB),
        "disk: train-1: 4.0 GiB free of 100.0 GiB at /b, where Ray's files lie; make room for 5.0 GiB",
    ),
    "small shm": (
        with_node("ingest-3", facts__shm=Disk(path="/dev/shm", total_bytes=GIB // 16, free_bytes=GIB // 16)),
        "shm: ingest-3: /dev/shm has 0.1 GiB, Ray's object store 8.0 GiB, which then lies on a disk; start the",
    ),
    "little memory": (
        with_node("train-3", memory_bytes=10 * GIB),
        "memory: train-3: 4 workers need 14.2 GiB (clips ahead 12.0 GiB + processes 2.2 GiB",
    ),
    "a small GPU": (
        with_node("train-3", facts__gpu_bytes=48 * GIB),
        "memory: train-3: a worker needs 60.0 GiB of its GPU (activations 60.0 GiB + weights, gradients and optimiser "
        "0.0 GiB), which has 48.0 GiB; use execution.activation_checkpointing: on, or a smaller train.micro_batch_size",
    ),
    "many decode tasks": (
        with_node("ingest-1", memory_bytes=30 * GIB),
        "decode memory: ingest-1: 32.0 GiB are needed (16 decode tasks 16.0 GiB + clips that wait 16.0 GiB), Ray "
        "counts 30.0 GiB there; lower ingest.cpus",
    ),
    "few open files": (
        with_node("train-1", facts__open_files=1024),
        "open files: train-1: a process may have 1024 files open; run `ulimit -n 65536`",
    ),
    "clock ahead": (
        with_node("train-2", clock_ahead_s=600.0),
        "clock: train-2: 600.0 s ahead of this machine's; let a",
    ),
    "clock behind": (with_node("head", clock_ahead_s=-30.0), "clock: head: 30.0 s behind this machine's; let a"),
    "MLflow": (
        replace(sound(), record="tracking store http://x: no answer (refused)"),
        "MLflow: this machine: tracking store http://x: no answer (refused); start the server",
    ),
    "wrong sums": (
        with_pair(fault="12 of 16777216 sums are wrong", bytes_per_s=None),
        "all-reduce: train-1 - train-2: 12 of 16777216 sums are wrong; open all ports",
    ),
    "slow link": (
        with_pair(bytes_per_s=1e8),
        "all-reduce: train-1 - train-2: 0.80 Gbit/s, the median of the pairs is 8.00; look at the link",
    ),
    "steps that fail": (
        replace(sound(), steps=replace(STEPS, fault="worker 1 failed: out of memory")),
        "steps: training: worker 1 failed: out of memory; a training would",
    ),
    "loss that isn't finite": (
        replace(sound(), steps=replace(STEPS, skipped=2)),
        "steps: training: 2 of 3 steps had a loss or gradient that isn't finite; lower optim.lr",
    ),
    "silent": (
        with_node("train-2", facts=None, silent="no answer within 120 s while it looked at its disks"),
        "answer: train-2: no answer within 120 s while it looked at its disks; a mounted disk",
    ),
    "lost": (
        with_node("train-2", facts=None, silent="left the cluster while it looked at its disks", lost=True),
        "lost: train-2: left the cluster while it looked at its disks; look at its machine",
    ),
}


@pytest.mark.parametrize(
    "report",
    [pytest.param(sound(), id="all of it"), pytest.param(replace(sound(), pairs=(), steps=None), id="the cheap part")],
)
def test_a_sound_cluster_is_green(report):
    assert faults_of(report) == []
    assert verdict(report, []).startswith("green: nothing wrong on 7 nodes")


@pytest.mark.parametrize(("report", "begins"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_named_with_its_place_and_what_to_do(report, begins):
    (fault,) = faults_of(report)
    assert str(fault).startswith(begins)
    table, _, nodes = tables(report, [fault]).partition("\n\n")
    rows = {line.split("  ")[0]: line for line in table.splitlines()[2:]}
    assert set(rows) == set(CHECKS)
    assert [check for check, row in rows.items() if "1 fault" in row] == [fault.check]
    assert len(nodes.splitlines()) == 2 + len(report.nodes)
    assert verdict(report, [fault]).startswith("1 fault on 7 nodes")


def test_every_fault_of_a_cluster_is_named_at_once():
    report = with_version("train-2", python="3.12.1", code="cd34")
    report = replace(report, record="no answer", pairs=(), steps=replace(STEPS, skipped=1))
    assert [fault.check for fault in faults_of(report)] == ["versions", "versions", "MLflow", "steps"]


def test_a_driver_or_torch_counts_only_where_it_works():
    assert faults_of(with_version("head", torch="none", av="none")) == []
    on_cpus = with_version("train-1", driver="550.2", CUDA="none")
    assert faults_of(replace(on_cpus, needs=replace(on_cpus.needs, device="cpu"))) == []


def test_a_torch_without_cuda_is_said_where_workers_need_gpus():
    report = with_version("train-1", CUDA="none")
    assert [fault.what for fault in faults_of(report, ["gpus"])] == ["torch 2.14.1 is built without CUDA"]


@pytest.mark.parametrize("ahead", [2.0, -2.0, 60.0])
def test_a_clock_isnt_blamed_for_the_time_that_the_question_took(ahead):
    assert faults_of(with_node("train-1", clock_ahead_s=ahead, clock_error_s=abs(ahead))) == []


def test_of_two_links_nobody_is_called_slow():
    report = with_pair(bytes_per_s=1e8)
    assert faults_of(replace(report, pairs=report.pairs[:2])) == []


def test_every_planted_fault_is_of_another_kind_and_every_check_has_one():
    assert {str(faults_of(report)[0]).split(":")[0] for report, _ in PLANTED.values()} == set(CHECKS)
    assert set(STOPPING) <= set(CHECKS)
