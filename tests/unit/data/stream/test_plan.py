"""The plan: a pure function of (seed, epoch), whoever reads it and from wherever."""

import hashlib
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data.stream.plan import Cursor, TrainPlan, epoch_order, random_generator, random_seed, worker_share

plans = st.builds(
    TrainPlan,
    num_videos=st.integers(1, 60),
    global_batch_size=st.integers(1, 20),
    micro_batch_size=st.integers(1, 7),
    seed=st.integers(0, 3),
)


def micro_batches_of(plan, cursor=Cursor(), num_workers=1):  # noqa: B008 (frozen)
    """What all workers read, as a list a worker."""
    return [list(plan.micro_batches(cursor, worker=worker, num_workers=num_workers)) for worker in range(num_workers)]


def as_tuples(micro_batches):
    return [(m.epoch, m.step, m.index, tuple(m.rows.tolist())) for m in micro_batches]


@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_is_a_permutation_of_the_manifest(num_videos, seed, epoch):
    assert sorted(epoch_order(num_videos, seed=seed, epoch=epoch)) == list(range(num_videos))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_order(50, seed=seed, epoch=epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@given(plans)
def test_an_epoch_takes_each_video_at_most_once_and_leaves_out_less_than_a_step(plan):
    rows = [row for micro_batch in micro_batches_of(plan)[0] for row in micro_batch.rows]
    assert len(set(rows)) == len(rows) == plan.steps_per_epoch * plan.videos_per_step
    assert 0 <= plan.num_videos - len(rows) < plan.videos_per_step


@given(plans)
def test_a_manifest_that_fills_its_steps_is_taken_whole(plan):
    whole = TrainPlan(
        num_videos=plan.videos_per_step * 3,
        global_batch_size=plan.videos_per_step,
        micro_batch_size=plan.micro_batch_size,
        seed=plan.seed,
    )
    rows = [row for micro_batch in micro_batches_of(whole)[0] for row in micro_batch.rows]
    assert sorted(rows) == list(range(whole.num_videos))


@given(plans, st.integers(1, 5))
def test_any_number_of_workers_shares_every_step_exactly(plan, num_workers):
    alone = as_tuples(micro_batches_of(plan)[0])
    shared = [entry for worker in micro_batches_of(plan, num_workers=num_workers) for entry in as_tuples(worker)]
    assert len(shared) == len(set(shared))
    assert sorted(shared) == alone


@given(plans, st.integers(1, 5))
def test_workers_differ_by_at_most_one_micro_batch_a_step(plan, num_workers):
    for step in range(plan.steps_per_epoch):
        shares = [sum(m.step == step for m in worker) for worker in micro_batches_of(plan, num_workers=num_workers)]
        assert max(shares) - min(shares) <= 1


@given(plans)
def test_every_step_has_the_same_number_of_micro_batches_and_videos(plan):
    for step in range(plan.steps_per_epoch):
        own = [m for m in micro_batches_of(plan)[0] if m.step == step]
        assert [m.index for m in own] == list(range(plan.micro_batches_per_step))
        assert sum(len(m.rows) for m in own) == plan.videos_per_step
        assert all(len(m.rows) == plan.micro_batch_size for m in own[:-1])
        assert 0 < len(own[-1].rows) <= plan.micro_batch_size


@given(plans, st.data())
def test_resuming_from_a_cursor_gives_the_tail(plan, data):
    epoch, step = data.draw(st.integers(0, 3)), data.draw(st.integers(0, plan.steps_per_epoch - 1))
    whole = as_tuples(micro_batches_of(plan, Cursor(epoch=epoch))[0])
    tail = as_tuples(micro_batches_of(plan, Cursor(epoch=epoch, step=step))[0])
    assert tail == whole[step * plan.micro_batches_per_step :]


@given(plans)
def test_advancing_visits_every_step_of_every_epoch_in_order(plan):
    cursor, visited = Cursor(), []
    for taken in range(2 * plan.steps_per_epoch + 1):
        assert plan.step_of(cursor) == taken
        visited.append((cursor.epoch, cursor.step))
        cursor = plan.advance(cursor)
    steps = range(plan.steps_per_epoch)
    assert visited == [*((0, s) for s in steps), *((1, s) for s in steps), (2, 0)]


def test_a_manifest_smaller_than_a_step_is_one_smaller_step():
    plan = TrainPlan(num_videos=5, global_batch_size=64, micro_batch_size=2, seed=0)
    assert (plan.videos_per_step, plan.steps_per_epoch, plan.micro_batches_per_step) == (5, 1, 3)
    (own,) = micro_batches_of(plan)
    assert [len(m.rows) for m in own] == [2, 2, 1]


def test_a_last_step_that_could_not_be_filled_is_left_out():
    plan = TrainPlan(num_videos=11, global_batch_size=4, micro_batch_size=2, seed=0)
    assert plan.steps_per_epoch == 2
    assert sum(len(m.rows) for m in micro_batches_of(plan)[0]) == 8


def test_the_order_does_not_drift():
    assert epoch_order(8, seed=0, epoch=0).tolist() == [7, 5, 0, 3, 4, 6, 2, 1]
    assert epoch_order(8, seed=0, epoch=1).tolist() == [4, 7, 6, 1, 0, 3, 2, 5]


@pytest.mark.parametrize(
    ("num_videos", "seed", "epoch", "digest"),
    [
        (1000, 0, 0, "122e939ee91b7bf919cdbe37cf00310490eaed3733a0567d9ba6faa4e939aea8"),
        (70_000, 3, 2, "b54454f0349ee62b015ccd9e9e437085c774b22771bb301401ba2f13e700bb77"),
    ],
)
def test_the_order_of_more_videos_does_not_drift_either(num_videos, seed, epoch, digest):
    """Whatever type the rows are held in: runs that continue must find the order that they began with."""
    order = epoch_order(num_videos, seed=seed, epoch=epoch)
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest() == digest


@given(st.integers(1, 500), st.integers(0, 3))
def test_the_order_is_that_of_numpys_own_permutation(num_videos, seed):
    expected = random_generator(seed, 1, "order").permutation(num_videos)
    assert np.array_equal(epoch_order(num_videos, seed=seed, epoch=1), expected)


def test_a_large_epoch_is_held_once_and_read_step_by_step():
    num_videos = 1_000_000
    plan = TrainPlan(num_videos=num_videos, global_batch_size=64, micro_batch_size=16, seed=0)
    tracemalloc.start()
    try:
        taken = list(islice(plan.micro_batches(Cursor(), worker=1, num_workers=2), 100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * num_videos * np.dtype(np.int32).itemsize
    assert all(micro_batch.rows.dtype == np.int64 for micro_batch in taken)
    assert all(micro_batch.rows.base is None for micro_batch in taken)  # nothing keeps the whole order alive


def test_draws_and_seeds_do_not_drift():
    assert random_seed(0, 1, "abc", 2) == 350270307284135889
    assert random_generator(0, 1, "abc", 2).random(2).tolist() == [0.6940857996316228, 0.37585065173743815]


def test_the_same_key_gives_the_same_draws_every_time():
    assert random_generator(3, 1, "v").random(4).tolist() == random_generator(3, 1, "v").random(4).tolist()


keys = st.lists(st.integers(-2, 12) | st.text("1,'\" \\", max_size=3), min_size=1, max_size=3).map(tuple)


@given(keys, keys)
def test_different_keys_give_different_draws(one, other):
    same = [type(part) for part in one] == [type(part) for part in other] and one == other
    assert (random_seed(*one) == random_seed(*other)) == same
    assert (random_generator(*one).random() == random_generator(*other).random()) == same


@pytest.mark.parametrize(
    ("one", "other"), [((1,), ("1",)), ((1, 23), (12, 3)), (("a", "b"), ("ab",)), ((1, 2), (2, 1))]
)
def test_keys_that_look_alike_are_kept_distinct(one, other):
    assert random_seed(*one) != random_seed(*other)


@given(keys)
def test_a_seed_fits_into_63_bits(key):
    assert 0 <= random_seed(*key) < 2**63


def test_starts_over_many_videos_are_even():
    draws = np.array([random_generator(0, 0, f"v{number}", "start").random() for number in range(2000)])
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert counts.min() > 150
    assert counts.max() < 250


@given(st.integers(0, 40), st.integers(1, 6))
def test_every_row_is_scored_by_exactly_one_worker(num_rows, num_workers):
    shares = [worker_share(num_rows, worker=worker, num_workers=num_workers) for worker in range(num_workers)]
    assert sorted(np.concatenate(shares)) == list(range(num_rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
