"""Runs against the simulation: what was worked out by hand from a run's CPU seconds comes out."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_mapping
from morphmlp.errors import ConfigError
from morphmlp.sizing.check import Machine, Run, SharedCosts, check_run, check_table, costs_by, simulate
from morphmlp.sizing.contention import COMPUTING, DECODING, Contention, Crowd
from morphmlp.sizing.inputs import work_of
from morphmlp.training.record.accounting import TimeWindow

DEMO = Path(__file__).parents[3] / "experiments" / "demo" / "morphmlp_demo.yaml"
TWO_CORES = Machine(processes=2, exchange_cpu_s=0.0)
DECODE_S, BESIDES_S, START_S = 0.003, 0.002, 0.5  # of a video, and of an epoch


@cache
def work(micro_batch):
    config = load_config(DEMO, {"train.micro_batch_size": micro_batch, "train.epochs": 2})
    return work_of(config, videos=640, val_videos=0)


def run_of(*, workers, step_s, worker_s=0.2, micro_batch=8):
    """Two epochs of 40 steps of 16 videos, reported every 20 steps, without the start's first 20."""
    changes = {"ingest.cpus": workers, "cluster.num_workers": workers, "train.micro_batch_size": micro_batch}
    first_s = START_S + 16 * (DECODE_S + BESIDES_S)
    windows = [
        TimeWindow(
            epoch=1 + step // 41, step=step, steps=20, workers=workers, clips=320, start_s=0,
            wall_s=20 * step_s + first_s * (step == 60), wait_s=first_s * (step == 60),
            compute_s=20 * (step_s - 0.01), all_reduce_s=0.2,
            decode_cpu_s=320 * DECODE_S, worker_cpu_s=20 * worker_s,
            node_cpu_s=20 * worker_s + 320 * (DECODE_S + BESIDES_S),
        )
        for step in (40, 60, 80)
    ]  # fmt: skip
    return Run(name="a run", config=load_config(DEMO, changes), work=work(micro_batch), windows=windows)


ONE = run_of(workers=1, step_s=0.2)
AHEAD_S = 64 * (DECODE_S + BESIDES_S)
"""Of clips that wait already after 20 steps, for each worker: four tasks of 16 videos."""


def test_costs_are_those_of_the_windows():
    costs = SharedCosts.of(ONE, TWO_CORES)
    assert (costs.workers, costs.micro_batch, costs.micro_s) == (1, 8, pytest.approx(0.1))
    assert (costs.decode_s, costs.besides_s) == (pytest.approx(DECODE_S), pytest.approx(BESIDES_S))
    assert costs.epoch_start_s == pytest.approx(START_S)


@pytest.mark.parametrize(
    ("workers", "micro_batch", "step_s"),
    [
        (1, 8, 0.2),  # the second core decodes
        # All the work over two cores, 60 x (0.2 + 16 x 0.005), without what had been done before.
        (2, 8, (60 * 0.28 - 2 * AHEAD_S) / 2 / 60),
        (2, 4, (60 * 0.28 - 2 * AHEAD_S) / 2 / 60),
        (4, 4, (60 * 0.28 - 4 * AHEAD_S) / 2 / 60),
    ],
)
def test_steps_that_were_worked_out_by_hand_are_met(workers, micro_batch, step_s):
    run = run_of(workers=workers, step_s=step_s, micro_batch=micro_batch)
    found = check_run(run, costs_by(None, run, TWO_CORES), TWO_CORES)
    assert found.measured_step_s == pytest.approx(step_s + 0.58 / 60)
    assert found.error == pytest.approx(0, abs=0.03)
    assert found.simulated_wait_share == pytest.approx(found.measured_wait_share, abs=0.02)
    assert (found.workers, found.steps) == (workers, 60)


def test_a_run_that_was_slower_shows_as_an_error():
    found = check_run(run_of(workers=2, step_s=0.2), costs_by(ONE, run_of(workers=2, step_s=0.2), TWO_CORES), TWO_CORES)
    assert found.error == pytest.approx(0.143 / 0.21 - 1, abs=0.02)
    assert f"{found.error:+.1%}" in check_table([found])


def test_exchanging_gradients_is_taken_out_of_a_runs_costs_and_put_into_the_steps_of_another():
    machine = Machine(processes=2, exchange_cpu_s=0.02)
    two = run_of(workers=2, step_s=0.2, worker_s=0.2 + 2 * 0.02)
    assert SharedCosts.of(two, machine).micro_s == pytest.approx(SharedCosts.of(ONE, machine).micro_s)
    own, by_one = (check_run(two, costs_by(known, two, machine), machine) for known in (None, ONE))
    assert by_one.simulated_step_s == pytest.approx(own.simulated_step_s)
    assert own.simulated_step_s == pytest.approx((60 * 0.32 - 2 * AHEAD_S) / 2 / 60 + 0.58 / 60, rel=0.03)


def crowded(ratio, *, optimiser_s=0.0):
    """Two cores on which all work takes `ratio` times the CPU time where both are busy."""
    kinds = (COMPUTING, DECODING)
    crowds = [Crowd(work=one, beside=other, processes=2, cpu_ratio=ratio) for one in kinds for other in kinds]
    contention = Contention(
        cores=2, alone_s=dict.fromkeys(kinds, 0.1), optimiser_s=optimiser_s, crowds=crowds, clip_fields={}
    )
    return replace(TWO_CORES, contention=contention)


