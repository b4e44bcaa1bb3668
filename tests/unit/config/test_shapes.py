"""The integer arithmetic of shapes against the layers that it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, zeros

from morphmlp.config.shapes import shape_faults, stage_grids, temporal_groups, temporal_tokens

WIDTHS = (112, 224, 392, 784)
PUBLISHED_CHUNKS = (14, 28, 28, 49)


def conv_sides(side, count):
    halve = nn.Conv1d(1, 1, kernel_size=3, stride=2, padding=1)
    x, sides = zeros(1, 1, side), []
    for _ in range(count):
        x = halve(x)
        sides.append(x.shape[-1])
    return tuple(sides)


@given(st.integers(1, 500))
def test_stage_grids_are_what_five_halving_convolutions_give(crop_size):
    assert stage_grids(crop_size) == conv_sides(crop_size, 5)[1:]


@given(st.integers(1, 200))
def test_temporal_tokens_are_what_one_halving_convolution_gives(num_frames):
    assert (temporal_tokens(num_frames),) == conv_sides(num_frames, 1)


def test_the_published_crop_gives_the_published_grids():
    assert stage_grids(224) == (56, 28, 14, 7)


@pytest.mark.parametrize(("num_frames", "published"), [(16, (8, 8, 8, 8)), (32, (16, 16, 14, 16))])
def test_temporal_groups_are_the_published_ones(num_frames, published):
    assert tuple(temporal_groups(width, temporal_tokens(num_frames)) for width in WIDTHS) == published


@given(st.integers(1, 900), st.integers(1, 40))
def test_temporal_groups_divide_the_channels_and_no_larger_divisor_fits(channels, tokens):
    groups = temporal_groups(channels, tokens)
    assert groups == [divisor for divisor in range(1, tokens + 1) if channels % divisor == 0][-1]


@pytest.mark.parametrize("crop_size", [221, 222, 223, 224, 445, 448, 669, 672, 893, 896])
def test_the_published_network_runs_on_the_measured_sizes(crop_size):
    assert shape_faults(embed_dims=WIDTHS, chunk_lengths=PUBLISHED_CHUNKS, crop_size=crop_size) == []


@pytest.mark.parametrize("crop_size", [112, 220, 225, 256, 320, 336, 384, 512])
def test_the_published_network_is_refused_on_the_sizes_that_fail(crop_size):
    assert shape_faults(embed_dims=WIDTHS, chunk_lengths=PUBLISHED_CHUNKS, crop_size=crop_size)


def test_every_stage_that_does_not_fit_is_named_with_both_reasons():
    faults = shape_faults(embed_dims=(112, 224, 392, 784), chunk_lengths=(14, 27, 28, 50), crop_size=224)
    assert faults == [
        "model.chunk_lengths: stage 2: chunk length 27 must divide the stage's 224 channels (model.embed_dims)",
        "model.chunk_lengths: stage 2: chunk length 27 must divide its 784 tokens (28x28 at clip.crop_size 224)",
        "model.chunk_lengths: stage 4: chunk length 50 must divide the stage's 784 channels (model.embed_dims)",
        "model.chunk_lengths: stage 4: chunk length 50 must divide its 49 tokens (7x7 at clip.crop_size 224)",
    ]
