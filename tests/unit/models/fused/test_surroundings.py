"""Fused kernels under what training lays over a block: recomputation, compilation, data parallelism, copies."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from morphmlp.config.shapes import Chunks
from morphmlp.models.backbone import Block
from morphmlp.models.fused import channel_ops, norm_ops, ops
from morphmlp.models.fused.form import as_fused
from morphmlp.models.morphfc import SpatialMorphFC, TemporalMorphFC

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def shapes_are_checked():
    """Not here: checks can't be compiled."""


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    spatial = SpatialMorphFC(8, chunks=Chunks(length=4, stage=2, side=4))
    temporal = TemporalMorphFC(8, tokens=4, groups=4)
    made = Block(8, spatial=spatial, temporal=temporal, hidden=16, drop_path_rate=0.0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.double()


@pytest.fixture
def fused(plain, monkeypatch):
    for module in (ops, channel_ops, norm_ops):
        monkeypatch.setattr(module, "GRADIENT_PROGRAMS", 2)
    return as_fused(copy.deepcopy(plain))


def gradients(run, module, clips=1):
    x = torch.randn(clips, 4, 4, 4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    module.zero_grad()
    torch._dynamo.maybe_mark_dynamic(x, 0)
    y = run(x.requires_grad_())
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype))
    return {"y": y.detach(), **{name.removeprefix("module."): one.grad for name, one in module.named_parameters()}}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_recomputed_block_has_the_same_gradients(fused, plain):
    close(gradients(lambda x: checkpoint(fused, x, use_reentrant=False), fused), gradients(plain, plain))


def test_a_compiled_block_has_the_same_gradients_for_any_number_of_clips(fused, plain):
    torch.compiler.reset()
    compiled = torch.compile(fused, backend="aot_eager", dynamic=False, fullgraph=True)
    for clips in (2, 3):
        close(gradients(compiled, fused, clips), gradients(plain, plain, clips))


def test_data_parallelism_has_the_same_gradients(fused, plain, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        network = DistributedDataParallel(fused, gradient_as_bucket_view=True)
        found = gradients(network, network)
    finally:
        dist.destroy_process_group()
    close(found, gradients(plain, plain))


def test_a_copy_has_weights_of_its_own(fused):
    other = copy.deepcopy(fused)
    x = torch.ones(1, 4, 4, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        before = fused(x)
        other.mlp.fc2.bias.add_(1.0)
        assert fused(x).equal(before)
        torch.testing.assert_close(other(x), before + 1.0)