def test_costs_alone_are_those_of_a_run_over_what_they_grow_by_there():
    # Of the two workers' micro-batches each has the other beside it, nearly always, and so has all else.
    costs = SharedCosts.of(run_of(workers=2, step_s=0.14), crowded(1.25))
    assert costs.micro_s == pytest.approx(0.1 / 1.25, rel=0.02)
    assert costs.decode_s == pytest.approx(DECODE_S / 1.25, rel=0.02)
    # One worker computes all the time; decoding, 0.08 s of 0.2, is always beside it.
    costs = SharedCosts.of(ONE, crowded(1.25))
    assert costs.decode_s == pytest.approx(DECODE_S / 1.25, rel=0.01)
    assert costs.micro_s == pytest.approx((0.2 - 0.08 + 0.08 / 1.25) / 2, rel=0.03)


@pytest.mark.parametrize("optimiser_s", [0.0, 0.02])
@pytest.mark.parametrize(("known", "forecast"), [(1, 2), (1, 4), (2, 1)])
def test_a_forecast_on_fuller_cores_comes_from_costs_alone(known, forecast, optimiser_s):
    machine = crowded(1.25, optimiser_s=optimiser_s)
    # What a machine of that kind would have reported: its CPU seconds are those that the simulation spends.
    truth = SharedCosts(
        workers=1, micro_batch=4, micro_s=0.05, optimiser_s=optimiser_s, decode_s=0.003, besides_s=0.002,
        epoch_start_s=START_S,
    )  # fmt: skip
    runs = {}
    for workers in (known, forecast):
        shape = run_of(workers=workers, step_s=0.2, micro_batch=4)
        found = simulate(shape, truth, machine)
        grown = found.grown
        windows = [
            replace(
                window,
                wall_s=20 * found.step_s,
                compute_s=20 * found.step_s - window.wait_s - window.all_reduce_s,
                worker_cpu_s=(worker_s := 20 * (4 * 0.05 + workers * optimiser_s) * grown[COMPUTING]),
                decode_cpu_s=(decode_s := 320 * 0.003 * grown[DECODING]),
                node_cpu_s=worker_s + decode_s + 320 * 0.002 * grown[DECODING],
            )
            for window in shape.windows
        ]
        runs[workers] = replace(shape, windows=windows)
    found = check_run(runs[forecast], costs_by(runs[known], runs[forecast], machine), machine)
    assert found.costs.micro_s == pytest.approx(0.05, rel=0.01)
    assert found.error == pytest.approx(0, abs=0.01)
    assert f"50 x {found.grown[COMPUTING]:.2f}" in check_table([found])
    ignorant = check_run(runs[forecast], costs_by(runs[known], runs[forecast], TWO_CORES), TWO_CORES)
    assert abs(ignorant.error) > 0.05


@pytest.mark.parametrize(("workers", "exchange_s"), [(1, 0.0), (2, 0.02), (3, 0.08 / 3), (4, 0.03)])
def test_gradients_go_round_in_a_ring(workers, exchange_s):
    assert replace(TWO_CORES, exchange_cpu_s=0.02).exchange_of(workers) == pytest.approx(exchange_s)


@pytest.mark.parametrize(
    ("changes", "windows", "fault"),
    [
        ({}, [], "needs two reports or more"),
        ({}, [replace(ONE.windows[0], start_s=3.0), ONE.windows[1]], "needs two reports or more"),
        ({}, [ONE.windows[0], replace(ONE.windows[1], wall_s=9.0)], "needs two reports or more of steps alone"),
        ({}, [ONE.windows[0], replace(ONE.windows[1], workers=2)], "needs two reports or more"),
        ({"ingest.cpus": None}, ONE.windows, "left its decode cores open"),
        ({"cluster.cpus_per_worker": 2}, ONE.windows, "for workers that compute on one CPU each"),
        ({"data.train": "nowhere.parquet"}, ONE.windows, "no such manifest: nowhere.parquet"),  # all else is well
    ],
)
def test_a_run_that_does_not_say_enough_is_refused(tmp_path, changes, windows, fault):
    config = load_config(DEMO, {"ingest.cpus": 1, **changes})
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(config_to_mapping(config)))
    lines = [json.dumps({"window": window.to_plain()}) + "\n" for window in windows]
    (tmp_path / "progress.jsonl").write_text("".join(lines))
    with pytest.raises(ConfigError, match=fault):
        Run.read(tmp_path)


def test_what_is_no_run_or_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no run's folder"):
        Run.read(tmp_path)
    (tmp_path / "other.json").write_text('{"contention": 1.1}')
    with pytest.raises(ConfigError, match=r"other\.json: isn't a result of `benchmark\.py shared-cores"):
        Machine.read(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="recorded no CPU times"):
        SharedCosts.of(replace(ONE, windows=[replace(window, node_cpu_s=0.0) for window in ONE.windows]), TWO_CORES)
    with pytest.raises(ConfigError, match="micro-batches of 4 videos, --by of 8"):
        costs_by(ONE, run_of(workers=2, step_s=0.14, micro_batch=4), TWO_CORES)
