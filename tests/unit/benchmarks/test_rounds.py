"""Interleaved rounds and ratios of the measurements."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.benchmarks.rounds import interleaved, median_ratio


@given(st.lists(st.text(max_size=3), min_size=1, max_size=5, unique=True), st.integers(0, 6), st.integers(0, 3))
def test_everyone_has_one_turn_a_round(names, rounds, seed):
    turns = list(interleaved(names, rounds, seed=seed))
    for number in range(rounds):
        assert sorted(name for at, name in turns if at == number) == sorted(names)
    assert [at for at, _ in turns] == sorted(at for at, _ in turns)


def test_nobody_always_follows_the_same_one():
    turns = [name for _, name in interleaved(["a", "b", "c"], 30)]
    followers = {following for name, following in pairwise(turns) if name == "a"}
    assert {"b", "c"} <= followers


def test_a_ratio_is_taken_pair_by_pair():
    """A disturbance doubled both sides of the second pair: it changes the ratio of the medians, not this one."""
    assert median_ratio([2, 4, 2], [1, 2, 1]) == 2
    assert median_ratio([3, 30, 3.3, 9], [1, 10, 1.1, 1]) == pytest.approx(3)


@pytest.mark.parametrize(("over", "under"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_is_no_list_of_pairs_is_refused(over, under):
    with pytest.raises(ValueError, match=r"pairs|shorter|longer"):
        median_ratio(over, under)
