"""16-bit arithmetic: what it changes in the network, and what it must not."""

import pytest
import torch
from tiny_network import clips, tiny
from torch import nn

from morphmlp.tasks.classification import soft_target_loss_sum, soft_targets

TOLERANCES = {torch.bfloat16: 0.03, torch.float16: 0.004}
"""Of the greatest logit; bf16 has 8 bits, fp16 11."""

RANDOM = {"drop_path_rate": 0.5, "init": "random_projection"}
halves = pytest.mark.parametrize("kind", TOLERANCES, ids=str)


def trained_a_step(kind=None):
    """A network after one forward and backward pass, its logits and its loss."""
    model = tiny(**RANDOM).train()
    targets = soft_targets(torch.tensor([0, 1, 2, 3]), num_classes=5, label_smoothing=0.1)
    torch.manual_seed(2)
    with torch.autocast("cpu", kind or torch.bfloat16, enabled=kind is not None):
        logits = model(clips(4))
    loss = soft_target_loss_sum(logits, targets)
    loss.backward()
    return model, logits, loss


@halves
def test_logits_and_loss_change_a_little(kind):
    _, exact, exact_loss = trained_a_step()
    _, rounded, loss = trained_a_step(kind)
    difference = (rounded.float() - exact).abs().max() / exact.abs().max()
    assert 0 < difference < TOLERANCES[kind]
    assert loss.item() == pytest.approx(exact_loss.item(), rel=TOLERANCES[kind])


@halves
def test_weights_gradients_and_loss_stay_in_single_precision(kind):
    model, logits, loss = trained_a_step(kind)
    assert logits.dtype == kind
    assert loss.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    before = tiny(**RANDOM).state_dict()
    assert all(parameter.equal(before[name]) for name, parameter in model.named_parameters())


@halves
def test_batch_norm_keeps_its_statistics_in_single_precision(kind):
    exact, (model, *_) = trained_a_step()[0], trained_a_step(kind)
    for name, buffer in model.named_buffers():
        if "running" in name:
            assert buffer.dtype == torch.float32
            assert not buffer.equal(buffer.to(kind).float()), name
            torch.testing.assert_close(buffer, exact.get_buffer(name), rtol=0.01, atol=0.001)


@halves
def test_the_loss_is_computed_in_single_precision(kind):
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(kind)
    targets = soft_targets(torch.tensor([0, 1, 2]), num_classes=5, label_smoothing=0.1)
    expected = -(targets.double() * logits.double().log_softmax(1)).sum()
    assert soft_target_loss_sum(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)


@halves
def test_drop_path_draws_do_not_depend_on_the_precision(kind):
    block, x = tiny(**RANDOM).blocks4[0].train(), torch.zeros(64, 4, 2, 2, 32)
    drawn = []
    for map_in in (x, x.to(kind)):
        torch.manual_seed(5)
        drawn.append(block.draw_kept(map_in).float())
    assert 0 < drawn[0].count_nonzero() < 128
    assert drawn[0].equal(drawn[1])


@pytest.mark.parametrize("temporal", ["mixed", "none"])
@pytest.mark.parametrize("in_16_bit", [False, True])
def test_convolutions_work_channels_last_and_their_weights_stay_as_they_are(temporal, in_16_bit):
    model = tiny(temporal=temporal)
    shape = model.input_shape
    x = torch.randn(2, *shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=in_16_bit):
        assert model.patch_embed1(x).is_contiguous()
        model(x).sum().backward()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            assert module.weight.is_contiguous()
            assert module.weight.grad.is_contiguous()
