"""What 16-bit arithmetic costs the logits: no more than in the published order of steps."""

import pytest
import torch

from morphmlp.benchmarks.step_precision import losses_table, precision_losses


@pytest.mark.slow
def test_logits_in_bf16_are_as_near_to_fp32_as_those_of_the_published_order():
    found = precision_losses(
        ["morphmlp_s_16x4"], draws=4, clips=1, num_frames=2, kind=torch.bfloat16, log=lambda _: None
    )
    (loss,) = found
    assert 0.001 < loss.present < 0.01
    assert loss.ratio < 1.05  # rounding goes either way
    assert "morphmlp_s_16x4" in losses_table(found)


@pytest.mark.long
def test_fused_kernels_cost_bf16_no_more_than_the_present_form():
    (loss,) = precision_losses(
        ["morphmlp_s_16x4"], draws=2, clips=1, num_frames=2, kind=torch.bfloat16, log=lambda _: None, fused=True
    )
    assert loss.fused < 1.1 * loss.present
    assert "fused: error" in losses_table([loss])
