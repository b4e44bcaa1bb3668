"""Simulated losses of nodes against the closed form."""

from statistics import mean

import numpy as np
import pytest

from morphmlp.sizing.losses import Interruptions, expected_wall_s, simulate_run


@pytest.mark.parametrize("loss_every_s", [1_000, 5_000, 50_000])
@pytest.mark.parametrize(
    ("save_every_s", "restart_s", "stall_s"), [(600, 60, 0), (600, 300, 5), (100, 60, 2), (1800, 0, 0)]
)
def test_losses_cost_what_daly_says(loss_every_s, save_every_s, restart_s, stall_s):
    interruptions = Interruptions(
        loss_every_s=loss_every_s, save_every_s=save_every_s, restart_s=restart_s, stall_s=stall_s
    )
    rng, work_s = np.random.default_rng(11), 100_000
    found = [simulate_run(work_s, interruptions, rng) for _ in range(120)]
    assert mean(run.wall_s for run in found) == pytest.approx(expected_wall_s(work_s, interruptions), rel=0.03)
    saves = -(-work_s // save_every_s)
    for run in found:
        assert run.wall_s == pytest.approx(work_s + saves * stall_s + run.repeated_s + run.restart_s)
    assert mean(run.losses for run in found) == pytest.approx(mean(run.wall_s for run in found) / loss_every_s, rel=0.1)


def test_rare_losses_repeat_half_an_interval_each():
    interruptions = Interruptions(loss_every_s=40_000, save_every_s=600, restart_s=60)
    found = simulate_run(2e7, interruptions, np.random.default_rng(5))
    assert found.repeated_s / found.losses == pytest.approx(300, rel=0.08)


def test_without_losses_a_run_takes_its_work_and_its_checkpoints():
    interruptions = Interruptions(loss_every_s=float("inf"), save_every_s=600, restart_s=60, stall_s=3)
    found = simulate_run(1500, interruptions, np.random.default_rng(0))
    assert (found.wall_s, found.losses, found.repeated_s) == (1509, 0, 0)
    assert expected_wall_s(1500, interruptions) == 1509
