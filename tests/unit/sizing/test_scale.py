"""The table over numbers of GPUs: with constant times it is the plain arithmetic; with others each effect shows."""

from dataclasses import replace
from pathlib import Path

import pytest

from morphmlp.sizing.arithmetic import size_cluster
from morphmlp.sizing.inputs import Costs, StepCost, Work
from morphmlp.sizing.nodes import Nodes, NodeType
from morphmlp.sizing.scale import Assumed, scale_figure, scale_table, simulate, simulate_all, ways

WORK = Work(
    videos=6_400,
    val_videos=640,
    videos_per_step=16,
    micro_batch=4,
    clips_per_video=1,
    steps=4_000,
    steps_per_epoch=400,
    video_bytes=2_000_000,
    task_videos=16,
    file_bytes=None,
    params=1_000_000,
    validations=10,
    store_bytes=None,
    save_every_s=60,
)
COSTS = Costs(step=StepCost(points=[(4, 0.1), (8, 0.16)], measured_by="a test"), decode_s=0.01, decoded_by="a test")
NODES = Nodes(
    currency="EUR",
    train=NodeType(cpus=16, gpus=2, memory_gib=64, network_gbit=100, hour_price=3),
    ingest=NodeType(cpus=16, memory_gib=128, network_gbit=100, hour_price=1),
)
CALM = Assumed(step_variation=0, decode_variation=0, restart_s=0, stall_s=0)


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("way", list(ways(WORK)))
def test_constant_times_give_the_arithmetic(gpus, way):
    work = ways(WORK)[way](gpus)
    found = simulate(work, COSTS, gpus=gpus, nodes=NODES, assumed=CALM, way=way, single=40)
    size = size_cluster(work, COSTS, gpus=gpus, nodes=NODES)
    assert found.steps.step_s == pytest.approx(size.times.step_s)
    assert found.steps.data_wait_share == pytest.approx(0, abs=1e-9)
    assert found.hours == pytest.approx(size.hours)
    assert found.efficiency == pytest.approx(size.clips_per_s / gpus / 40)


def test_every_epoch_has_its_videos_whatever_the_batch():
    for changed in ways(WORK).values():
        for gpus in (1, 4, 16, 64):
            work = changed(gpus)
            assert work.steps == 10 * (work.videos // work.videos_per_step)
            assert work.micro_batches == -(-work.videos_per_step // work.micro_batch)


@pytest.mark.parametrize(
    ("assumed", "nodes", "effect"),
    [
        (replace(CALM, step_variation=0.2), NODES, lambda one: one.steps.slower_wait_share > 0.05),
        (CALM, replace(NODES, train=replace(NODES.train, losses_per_1000_h=2000)), lambda one: one.overhead > 0.01),
        (replace(CALM, stall_s=6), NODES, lambda one: one.overhead == pytest.approx(0.1, rel=0.1)),
        (
            CALM,
            replace(NODES, train=replace(NODES.train, network_gbit=0.2)),
            lambda one: one.steps.data_wait_share > 0.2,
        ),
    ],
)
def test_each_effect_shows(assumed, nodes, effect):
    calm = simulate(WORK, COSTS, gpus=4, nodes=NODES, assumed=CALM, way="", single=40)
    found = simulate(WORK, COSTS, gpus=4, nodes=nodes, assumed=assumed, way="", single=40)
    assert not effect(calm)
    assert effect(found)
    assert found.hours > calm.hours


def test_ways_without_a_measured_step_are_left_out_and_named(tmp_path: Path):
    lines: list[str] = []
    costs = replace(COSTS, step=StepCost(points=[(4, 0.1)], measured_by="a test"))
    found = simulate_all(WORK, costs, nodes=NODES, assumed=CALM, gpus=(4, 8), log=lines.append)
    assert [one.gpus for one in found] == [4, 8, 4, 4, 8]
    assert len(lines) == 1
    assert "needed for 2" in lines[0]
    assert len(scale_table(found, currency="EUR").splitlines()) == 7
    scale_figure(found).savefig(tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 5_000
