"""Bytes of a step, counted from its operations: what a change costs a GPU shows here without one."""

import pytest
from tiny_network import CROP, FRAMES, TINY

from morphmlp.models.step_bytes import step_bytes


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: tensors without data are none to beartype."""


@pytest.mark.slow
@pytest.mark.parametrize(("in_16_bit", "most"), [(False, 0.85), (True, 0.93)])
def test_blocks_move_less_than_the_published_steps(in_16_bit, most):
    published, present = (
        step_bytes(TINY, num_frames=FRAMES, crop_size=CROP, clips=16, in_16_bit=in_16_bit, published=published)
        for published in (True, False)
    )
    shares = [one.bytes / other.bytes for one, other in zip(present.blocks, published.blocks, strict=True)]
    assert max(shares[:3]) < most
    assert present.step.bytes < published.step.bytes
    assert present.step.bytes > sum(block.bytes for block in present.blocks)
