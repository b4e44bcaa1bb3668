"""The plan of a large sweep, at a size that takes no time."""

from pathlib import Path

import pytest

from morphmlp.benchmarks import large_plan

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("adjust", [False, True])
def test_candidates_that_break_a_rule_are_told_from_possible_ones(adjust, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(large_plan, "LEARNING_RATES", 1)
    found = large_plan.measure_planner(adjust=adjust)
    # One of five lengths of the first stage divides nothing.
    assert found.candidates == 5 * 4 * 4 * 2 * 24
    assert 0 < found.possible <= found.candidates * 4 // 5
    assert found.cpu_s > 0
