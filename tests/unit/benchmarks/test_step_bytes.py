"""Bytes of a step, counted from its operations: what a change costs a GPU shows here without one."""

import pytest

from morphmlp.benchmarks.step_bytes import bytes_table, compare_bytes
from morphmlp.config import load_config


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: tensors without data are none to beartype."""


@pytest.fixture(scope="module")
def rows(request):
    return compare_bytes(load_config(request.config.rootpath / "experiments/demo/morphmlp_demo.yaml"), clips=16)


@pytest.mark.slow
@pytest.mark.parametrize(("arithmetic", "most"), [("fp32", 0.88), ("16 bit", 0.93)])
def test_a_step_moves_less_than_the_published_one_and_so_do_its_blocks_but_the_smallest(rows, arithmetic, most):
    shares = {row.part: row.present.bytes / row.published.bytes for row in rows if row.arithmetic == arithmetic}
    assert shares.pop("step") < most
    *blocks, _of_stage_4 = shares.values()
    assert max(blocks) < 1


@pytest.mark.slow
def test_a_step_is_more_than_its_blocks_and_the_table_has_all(rows):
    step, *blocks = (row.present for row in rows if row.arithmetic == "fp32")
    assert step.bytes > sum(block.bytes for block in blocks)
    assert step.kernels > sum(block.kernels for block in blocks)
    assert len(bytes_table(rows).splitlines()) == 2 + 2 * 5
