"""The queue against what queueing theory says, and events in their order."""

import numpy as np
import pytest

from morphmlp.sizing.events import Events, Queue, SharedCores


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


@pytest.mark.parametrize("service", ["constant", "exponential", "two kinds"])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_random_jobs_on_a_shared_core_stay_as_long_as_kleinrock_says(service, load):
    # M/G/1 with processor sharing: 1 / (1 - load) service times, whatever their distribution.
    events, rng, arrivals = Events(), np.random.default_rng(11), 20_000
    core, gaps, stays = SharedCores(events, 1), rng.exponential(1 / load, arrivals), []
    draw = {
        "constant": lambda: 1.0,
        "exponential": rng.exponential,
        "two kinds": lambda: float(rng.choice([0.5, 2.0], p=[2 / 3, 1 / 3])),
    }[service]

    def arrive(number: int) -> None:
        since = events.now
        core.run(draw(), lambda: stays.append(events.now - since))
        if number + 1 < arrivals:
            events.after(gaps[number + 1], lambda: arrive(number + 1))

    events.after(gaps[0], lambda: arrive(0))
    events.run(lambda: False)
    assert len(stays) == arrivals
    assert np.mean(stays) == pytest.approx(1 / (1 - load), rel=0.08)


def test_shared_cores_give_each_job_one_core_at_most_and_else_an_even_share():
    events, ends = Events(), {}
    cores = SharedCores(events, 2)
    for delay_s, name, cpu_s in [(0, "a", 3.0), (0, "b", 1.0), (0.5, "c", 1.0)]:
        events.after(delay_s, lambda name=name, cpu_s=cpu_s: cores.run(cpu_s, lambda: ends.update({name: events.now})))
    events.run(lambda: False)
    # To 0.5 s a and b alone. Then three on two cores: b has 0.5 left, done at 0.5 + 0.5 x 3/2 = 1.25. c has 0.5 left
    # then, a 2.0, and each has a core again.
    assert ends == {"b": pytest.approx(1.25), "c": pytest.approx(1.75), "a": pytest.approx(3.25)}


def ends_of(cores, growth, jobs):
    """When jobs `(start, kind, CPU seconds alone)` end, in their order."""
    events, ends = Events(), {}
    shared = SharedCores(events, cores, growth)
    for number, (start_s, kind, cpu_s) in enumerate(jobs):
        events.after(
            start_s,
            lambda number=number, kind=kind, cpu_s=cpu_s: shared.run(
                cpu_s, lambda: ends.update({number: events.now}), kind
            ),
        )
    events.run(lambda: False)
    return [ends[number] for number in range(len(jobs))], shared.spent()


def by_number(kind, jobs):
    """1, 1.5, 2, .. for one job, two, three."""
    return (1 + sum(jobs.values())) / 2


@pytest.mark.parametrize(
    ("cores", "number", "end_s"),
    [
        (2, 1, 1.0),  # alone: as it was measured
        (2, 2, 1.5),
        (4, 4, 2.5),
        (2, 4, 2.5 * 2),  # two turns on each core, and each second of a core does less
        (1, 3, 2.0 * 3),
    ],
)
def test_equal_jobs_on_cores_that_slow_each_other_end_together(cores, number, end_s):
    ends, spent = ends_of(cores, by_number, [(0.0, "work", 1.0)] * number)
    assert ends == [pytest.approx(end_s)] * number
    assert spent == {"work": (pytest.approx(min(cores, number) * end_s), pytest.approx(number))}


def test_a_job_is_slowed_only_while_others_are_there():
    # To 0.5 s a is alone. Then both need 1.5 times the time: b's 0.4 are done 0.6 s later, of a 0.4 more; 1.1 are left.
    ends, spent = ends_of(2, by_number, [(0.0, "work", 2.0), (0.5, "work", 0.4)])
    assert ends == [pytest.approx(2.2), pytest.approx(1.1)]
    assert spent["work"] == (pytest.approx(2.2 + 0.6), pytest.approx(2.4))


def test_kinds_of_work_are_slowed_each_in_its_way():
    def growth(kind, jobs):
        return 2.0 if kind == "slow" and jobs.get("fast") else 1.0

    # The slow one does half a second's work in the one second of the fast one, and the rest alone.
    ends, spent = ends_of(2, growth, [(0.0, "slow", 2.0), (0.0, "fast", 1.0)])
    assert ends == [pytest.approx(2.5), pytest.approx(1.0)]
    assert spent == {"slow": (pytest.approx(2.5), pytest.approx(2.0)), "fast": (pytest.approx(1.0), pytest.approx(1.0))}


@pytest.mark.parametrize("jobs", [[(0.0, "a", 3.0), (0.0, "b", 1.0), (0.5, "a", 1.0)]])
def test_without_a_growth_kinds_are_all_one(jobs):
    with_ones, _ = ends_of(2, lambda kind, jobs: 1.0, jobs)
    assert ends_of(2, None, jobs)[0] == pytest.approx(with_ones) == [3.25, 1.25, 1.75]


@pytest.mark.parametrize(("servers", "jobs"), [(1, 5), (3, 7), (8, 8)])
def test_jobs_that_are_there_at_once_take_as_many_rounds_as_servers_need(servers, jobs):
    events = Events()
    queue = Queue(events, servers)
    for _ in range(jobs):
        queue.submit(2.0, lambda: None)
    events.run(lambda: False)
    assert events.now == 2.0 * -(-jobs // servers)
