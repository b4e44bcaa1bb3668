"""Items made ahead in a thread: the same ones, no more than asked for, and no thread left behind."""

import threading
import time

import pytest

from morphmlp.data.stream.prefetch import chain_early, prefetch
from morphmlp.errors import ClusterError


def waiting_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_until(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert wait_until(lambda: not waiting_threads())


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_the_items_are_the_same_in_the_same_order(depth):
    assert list(prefetch(iter(range(20)), depth=depth)) == list(range(20))


def test_nothing_gives_nothing():
    assert list(prefetch(iter([]), depth=2)) == []


def test_items_that_are_none_or_false_are_items():
    assert list(prefetch(iter([None, 0, None]), depth=2)) == [None, 0, None]


def test_the_next_items_are_made_while_the_caller_works_and_no_more_than_asked_for():
    made = []

    def source():
        for number in range(10):
            made.append(number)
            yield number

    items = prefetch(source(), depth=2)
    assert next(items) == 0
    # Two wait, and one is in the thread's hands.
    assert wait_until(lambda: len(made) == 4)
    time.sleep(0.05)
    assert len(made) == 4
    items.close()


def test_an_error_is_raised_at_its_place_in_the_order():
    def source():
        yield 1
        yield 2
        raise ValueError("truncated")

    items = prefetch(source(), depth=5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="truncated"):
        next(items)


def test_closing_early_stops_the_thread():
    items = prefetch(iter(range(10**9)), depth=2)
    next(items)
    items.close()
    assert not waiting_threads()


def test_a_caller_that_fails_stops_the_thread():
    def caller():
        for _ in prefetch(iter(range(10**9)), depth=2):
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        caller()


def test_nothing_is_made_before_the_first_item_is_asked_for():
    made = []
    prefetch((made.append(number) for number in range(3)), depth=2)
    assert not made
    assert not waiting_threads()


def chained(lengths, *, early, log):
    def start(part):
        log.append(f"start {part[0]}")
        return iter(part)

    parts, first = [], 0
    for length in lengths:
        parts.append(range(first, first + length))
        first += length
    return chain_early(iter(parts), start, early=early)


@pytest.mark.parametrize("lengths", [(), (1,), (4, 4, 3), (1, 1, 1)])
@pytest.mark.parametrize("early", [0, 1, 2, 9])
def test_parts_follow_each_other_without_a_gap(lengths, early):
    assert list(chained(lengths, early=early, log=[])) == list(range(sum(lengths)))


def test_the_next_part_starts_that_many_items_before_the_end_of_this_one():
    log = []
    for item in chained((5, 5), early=2, log=log):
        log += [item]
    assert log == ["start 0", 0, 1, "start 5", 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_part_that_is_shorter_than_that_starts_the_next_one_with_its_first_item_and_no_further_one():
    log = []
    items = chained((2, 2, 2), early=9, log=log)
    assert next(items) == 0
    assert log == ["start 0", "start 2"]


def test_a_source_that_gives_nothing_is_given_up_and_left_behind():
    forever = threading.Event()

    def source():
        yield 1
        forever.wait(60)

    items = prefetch(source(), depth=1, wait_s=0.2)
    try:
        assert next(items) == 1
        with pytest.raises(ClusterError, match=r"^ingest\.wait_for_clips_s: no clips came for 0\.2 s; are the nodes"):
            next(items)
        assert not forever.is_set()  # nobody waited for it
    finally:
        forever.set()


def test_a_caller_that_takes_its_time_is_no_stall():
    items = prefetch(iter(range(6)), depth=1, wait_s=0.2)
    assert [time.sleep(0.3 if item == 2 else 0) or item for item in items] == list(range(6))
