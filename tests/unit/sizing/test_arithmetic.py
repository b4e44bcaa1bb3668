"""The plain calculation against numbers worked out by hand, and what it refuses."""

import re
from dataclasses import replace

import pytest

from morphmlp.errors import ConfigError
from morphmlp.sizing.arithmetic import remarks, size_cluster, usable_cores
from morphmlp.sizing.inputs import Costs, StepCost, Work
from morphmlp.sizing.nodes import Nodes, NodeType
from morphmlp.sizing.table import size_table

WORK = Work(
    videos=64_000,
    val_videos=3_200,
    videos_per_step=64,
    micro_batch=8,
    clips_per_video=2,
    steps=10_000,
    steps_per_epoch=1_000,
    video_bytes=5_000_000,
    task_videos=16,
    file_bytes=1_000_000,
    params=25_000_000,
    validations=10,
    store_bytes=None,
    save_every_s=600,
)
COSTS = Costs(step=StepCost(points=[(16, 0.12), (8, 0.08)], measured_by="a test"), decode_s=0.02, decoded_by="a test")
NODES = Nodes(
    currency="EUR",
    train=NodeType(cpus=16, gpus=4, memory_gib=64, network_gbit=16, hour_price=3),
    ingest=NodeType(cpus=16, memory_gib=128, network_gbit=80, hour_price=1),
    head_hour_price=0.5,
)


@pytest.mark.parametrize(
    ("gpus", "workers", "compute_s", "exchange_s"),
    [
        (1, 1, 0.96, 0.0),
        (4, 4, 0.24, 0.0),  # one node: no network between GPUs
        # Two still have two micro-batches. 100 MB x 1.6 / 2 GB/s = 80 ms in 4 buckets, beside 80 ms of backward.
        (5, 5, 0.24, 0.02),
        # 100 MB x 1.75 / 2 GB/s = 87.5 ms, of which three quarters of the backward pass, 60 ms, hide some.
        (8, 8, 0.12, 0.0275),
        (64, 8, 0.12, 0.0275),
    ],
)
def test_a_step_is_computing_and_what_the_backward_pass_does_not_hide(gpus, workers, compute_s, exchange_s):
    times = size_cluster(WORK, COSTS, gpus=gpus, nodes=NODES).times
    assert (times.workers, times.compute_s) == (workers, pytest.approx(compute_s))
    assert times.exchange_s == pytest.approx(exchange_s)


def test_without_any_limit_of_ingest_the_run_takes_its_steps():
    size = size_cluster(replace(WORK, val_videos=0), replace(COSTS, decode_s=1e-9), gpus=4, nodes=None)
    assert size.hours * 3600 == pytest.approx(10_000 * 0.24)
    assert (size.cores, size.busy, size.cost) == (4, 1.0, None)


def test_a_whole_cluster_by_hand():
    size = size_cluster(WORK, COSTS, gpus=4, nodes=NODES)
    # 128 clips in 0.24 s; each worker's 133.3 clips/s x 0.02 s = 2.67 cores, / 0.95 = 2.8.
    assert size.clips_per_s == pytest.approx(533.333, rel=1e-5)
    assert (size.cores_per_worker, size.cores) == (3, 12)
    assert size.decode_busy == pytest.approx(533.333 * 0.02 / 12, rel=1e-5)
    assert size.object_store_bytes == 4 * 12 * 16 * 5_000_000
    assert size.clip_bytes_per_s == pytest.approx(266.667 * 5e6, rel=1e-5)
    assert size.file_bytes_per_s == pytest.approx(266.667e6, rel=1e-5)
    assert size.gradient_bytes_per_s == pytest.approx(100e6 * 1.5 / 0.24)
    # Validation: 3,200 videos in micro-batches of 8 over 4 workers, 40 ms each; decoding 3,200 x 0.04 s over 12 cores.
    assert size.epoch_s == pytest.approx(1_000 * 0.24 + max(100 * 0.04, 3_200 * 0.04 / 12))
    assert (size.train_nodes, size.ingest_nodes) == (1, 1)
    assert size.cost == pytest.approx(size.hours * (3 + 1 + 0.5))
    assert "EUR" in size_table(size, WORK, COSTS, NODES)


