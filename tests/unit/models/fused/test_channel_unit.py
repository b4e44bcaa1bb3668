"""The channel unit in one kernel, in Triton's interpreter, against norm, MLP and sum one after the other."""

import pytest
import torch
from torch import Tensor, nn

from morphmlp.models.fused import channel_launch, channel_ops, layers
from morphmlp.models.morphfc import Mlp
from morphmlp.models.norm import LayerNorm

CHANNELS, HIDDEN = 19, 20


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that odd sizes take several of each."""
    monkeypatch.setattr(channel_ops, "HIDDEN_BLOCK", 16)
    monkeypatch.setattr(channel_launch, "HIDDEN_BLOCK", 16)
    monkeypatch.setattr(channel_launch, "MOST_TOKENS", 16)
    monkeypatch.setattr(channel_ops, "GRADIENT_PROGRAMS", 4)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_result(kind, *, fused, clips=2, dropped=True):
    """Value and gradients, of a map that isn't contiguous."""
    norm, mlp = LayerNorm(CHANNELS), Mlp(CHANNELS, HIDDEN, CHANNELS)
    parameters = [*norm.parameters(), *mlp.parameters()]
    for seed, parameter in enumerate(parameters):
        parameter.data = drawn(*parameter.shape, seed=seed).to(torch.float32 if kind.itemsize == 2 else kind)
    x = drawn(clips, CHANNELS, 4, 5, 1, seed=11).to(kind).movedim(1, -1).requires_grad_()
    factor = torch.tensor([2.0, 0.5], dtype=kind)[:clips].reshape(-1, 1, 1, 1, 1) if dropped else None
    with torch.autocast("cpu", kind, enabled=kind.itemsize == 2):
        if fused:
            y = layers.channel_unit(x, norm, mlp, factor=factor)
        else:
            y = x + mlp(norm(x)) * (1.0 if factor is None else factor)
    return y, *torch.autograd.grad(y, [x, *parameters], drawn(*y.shape, seed=12).to(y.dtype))


@pytest.mark.parametrize(
    ("kind", "most", "dropped"),
    [(torch.float64, 1e-12, True), (torch.float32, 1e-6, False)],
    ids=["fp64, with drop path", "fp32"],
)
def test_it_gives_what_its_layers_give(kind, most, dropped):
    results = (unit_result(kind, fused=fused, dropped=dropped) for fused in (True, False))
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        assert (found - expected).norm() < most * expected.norm()


@pytest.mark.parametrize(
    "kind", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=["bf16", "fp16"]
)
def test_16_bit_is_no_further_from_fp64_than_its_layers(kind):
    exact = unit_result(torch.float64, fused=False)
    for found, plain, right in zip(unit_result(kind, fused=True), unit_result(kind, fused=False), exact, strict=True):
        assert found.dtype == plain.dtype
        assert (found.double() - right).norm() < 1.1 * (plain.double() - right).norm()


def test_a_batch_without_clips_has_no_result_and_no_gradients():
    y, of_x, *of_parameters = unit_result(torch.float32, fused=True, clips=0)
    assert y.shape == of_x.shape == (0, 4, 5, 1, CHANNELS)
    assert not any(gradient.count_nonzero() for gradient in of_parameters)


def test_what_needs_no_gradient_is_given_none():
    norm, mlp = LayerNorm(CHANNELS), Mlp(CHANNELS, HIDDEN, CHANNELS)
    nn.init.normal_(mlp.fc2.weight)
    x = drawn(1, 2, 2, 2, CHANNELS, seed=1).float().requires_grad_()
    for module in (norm, mlp):
        module.requires_grad_(False)
    y = layers.channel_unit(x, norm, mlp, factor=None)
    (found,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad((x + mlp(norm(x))).sum(), x)
    torch.testing.assert_close(found, expected)
