"""Fused kernels, in Triton's interpreter, against the plain form."""

import pytest
import torch
from torch import nn

from morphmlp.config.shapes import Chunks
from morphmlp.models.backbone import Block
from morphmlp.models.fused import channel_ops, form, launch, layers, norm_ops, ops
from morphmlp.models.fused.form import as_fused
from morphmlp.models.fused.rows import Rows
from morphmlp.models.morphfc import FrameMorphFC, SpatialMorphFC, TemporalMorphFC

PLACES = {
    "a part of a row": (Chunks(length=4, stage=1, side=8), (8, 8), 2, 8),
    "a row": (Chunks(length=5, stage=2, side=5), (5, 5), 4, 20),
    "two rows": (Chunks(length=8, stage=3, side=4), (4, 4), 8, 16),
    "windows": (Chunks(length=4, stage=1, side=8), (12, 4), 2, 12),
    "strided": (Chunks(length=4, stage=4), (6, 2), 8, 16),
}
"""Chunks, the size of a map, time steps, channels: at least 16 rows of a clip and group."""
WIRINGS = [
    ("temporal_first", "published"),
    ("temporal_first", "standard"),
    ("spatial_first", "published"),
    ("spatial_first", "standard"),
    ("parallel", "standard"),
    ("no time", "published"),
]


@pytest.fixture(autouse=True)
def fewer_programs(monkeypatch):
    """The interpreter takes its time for each."""
    for module in (ops, channel_ops, norm_ops):
        monkeypatch.setattr(module, "GRADIENT_PROGRAMS", 2)


def block(name, *, order="temporal_first", skip="published", kind=torch.float64):
    chunks, sides, times, channels = PLACES[name]
    if chunks.stage == 4:
        spatial = FrameMorphFC(channels, chunks=chunks)
    else:
        spatial = SpatialMorphFC(channels, chunks=chunks, groups=chunks.length)
    temporal = None if order == "no time" else TemporalMorphFC(channels, tokens=times, groups=times)
    made = Block(
        channels, spatial=spatial, temporal=temporal, hidden=3 * channels, drop_path_rate=0.5, order=order, skip=skip
    )
    torch.manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.to(kind), (times, *sides, channels)


def drawn(*shape, seed=1, kind=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


def values_and_gradients(module, x, *rest):
    x = x.clone().requires_grad_()
    module.zero_grad()
    y = module(x, *rest)
    y.backward(drawn(*y.shape, seed=2, kind=y.dtype))
    return {"y": y.detach(), "x": x.grad, **{name: one.grad for name, one in module.named_parameters()}}


def kept(clips, kind=torch.float64):
    return torch.tensor([[2.0, 0.0], [1.0, 2.0]], dtype=kind)[:, :clips].reshape(2, clips, 1, 1, 1, 1)


def fused_and_plain(module, x, *rest):
    plain = values_and_gradients(module, x, *rest)
    return values_and_gradients(as_fused(module), x, *rest), plain


@pytest.mark.parametrize("name", ["a row", pytest.param("two rows", marks=pytest.mark.slow)])
def test_a_block_has_the_values_and_gradients_of_the_plain_form(name):
    module, shape = block(name)
    torch.testing.assert_close(*fused_and_plain(module, drawn(1, *shape), kept(1)), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "order", "skip"),
    [*(("windows", *wiring) for wiring in WIRINGS), ("a part of a row", *WIRINGS[0]), ("strided", *WIRINGS[0])],
)
def test_so_has_each_wiring_and_chunks_of_each_kind_in_several_blocks(name, order, skip, monkeypatch):
    monkeypatch.setattr(launch, "LINEAR_BLOCKS", (64, 16, 16))
    monkeypatch.setattr(ops, "GRADIENT_BLOCK", 16)
    monkeypatch.setattr(form, "MOST_CHANNELS", 12)  # the strided ones have more
    module, shape = block(name, order=order, skip=skip)
    torch.testing.assert_close(*fused_and_plain(module, drawn(2, *shape), kept(2)), rtol=1e-10, atol=1e-10)


def layer_result(kind, *, fused, clips=2):
    """A linear layer with all that it may do at once: GELU before, a factor, a sum; odd sizes, a map out of order."""
    fc = nn.Linear(19, 23).to(torch.float64)
    fc.load_state_dict({"weight": drawn(23, 19, seed=3), "bias": drawn(23, seed=4)})
    fc = fc.to(torch.float32 if kind.itemsize == 2 else kind)
    x, base = drawn(clips, 19, 3, 5, 1).to(kind).movedim(1, -1), drawn(clips, 3, 5, 1, 23, seed=5).to(kind)
    leaves = [x.requires_grad_(), base.requires_grad_(), *fc.parameters()]
    factor = torch.tensor([2.0, 0.5], dtype=kind)[:clips].reshape(-1, 1, 1, 1, 1)
    with torch.autocast("cpu", kind, enabled=kind.itemsize == 2):
        if fused:
            y = layers.linear(x, fc, Rows.of_tokens(15), factor=factor, base=base, gelu=True)
        else:
            y = torch.addcmul(base, fc(nn.functional.gelu(x)), factor)
    return y, *torch.autograd.grad(y, leaves, drawn(*y.shape, seed=6).to(y.dtype))


@pytest.mark.parametrize(("kind", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["fp64", "fp32"])
def test_a_layer_of_odd_sizes_gives_what_torch_gives(kind, most):
    for found, expected in zip(layer_result(kind, fused=True), layer_result(kind, fused=False), strict=True):
        assert found.dtype == expected.dtype
        assert (found - expected).norm() < most * expected.norm()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_16_bit_is_no_further_from_fp64_than_the_plain_form(kind):
    exact = layer_result(torch.float64, fused=False)
    for found, plain, right in zip(layer_result(kind, fused=True), layer_result(kind, fused=False), exact, strict=True):
        assert found.dtype == plain.dtype
        assert (found.double() - right).norm() < 1.1 * (plain.double() - right).norm()


def test_a_batch_without_clips_has_no_result_and_no_gradients():
    y, of_x, of_base, of_weight, of_bias = layer_result(torch.float32, fused=True, clips=0)
    assert y.shape == of_base.shape == (0, 3, 5, 1, 23)
    assert of_x.shape == (0, 3, 5, 1, 19)
    assert of_weight.count_nonzero() == of_bias.count_nonzero() == 0
