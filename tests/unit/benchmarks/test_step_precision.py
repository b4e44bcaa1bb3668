"""What 16-bit arithmetic costs the logits: no more than in the published order of steps."""

import pytest
import torch

from morphmlp.benchmarks.step_precision import losses_table, precision_losses
from morphmlp.models.fused import channel_launch, launch, norm_launch


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
@pytest.mark.timeout(1800)
def test_fused_kernels_cost_bf16_no_more_than_the_present_form(monkeypatch):
    # Large blocks: the interpreter takes its time for each.
    monkeypatch.setattr(launch, "LINEAR_BLOCKS", (1024, 1024, 1024))
    monkeypatch.setattr(channel_launch, "FORWARD_BYTES", 2**21)
    monkeypatch.setattr(channel_launch, "MOST_TOKENS", 1024)
    monkeypatch.setattr(channel_launch, "HIDDEN_BLOCK", 128)
    monkeypatch.setattr(norm_launch, "MOST_VALUES", 2**19)
    (loss,) = precision_losses(
        ["morphmlp_s_16x4"], draws=2, clips=1, num_frames=2, kind=torch.bfloat16, log=lambda _: None, fused=True
    )
    assert loss.fused < 1.1 * loss.present
    assert "fused: error" in losses_table([loss])
