"""Bytes of compiled blocks, by the plan of torch's compiler: where that fuses less, it shows here."""

from pathlib import Path

import pytest

from morphmlp.benchmarks.step_bytes import step_bytes
from morphmlp.config import load_config

pytestmark = pytest.mark.long
EXPERIMENTS = Path(__file__).parents[3] / "experiments"
DEMO = load_config(EXPERIMENTS / "demo/morphmlp_demo.yaml")


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: tensors without data are none to beartype."""


@pytest.mark.parametrize(("in_16_bit", "most"), [(False, 0.88), (True, 0.87)], ids=["fp32", "16 bit"])
def test_compiled_blocks_move_less_by_fewer_kernels(in_16_bit, most):
    from morphmlp.benchmarks.compiled_bytes import compiled_block_bytes  # torch's compiler takes seconds to import

    planned = compiled_block_bytes(DEMO, clips=16, in_16_bit=in_16_bit)
    eager = step_bytes(DEMO, clips=16, in_16_bit=in_16_bit).blocks
    assert len(planned) == len(eager) == 4
    for compiled, plain in zip(planned, eager, strict=True):
        assert compiled.whole.kernels < 0.65 * plain.kernels
        assert compiled.forward.bytes < compiled.backward.bytes
    moved = sum(block.whole.bytes for block in planned) / sum(block.bytes for block in eager)
    assert moved < most


def test_fused_blocks_of_a_published_network_move_less_than_compiled_ones_of_the_published_order():
    from morphmlp.benchmarks.compiled_bytes import blocks_table, compare_blocks

    rows = compare_blocks(load_config(EXPERIMENTS / "k400/morphmlp_s_16x4.yaml"), clips=16)
    ratios = {(row.arithmetic, row.form): row.bytes / row.published for row in rows}
    assert max(ratios[arithmetic, "fused"] for arithmetic in ("fp32", "16 bit")) < 0.6
    assert max(ratios[arithmetic, "present, compiled"] for arithmetic in ("fp32", "16 bit")) < 1
    assert len(blocks_table(rows).splitlines()) == 2 + len(ratios)
