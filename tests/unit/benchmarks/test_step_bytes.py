"""Bytes of a step, counted from its operations: what a change costs a GPU shows here without one."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from morphmlp.benchmarks.step_bytes import bytes_table, compare_bytes, counted
from morphmlp.config import load_config
from morphmlp.config.shapes import Chunks
from morphmlp.models.backbone import Block
from morphmlp.models.fused.form import as_fused
from morphmlp.models.morphfc import SpatialMorphFC, TemporalMorphFC
from morphmlp.models.published_form import as_published

FUSED = 0.8
"""Of a step whose maps are small: what is summed of gradients weighs more there."""


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: tensors without data are none to beartype."""


@pytest.fixture(scope="module")
def rows(request):
    return compare_bytes(load_config(request.config.rootpath / "experiments/demo/morphmlp_demo.yaml"), clips=16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "arithmetic", "most"),
    [("present", "fp32", 0.88), ("present", "16 bit", 0.93), ("fused", "fp32", FUSED), ("fused", "16 bit", FUSED)],
)
def test_a_step_moves_less_than_the_published_one_and_so_do_its_blocks_but_the_smallest(rows, form, arithmetic, most):
    of_form = [row for row in rows if (row.form, row.arithmetic) == (form, arithmetic)]
    shares = {row.part: row.moved.bytes / row.published.bytes for row in of_form}
    assert shares.pop("step") < most
    *blocks, _of_stage_4 = shares.values()
    assert max(blocks) < 1


@pytest.mark.slow
def test_a_step_is_more_than_its_blocks_and_the_table_has_all(rows):
    step, *blocks = (row.moved for row in rows if (row.form, row.arithmetic) == ("present", "fp32"))
    assert step.bytes > sum(block.bytes for block in blocks)
    assert step.kernels > sum(block.kernels for block in blocks)
    assert len(bytes_table(rows).splitlines()) == 2 + 2 * 2 * 5


@pytest.mark.parametrize(("in_16_bit", "most"), [(False, 0.33), (True, 0.35)], ids=["fp32", "16 bit"])
def test_a_large_block_of_fused_kernels_moves_a_third_of_the_published_ones_bytes(in_16_bit, most):
    found, kind = [], torch.bfloat16 if in_16_bit else torch.float32
    for form in (as_fused, as_published):
        with FakeTensorMode():
            spatial = SpatialMorphFC(112, chunks=Chunks(length=14, stage=1, side=56))
            temporal = TemporalMorphFC(112, tokens=8, groups=8)
            block = form(Block(112, spatial=spatial, temporal=temporal, hidden=336, drop_path_rate=0.0))
            x = torch.empty(16, 8, 56, 56, 112, dtype=kind, requires_grad=True)
            found.append(counted(block, x, in_16_bit=in_16_bit))
    fused, published = found
    assert fused.bytes < most * published.bytes
    assert fused.product_bytes > 0.5 * fused.bytes
    # In the backward pass the channel MLP's input and its hidden channels' gradient are made anew.
    again = 3 * 2 * x.numel() * 336
    assert fused.flops == pytest.approx(published.flops + again, rel=0.01)
