"""The weighted sum of branches with the weights known first, against the published order: branches, mean, weights."""

from itertools import product

import pytest
import torch

from morphmlp.config.shapes import Chunks
from morphmlp.models.morphfc import FrameMorphFC, SpatialMorphFC
from morphmlp.models.published_form import as_published
from morphmlp.models.tiling import Tiling, as_wide

ALL = ("height", "width", "channel")
SUBSETS = (ALL, ("height", "width"), ("height", "channel"), ("width", "channel"))
PLACES = {
    "a part of a row": (Chunks(length=4, stage=1, side=8), (8, 8)),
    "a row": (Chunks(length=4, stage=2, side=4), (4, 4)),
    "two rows": (Chunks(length=8, stage=3, side=4), (4, 4)),
    "a frame": (Chunks(length=16, stage=4, side=4), (4, 4)),
    "strided": (Chunks(length=4, stage=4, side=4), (4, 4)),
    "strided, no square": (Chunks(length=4, stage=4), (6, 2)),
    "windows that fit": (Chunks(length=4, stage=1, side=8), (12, 4)),
    "windows of two rows": (Chunks(length=8, stage=3, side=4), (8, 8)),
    "windows of a frame": (Chunks(length=16, stage=4, side=4), (8, 4)),
    "a line that fits": (Chunks(length=4, stage=1, shape="padded_line", side=8), (6, 4)),
    "sides that fit": (Chunks(length=4, stage=1, shape="padded_side", side=8), (4, 8)),
    "windows, padded": (Chunks(length=4, stage=1, side=8), (7, 9)),
    "a line, padded": (Chunks(length=8, stage=3, shape="padded_line", side=4), (5, 5)),
    "sides, padded": (Chunks(length=4, stage=2, shape="padded_side", side=4), (3, 5)),
    "a line whose columns are no rectangles": (Chunks(length=8, stage=1, shape="padded_line", side=8), (6, 4)),
}
"""Chunks and the size of a map."""


def layer(chunks: Chunks, branches: tuple[str, ...], groups: int) -> SpatialMorphFC | FrameMorphFC:
    torch.manual_seed(0)
    if chunks.stage == 4:
        made = FrameMorphFC(16, chunks=chunks, branches=branches)
    else:
        made = SpatialMorphFC(16, chunks=chunks, groups=groups, branches=branches)
    return made.double()


def values_and_gradients(run, spatial, shape):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    spatial.zero_grad()
    y = run(x)
    y.backward(torch.randn(shape, dtype=torch.float64, generator=generator))
    return [y.detach(), x.grad, *(parameter.grad for parameter in spatial.parameters())]


@pytest.mark.parametrize("way", ["", "on a CPU", "as a compiler sees it"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("name", PLACES)
def test_values_and_gradients_are_those_of_the_published_order(name, times, way, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: way == "as a compiler sees it")
    chunks, (height, width) = PLACES[name]
    for branches, groups in [*product(SUBSETS, [chunks.length]), (ALL, 2)]:
        spatial = layer(chunks, branches, groups)
        if spatial.reweight is None:
            continue
        spatial.on_cpu = way == "on a CPU"
        shape = (2, times, height, width, 16)
        found = values_and_gradients(spatial, spatial, shape)
        expected = values_and_gradients(as_published(spatial), spatial, shape)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 14, 49], ids="{} channels a group".format)
@pytest.mark.parametrize("name", [name for name in PLACES if "padded" not in name])
def test_wide_copies_are_those_of_single_values(name, size, kind):
    chunks, (height, width) = PLACES[name]
    x = torch.randn(2, 3, height, width, 4 * size).to(kind)
    tilings = [Tiling.of(chunks, height, width, groups=4, by_columns=by_columns) for by_columns in (False, True)]
    assert tilings[0] is not None
    for tiling in filter(None, tilings):
        wide = as_wide(x, size)
        rows = tiling.gather(wide).contiguous().view(kind)
        assert rows.equal(tiling.gather(x))
        assert tiling.join(rows.view(wide.dtype), wide).contiguous().view(kind).equal(x)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_cpus_round_in_16_bit_no_more_than_the_published_order(kind):
    spatial = layer(*[PLACES["two rows"][0], ALL, 8]).float()
    x = torch.randn(4, 3, 8, 8, 16)
    exact = as_published(spatial)(x)

    def error(run):
        with torch.autocast("cpu", kind):
            return (run(x).float() - exact).square().mean().sqrt().item()

    published, by_chunk = error(as_published(spatial)), error(spatial)
    spatial.on_cpu = True
    assert error(spatial) < 1.05 * max(published, by_chunk)
