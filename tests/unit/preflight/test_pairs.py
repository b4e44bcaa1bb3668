"""Who meets whom, and that sums over a real process group are checked."""

from itertools import combinations

import pytest
from forked_workers import FORKED

from morphmlp.drill.services import free_port
from morphmlp.preflight.pairs import all_reduce_rounds, rounds_of_pairs


@pytest.mark.parametrize("count", range(1, 10))
def test_every_two_meet_once_and_nobody_twice_in_a_round(count):
    names = [f"node-{number}" for number in range(count)]
    rounds = rounds_of_pairs(names)
    assert sorted(tuple(sorted(pair)) for pairs in rounds for pair in pairs) == list(combinations(names, 2))
    assert all(len({name for pair in pairs for name in pair}) == 2 * len(pairs) for pairs in rounds)
    assert len(rounds) <= count  # as few as there can be, to one


def meet(address, rank, results):
    results.put(all_reduce_rounds(address, rank=rank, backend="gloo", elements=5000))


def meet_wrongly(address, rank, results):
    """As a network card that flips bits would have it: one of the sums is off."""
    import torch.distributed as dist

    added_up = dist.all_reduce

    def all_reduce(vector):
        added_up(vector)
        vector[17] += 1

    dist.all_reduce = all_reduce
    meet(address, rank, results)


@pytest.mark.slow
def test_two_processes_find_out_whether_their_sums_are_right():
    address, results = f"127.0.0.1:{free_port()}", FORKED.SimpleQueue()
    sides = [
        FORKED.Process(target=target, args=(address, rank, results)) for rank, target in enumerate((meet, meet_wrongly))
    ]
    for side in sides:
        side.start()
    for side in sides:
        side.join(120)
    right, wrong = sorted((results.get(), results.get()), key=lambda found: isinstance(found, str))
    assert right > 0
    assert wrong == "1 of 5000 sums are wrong"
