"""McNemar's test against statsmodels, and how often the interval of a difference holds the truth."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep

from morphmlp.evaluation.comparison import Paired, p_text, paired

TABLES = [
    (40, 3, 9, 8),
    (1, 0, 0, 0),
    (0, 0, 0, 1),
    (0, 5, 0, 0),
    (0, 7, 7, 0),
    (30, 0, 0, 30),
    (15000, 800, 900, 3100),
]


@pytest.mark.parametrize(("both", "first", "second", "neither"), TABLES)
def test_the_p_value_is_statsmodels_exact_one(both, first, second, neither):
    found = Paired(both=both, only_first=first, only_second=second, neither=neither)
    theirs = mcnemar([[both, first], [second, neither]], exact=True).pvalue if first + second else 1.0
    assert found.p_value == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(("both", "first", "second", "neither"), TABLES)
def test_the_interval_holds_the_difference_and_turns_round_with_the_tests(both, first, second, neither):
    one = Paired(both=both, only_first=first, only_second=second, neither=neither).difference
    other = Paired(both=both, only_first=second, only_second=first, neither=neither).difference
    assert -100 <= one.low <= one.value <= one.high <= 100
    assert one.value == pytest.approx(100 * (first - second) / (both + first + second + neither))
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_of_independent_answers_the_interval_is_newcombes_of_two_samples():
    # 60 % and 40 % right with no correlation.
    found = Paired(both=24, only_first=36, only_second=16, neither=24).difference
    theirs = confint_proportions_2indep(60, 100, 40, 100, method="newcomb")
    assert (found.low, found.high) == pytest.approx(100 * np.array(theirs), abs=1e-9)


@pytest.mark.parametrize(("share", "gain", "apart"), [(0.7, 0.02, 0.1), (0.95, 0.0, 0.03), (0.5, 0.1, 0.3)])
def test_95_percent_of_the_intervals_hold_the_true_difference(share, gain, apart):
    rng, held, rounds = np.random.default_rng(1), 0, 2000
    only_first, only_second = (apart + gain) / 2, (apart - gain) / 2
    both = share - only_first
    cells = [both, only_first, only_second, 1 - both - apart]
    for counts in rng.multinomial(400, cells, rounds):
        found = Paired(both=counts[0], only_first=counts[1], only_second=counts[2], neither=counts[3]).difference
        held += found.low <= 100 * gain <= found.high
    assert held / rounds == pytest.approx(0.95, abs=0.02)


def test_right_answers_are_counted_in_pairs():
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    assert paired(first, second) == Paired(both=2, only_first=1, only_second=1, neither=1)


def test_a_comparison_in_words():
    words = Paired(both=40, only_first=3, only_second=19, neither=38).in_words("a", "b")
    assert words.startswith("a against b: top-1 -16.00 points (95 % interval -24.")
    assert words.endswith(
        "on the same 100 videos; only the first is right in 3, only the second in 19; McNemar's p 0.00086, beyond "
        "chance"
    )
    assert "within chance" in Paired(both=40, only_first=3, only_second=4, neither=3).in_words("a", "b")
    assert p_text(3e-9) == "below 0.0001"
