"""Simulated steps against closed forms: the bottleneck, the slowest of many, and no limit at all."""

from dataclasses import replace

import numpy as np
import pytest

from morphmlp.sizing.contention import COMPUTING
from morphmlp.sizing.steps import Setting, scattered, simulate_steps

PLAIN = Setting(
    workers=4,
    micro_batches=8,
    micro_batch=4,
    micro_s=0.1,
    exchange_s=0.03,
    decode_s=0.01,
    cores=1,
    task_videos=16,
)


@pytest.mark.parametrize(
    ("changes", "bottleneck"),
    [
        ({}, "step"),  # 0.23 s of step, 0.08 s of decoding
        ({"decode_s": 0.05}, "decode"),
        ({"decode_s": 0.05, "cores": 2}, "step"),
        ({"decode_s": 0.1, "cores": 2}, "decode"),
        ({"decode_s": 0.2, "cores": 3, "task_videos": 4}, "decode"),
        ({"link_s": 0.02, "workers_per_node": 2}, "link"),  # 16 videos for the two of a node
        ({"link_s": 0.02, "workers_per_node": 1}, "step"),
        ({"workers": 8, "micro_batch": 1, "decode_s": 0.2, "cores": 1}, "decode"),
        ({"workers": 8, "exchange_s": 0.5}, "step"),
        ({"workers": 1, "decode_s": 0.002}, "step"),
        ({"micro_batches": 9, "workers": 4}, "step"),  # one of the workers has three
        ({"micro_batches": 6, "workers": 4, "decode_s": 0.15}, "decode"),
    ],
)
def test_constant_times_give_the_bottleneck_exactly(changes, bottleneck):
    setting = replace(PLAIN, **changes)
    most = -(-setting.micro_batches // setting.workers)
    videos = most * setting.micro_batch
    limits = {
        "step": most * setting.micro_s + setting.exchange_s,
        "decode": videos * setting.decode_s / setting.cores,
        "link": videos * setting.link_s * setting.workers_per_node,
    }
    assert max(limits, key=limits.get) == bottleneck
    # Whole cycles of tasks, so that the rhythm of tasks doesn't show in the mean.
    found = simulate_steps(setting, warm_up=480, steps=480)
    assert found.step_s == pytest.approx(limits[bottleneck], rel=1e-6 if bottleneck == "step" else 0.01)
    shares = found.compute_share + found.data_wait_share + found.slower_wait_share + found.exchange_share
    assert shares == pytest.approx(1)
    if bottleneck == "step":
        assert found.data_wait_share == pytest.approx(0, abs=1e-9)
        assert found.compute_share == pytest.approx(
            setting.micro_batches * setting.micro_s / setting.workers / limits["step"]
        )


@pytest.mark.parametrize(
    ("workers", "micro_batches", "cores", "video_s", "step_s"),
    [
        (1, 2, 2, 0.005, 0.2),  # the other core decodes
        (2, 2, 2, 0.005, 0.12),  # (0.2 + 0.04) / 2: all that there is to do over all cores
        (4, 4, 2, 0.005, 0.24),
        (4, 8, 3, 0.005, 0.32),
        (2, 2, 4, 0.005, 0.1),  # a core for everyone
        (3, 4, 2, 1e-9, 0.25),  # one has two: three on two cores, then the second alone
    ],
)
def test_shared_cores_do_all_the_work_there_is(workers, micro_batches, cores, video_s, step_s):
    setting = replace(
        PLAIN,
        workers=workers,
        micro_batches=micro_batches,
        exchange_s=0.0,
        decode_s=0.6 * video_s,
        hand_over_s=0.4 * video_s,
        task_videos=4,
        workers_per_node=workers,
        shared_cores=cores,
    )
    found = simulate_steps(setting, warm_up=100, steps=400)
    assert found.step_s == pytest.approx(step_s, rel=0.02)


@pytest.mark.parametrize(("workers", "cores", "longer_s"), [(1, 2, 0.03), (2, 2, 0.03), (4, 2, 0.06), (4, 4, 0.03)])
def test_exchanging_gradients_is_work_of_every_worker_where_cores_are_shared(workers, cores, longer_s):
    setting = replace(PLAIN, workers=workers, micro_batches=workers, workers_per_node=workers, shared_cores=cores)
    without, found = (
        simulate_steps(replace(setting, decode_s=1e-9, exchange_s=seconds), warm_up=10, steps=50)
        for seconds in (0.0, 0.03)
    )
    assert found.step_s - without.step_s == pytest.approx(longer_s)
    assert found.exchange_share == pytest.approx(longer_s / found.step_s)


@pytest.mark.parametrize(
    ("workers", "cores", "step_s"),
    [
        (1, 2, 0.1),  # alone
        (2, 2, 0.11),  # 1.1 times
        (4, 4, 0.13),
        (4, 2, 0.13 * 2),
    ],
)
def test_work_on_shared_cores_takes_longer_the_more_there_is(workers, cores, step_s):
    setting = replace(
        PLAIN, workers=workers, micro_batches=workers, workers_per_node=workers, shared_cores=cores, exchange_s=0.0,
        decode_s=1e-9, growth=lambda kind, jobs: 1 + 0.1 * (jobs[COMPUTING] - 1) if kind == COMPUTING else 1.0,
    )  # fmt: skip
    found = simulate_steps(setting, warm_up=10, steps=50)
    assert found.step_s == pytest.approx(step_s, rel=1e-5)
    assert found.grown[COMPUTING] == pytest.approx(1 + 0.1 * (workers - 1), rel=1e-5)
    assert simulate_steps(replace(setting, growth=None), warm_up=10, steps=50).step_s == pytest.approx(
        0.1 * max(1, workers / cores), rel=1e-5
    )


@pytest.mark.parametrize(("workers", "step_s"), [(1, 0.42), (2, 0.22), (4, 0.12), (3, 0.22)])
def test_every_worker_takes_the_optimisers_step(workers, step_s):
    setting = replace(PLAIN, workers=workers, micro_batches=4, exchange_s=0.0, decode_s=1e-9, optimiser_s=0.02)
    assert simulate_steps(setting, warm_up=10, steps=50).step_s == pytest.approx(step_s)


@pytest.mark.parametrize("exchange_s", [0.01, 0.04, 0.2])
@pytest.mark.parametrize("buckets", [1, 4])
def test_buckets_of_gradients_hide_behind_the_backward_pass(exchange_s, buckets):
    # A naive clock of one step: 0.2 s of computing, of which the last 2/3 x 0.1 s are the last backward pass.
    done, backward_s = 0.0, 0.1 * 2 / 3
    for number in range(buckets):
        there = 0.2 - backward_s + backward_s * (number + 1) / buckets
        done = max(done, there) + exchange_s / buckets
    found = simulate_steps(replace(PLAIN, exchange_s=exchange_s, buckets=buckets), warm_up=10, steps=50)
    assert found.step_s == pytest.approx(done)
    assert found.exchange_share == pytest.approx((done - 0.2) / done)


def test_each_epoch_waits_for_its_first_clips():
    setting = replace(PLAIN, epoch_steps=10, epoch_start_s=0.5)
    found = simulate_steps(setting, warm_up=10, steps=30)
    # 0.5 s until the first task starts, and 16 videos x 0.01 s; three epochs of ten steps.
    assert found.step_s == pytest.approx(0.23 + (0.5 + 0.16) / 10)
    assert found.data_wait_share == pytest.approx(0.066 / found.step_s)


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_exponential_times_wait_for_the_slowest_as_harmonic_numbers_say(workers):
    rng = np.random.default_rng(3)
    setting = replace(PLAIN, workers=workers, micro_batches=workers, exchange_s=0.0, decode_s=0.0001)
    found = simulate_steps(setting, warm_up=10, steps=2000, compute=lambda mean_s: float(rng.exponential(mean_s)))
    harmonic = sum(1 / number for number in range(1, workers + 1))
    assert found.step_s == pytest.approx(0.1 * harmonic, rel=0.04)
    assert found.slower_wait_share == pytest.approx(1 - 1 / harmonic, abs=0.02)


@pytest.mark.parametrize("variation", [0.0, 0.1, 0.5])
def test_scattered_times_have_the_mean_and_the_variation_that_were_named(variation):
    draw = scattered(np.random.default_rng(0), variation)
    times = np.array([draw(2.0) for _ in range(40_000)])
    assert times.mean() == pytest.approx(2.0, rel=0.01)
    assert times.std() / times.mean() == pytest.approx(variation, abs=0.01)


@pytest.mark.parametrize("late", [0, 3])
def test_a_late_task_holds_up_those_behind_it(late):
    # One task is one step's micro-batch; three cores have the others long before.
    setting = replace(PLAIN, workers=1, micro_batches=1, task_videos=4, exchange_s=0.0, cores=3)
    numbers = iter(range(10**9))
    found = simulate_steps(setting, warm_up=0, steps=5, decode=lambda _: 50.0 if next(numbers) == late else 0.0)
    assert found.step_s * 5 == pytest.approx(50 + (5 - late) * 0.1)
