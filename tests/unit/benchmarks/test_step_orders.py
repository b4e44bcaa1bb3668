"""CPU time of a step against the published order of steps."""

from pathlib import Path

import pytest

from morphmlp.benchmarks.step_orders import compare_orders, orders_table
from morphmlp.config import load_config

DEMO = Path(__file__).parents[3] / "experiments/demo/morphmlp_demo.yaml"


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_orders_are_timed_with_either_kind_of_memory_and_products_are_a_part_of_a_step(precision):
    found = compare_orders(load_config(DEMO), precision=precision, clips=2, rounds=2, log=lambda _: None)
    assert [one.memory for one in found] == ["as it is", "kept"]
    for one in found:
        assert one.speedup > 0.4
        assert 0 < one.products_s < 2 * one.present_s
        assert one.peak_bytes > 2**26
    assert len(orders_table(found).splitlines()) == 4
