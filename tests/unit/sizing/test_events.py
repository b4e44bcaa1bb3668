"""The queue against what queueing theory says, and events in their order."""

import numpy as np
import pytest

from morphmlp.sizing.events import Events, Queue


def test_calls_come_by_time_and_then_as_they_were_planned():
    events, seen = Events(), []
    for delay, name in [(2, "late"), (1, "first"), (1, "second"), (0, "now")]:
        events.after(delay, lambda name=name: seen.append((events.now, name)))
    events.run(lambda: False)
    assert seen == [(0, "now"), (1, "first"), (1, "second"), (2, "late")]


@pytest.mark.parametrize(("service", "factor"), [("constant", 0.5), ("exponential", 1.0)])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_random_arrivals_wait_as_pollaczek_and_khinchine_say(service, factor, load):
    # Mean wait of M/D/1: load / (2 (1 - load)) service times; of M/M/1 twice as long.
    events, rng, arrivals = Events(), np.random.default_rng(7), 40_000
    queue, gaps = Queue(events, 1), rng.exponential(1 / load, arrivals)

    def arrive(number: int) -> None:
        queue.submit(1.0 if service == "constant" else float(rng.exponential()), lambda: None)
        if number + 1 < arrivals:
            events.after(gaps[number + 1], lambda: arrive(number + 1))

    events.after(gaps[0], lambda: arrive(0))
    events.run(lambda: False)
    assert queue.served == arrivals
    assert queue.busy_s / events.now == pytest.approx(load, rel=0.02)
    assert queue.waited_s / arrivals == pytest.approx(factor * load / (1 - load), rel=0.08)


@pytest.mark.parametrize(("servers", "jobs"), [(1, 5), (3, 7), (8, 8)])
def test_jobs_that_are_there_at_once_take_as_many_rounds_as_servers_need(servers, jobs):
    events = Events()
    queue = Queue(events, servers)
    for _ in range(jobs):
        queue.submit(2.0, lambda: None)
    events.run(lambda: False)
    assert events.now == 2.0 * -(-jobs // servers)