@pytest.mark.parametrize(
    ("growth", "cores", "per_worker", "words"),
    [
        (1.0, None, 3, "x 20 core-ms / 95%"),
        (1.25, 16, 4, "x 25 core-ms (20 alone x 1.250 with all 16 cores busy) / 95%"),  # 133.3 x 0.025 / 0.95 = 3.5
    ],
)
def test_decode_cores_are_counted_for_a_full_node_where_that_was_measured(growth, cores, per_worker, words):
    costs = replace(COSTS, decode_s=0.02 * growth, decode_growth=growth, full_cores=cores)
    size = size_cluster(WORK, costs, gpus=4, nodes=NODES)
    assert size.cores_per_worker == per_worker
    assert words in size_table(size, WORK, costs, NODES)


@pytest.mark.parametrize(("cores", "number"), [(None, 0), (16, 0), (2, 1)])
def test_a_full_node_of_another_size_is_remarked_on(cores, number):
    costs = replace(COSTS, decode_growth=1.25, full_cores=cores)
    found = remarks(size_cluster(WORK, costs, gpus=8, nodes=NODES), WORK, costs, NODES)
    assert sum("with 2 cores, ingest nodes have 16" in line for line in found) == number


@pytest.mark.parametrize(
    ("changes", "cores", "limit"),
    [
        ({}, 16, "CPUs"),
        ({"network_gbit": 10.0}, 10, "network"),  # a core sends 5 MB in 0.04 s = 125 MB/s, the node 1,250
        ({"memory_gib": 8.0}, 8, "memory"),  # 30 % of it for 4 tasks of 16 videos a core
    ],
)
def test_an_ingest_node_feeds_as_many_cores_as_its_first_limit(changes, cores, limit):
    assert usable_cores(WORK, COSTS, replace(NODES.ingest, **changes)) == (cores, limit)


def test_a_node_that_cannot_feed_one_core_is_refused():
    with pytest.raises(ConfigError, match="ingest: the memory of such a node"):
        usable_cores(WORK, COSTS, replace(NODES.ingest, memory_gib=0.5))


@pytest.mark.parametrize(("clips", "seconds"), [(16, 0.12), (8, 0.08), (12, 0.1), (2, 0.05), (32, 0.2)])
def test_two_measurements_make_a_line(clips, seconds):
    assert COSTS.step.seconds(clips) == pytest.approx(seconds)
    assert COSTS.step.is_extrapolated(clips) == (clips in (2, 32))


@pytest.mark.parametrize(
    ("points", "fault"),
    [([(16, 0.12)], "known for micro-batches of 16 clips, needed for 2"), ([(16, 0.1), (8, 0.2)], "no line")],
)
def test_a_size_that_nobody_measured_is_refused(points, fault):
    with pytest.raises(ConfigError, match=fault):
        StepCost(points=points, measured_by="a test").seconds(2)


@pytest.mark.parametrize(
    ("gpus", "micro_batch", "words"),
    [
        (8, 8, []),
        (64, 8, ["56 GPUs would have nothing to do: train.micro_batch_size 1 .* train.global_batch_size 512"]),
        (64, 1, ["a micro-batch of 2 clips lies outside"]),
        (128, 1, ["64 GPUs would have nothing to do", "lies outside"]),
    ],
)
def test_remarks_say_what_the_table_does_not(gpus, micro_batch, words):
    work = replace(WORK, micro_batch=micro_batch)
    found = remarks(size_cluster(work, COSTS, gpus=gpus, nodes=None), work, COSTS)
    assert len(found) == len(words)
    for line, word in zip(found, words, strict=True):
        assert re.search(word, line)
