"""Where a step's time goes, and that watching changes no gradient."""

import subprocess
import sys
from types import SimpleNamespace

import gloo_gradients
import pytest
import torch
import torch.distributed as dist

from morphmlp.training.loop import step_clock
from morphmlp.training.loop.step_clock import StepClock

CPU = torch.device("cpu")


@pytest.fixture
def now(monkeypatch):
    """The clock of the host; it advances only when a test says so."""
    moment = SimpleNamespace(s=100.0)
    monkeypatch.setattr(step_clock, "time", SimpleNamespace(perf_counter=lambda: moment.s))
    return moment


def one_step(clock, now, *, wait_s, forward_s, all_reduce_s=None, update_s=0.0, between_s=0.0):
    now.s += between_s + wait_s
    clock.begin(wait_s)
    now.s += forward_s
    if all_reduce_s is not None:
        clock.handed_over()
        now.s += all_reduce_s
    clock.reduced()
    now.s += update_s
    return clock.end()


def parts(times):
    return (times.wait_s, times.compute_s, times.all_reduce_s)


def test_a_step_is_waiting_computing_and_all_reduce(now):
    times = one_step(StepClock(CPU), now, wait_s=1.0, forward_s=4.0, all_reduce_s=2.0, update_s=0.5)
    assert parts(times) == (1.0, 4.5, 2.0)
    assert times.step_s == 7.5


def test_one_worker_alone_spends_nothing_on_all_reduce(now):
    times = one_step(StepClock(CPU), now, wait_s=1.0, forward_s=4.0, update_s=0.5)
    assert parts(times) == (1.0, 4.5, 0.0)


def test_a_step_knows_nothing_of_the_marks_of_the_one_before(now):
    clock = StepClock(CPU)
    one_step(clock, now, wait_s=1.0, forward_s=4.0, all_reduce_s=2.0)
    assert parts(one_step(clock, now, wait_s=0.25, forward_s=1.0)) == (0.25, 1.0, 0.0)


def test_what_lies_between_two_steps_belongs_to_neither(now):
    clock = StepClock(CPU)
    one_step(clock, now, wait_s=1.0, forward_s=4.0)
    times = one_step(clock, now, wait_s=0.5, forward_s=1.0, between_s=30.0)
    assert (times.wait_s, times.compute_s, times.step_s) == (0.5, 1.0, 1.5)


def test_waiting_that_a_busy_device_does_not_notice_is_not_counted(now):
    """The host has waited 3 s for a batch, but the device came to the end of its step only 1 s before it arrived."""
    clock = StepClock(CPU)
    one_step(clock, now, wait_s=0.0, forward_s=5.0)
    now.s += 1.0
    clock.begin(3.0)
    now.s += 2.0
    assert clock.end().wait_s == 1.0


def test_gradients_that_are_kept_back_are_not_handed_over(tmp_path, now):
    """With gradient accumulation only the last micro-batch is gathered."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        clock, network = StepClock(CPU), gloo_gradients.parallel_network()
        clock.watch(network)
        clock.begin(0.0)
        with network.no_sync():
            network(torch.ones(2, 8)).sum().backward()
        now.s += 3.0
        clock.reduced()
        assert clock.end().all_reduce_s == 0.0
        clock.begin(0.0)
        network(torch.ones(2, 8)).sum().backward()
        now.s += 3.0
        clock.reduced()
        assert clock.end().all_reduce_s == 3.0
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def three_workers(tmp_path_factory):
    """What each of three gloo processes saw."""
    folder = tmp_path_factory.mktemp("gradients")
    subprocess.run([sys.executable, gloo_gradients.__file__, str(folder)], check=True)
    return [torch.load(folder / f"worker{rank}.pt") for rank in range(gloo_gradients.WORKERS)]


def test_a_watched_network_has_the_same_gradients_bit_for_bit(three_workers):
    for worker in three_workers:
        assert len(worker["plain"]) == 4
        for plain, watched in zip(worker["plain"], worker["watched"], strict=True):
            assert torch.equal(plain, watched)


def test_several_workers_spend_time_on_all_reduce_and_the_parts_make_up_the_step(three_workers):
    for worker in three_workers:
        assert all(seconds > 0 for seconds in worker["all_reduce_s"])
        for parts_s, step_s in worker["parts"]:
            assert 0 < parts_s <= step_s
