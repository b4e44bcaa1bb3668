"""The axis changes of the MorphFC layers against naive index loops."""

from itertools import product

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import nn

from morphmlp.config.shapes import Chunks
from morphmlp.models import morphfc
from morphmlp.models.morphfc import FrameMorphFC, Mlp, SpatialMorphFC, TemporalMorphFC, branch_sum

SIZES = st.integers(1, 4)


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


@given(height=SIZES, width=SIZES)
def test_rows_and_columns_number_the_tokens_and_come_back(height, width):
    x = numbered(2, 2, height, width, 3)
    rows, columns = rearrange(x, morphfc.TO_ROWS), rearrange(x, morphfc.TO_COLUMNS)
    for row, column in product(range(height), range(width)):
        assert rows[:, :, row * width + column].equal(x[:, :, row, column])
        assert columns[:, :, column * height + row].equal(x[:, :, row, column])
    assert rearrange(rows, morphfc.FROM_ROWS, h=height, w=width).equal(x)
    assert rearrange(columns, morphfc.FROM_COLUMNS, h=height, w=width).equal(x)


@given(chunks=SIZES, size=SIZES, groups=SIZES, channels=SIZES)
def test_chunks_hold_consecutive_tokens_of_one_group_and_come_back(chunks, size, groups, channels):
    x = numbered(1, 2, chunks * size, groups * channels)
    y = rearrange(x, morphfc.TO_CHUNKS, l=size, g=groups)
    for n, i, g, s in product(range(chunks), range(size), range(groups), range(channels)):
        assert y[:, :, n, g, i * channels + s].equal(x[:, :, n * size + i, g * channels + s])
    assert rearrange(y, morphfc.FROM_CHUNKS, l=size, g=groups).equal(x)


@given(chunks=SIZES, size=SIZES, groups=SIZES, channels=SIZES)
def test_strided_chunks_hold_tokens_that_lie_apart_and_come_back(chunks, size, groups, channels):
    x = numbered(1, 2, chunks * size, groups * channels)
    y = rearrange(x, morphfc.TO_STRIDED_CHUNKS, l=size, g=groups)
    for n, i, g, s in product(range(chunks), range(size), range(groups), range(channels)):
        assert y[:, :, g, n, i * channels + s].equal(x[:, :, i * chunks + n, g * channels + s])
    assert rearrange(y, morphfc.FROM_STRIDED_CHUNKS, l=size, g=groups).equal(x)


@given(times=SIZES, groups=SIZES, channels=SIZES)
def test_time_meets_in_one_group_and_comes_back(times, groups, channels):
    x = numbered(2, times, 2, 3, groups * channels)
    y = rearrange(x, morphfc.TO_TIME, g=groups)
    for t, g, s in product(range(times), range(groups), range(channels)):
        assert y[:, :, :, g, t * channels + s].equal(x[:, t, :, :, g * channels + s])
    assert rearrange(y, morphfc.FROM_TIME, t=times).equal(x)


def touched(layer: nn.Module, place: tuple[int, int, int], shape: tuple[int, ...]) -> set[tuple[int, int, int]]:
    """The (t, h, w) whose output changes with the input at `place`; the branch weights are kept even."""
    nn.init.zeros_(layer.reweight.fc2.weight)
    nn.init.zeros_(layer.reweight.fc2.bias)
    x = torch.randn(shape)
    changed = x.clone()
    changed[(0, *place)] += 1
    with torch.no_grad():
        moved = (layer(changed) - layer(x)).abs().amax(dim=(0, -1)) > 1e-6
    return {tuple(where) for where in moved.nonzero().tolist()}


def test_a_chunk_reaches_over_two_rows_and_two_columns_where_it_is_longer_than_a_row():
    layer = SpatialMorphFC(16, chunks=Chunks(length=8, stage=3))
    reached = touched(layer, (1, 0, 1), (1, 2, 4, 4, 16))
    rows = {(1, row, column) for row in (0, 1) for column in range(4)}
    columns = {(1, row, column) for row in range(4) for column in (0, 1)}
    assert reached == rows | columns


def test_the_last_stage_reaches_the_whole_frame_and_no_other():
    reached = touched(FrameMorphFC(16, chunks=Chunks(length=16, stage=4)), (1, 0, 1), (1, 2, 4, 4, 16))
    assert reached == {(1, row, column) for row in range(4) for column in range(4)}


def test_the_last_stage_strides_over_the_frame_when_it_has_more_tokens_than_a_chunk():
    reached = touched(FrameMorphFC(16, chunks=Chunks(length=4, stage=4)), (0, 0, 1), (1, 1, 4, 4, 16))
    assert reached == {(0, row, 1) for row in range(4)}


def test_the_temporal_layer_is_as_wide_as_the_published_one_where_groups_and_tokens_differ():
    layer = TemporalMorphFC(392, tokens=16, groups=14)
    assert layer.mlp_t.weight.shape == (448, 448)
    assert layer.proj.weight.shape == (392, 392)
    assert layer(torch.zeros(1, 16, 1, 1, 392)).shape == (1, 16, 1, 1, 392)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (12, 4), (28, 4), (392, 8), (6, 2)])
def test_the_temporal_layer_is_the_same_bit_for_bit_with_copies_for_cpus(channels, groups, kind):
    torch.manual_seed(0)
    layer = TemporalMorphFC(channels, tokens=4, groups=groups).to(kind)
    x = torch.randn(2, 4, 3, 5, channels).to(kind).requires_grad_()
    found = []
    for layer.on_cpu in (False, True):
        layer.zero_grad()
        y = layer(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    assert all(ours.equal(plain) for plain, ours in zip(*found, strict=True))


def test_the_branch_weights_are_a_softmax_over_branches_for_each_clip_and_channel():
    branches = [torch.randn(2, 2, 3, 3, 4) for _ in range(3)]
    reweight = Mlp(4, 2, 12)
    scores = reweight(sum(branches).mean(dim=(1, 2, 3)))
    expected = torch.zeros_like(branches[0])
    for b, c in product(range(2), range(4)):
        share = scores[b, 3 * c : 3 * c + 3].softmax(0)
        for k in range(3):
            expected[b, ..., c] += share[k] * branches[k][b, ..., c]
    torch.testing.assert_close(branch_sum(branches, reweight), expected)


def test_shape_annotations_are_checked_in_these_tests():
    with pytest.raises(TypeCheckError, match=r"f32\[2,8\]"):
        TemporalMorphFC(8, tokens=2, groups=2)(torch.zeros(2, 8))
