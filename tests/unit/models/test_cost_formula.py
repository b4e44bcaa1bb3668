"""The arithmetic of a network's cost against the counted network."""

from dataclasses import replace
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphmlp.config import ModelConfig
from morphmlp.models.cost import model_cost
from morphmlp.models.planned_cost import planned_cost
from morphmlp.models.presets import preset

BRANCHES = (None, ("height",), ("channel",), ("height", "width"), ("width", "channel"))


@st.composite
def networks(draw):
    crop, frames = draw(st.sampled_from([32, 48, 64])), draw(st.integers(1, 9))
    dims = draw(st.lists(st.integers(2, 20).map(lambda half: 4 * half), min_size=4, max_size=4))
    chunks = [gcd(channels, (crop // size) ** 2) for channels, size in zip(dims, (4, 8, 16, 32), strict=True)]
    depths = draw(st.lists(st.integers(1, 2), min_size=4, max_size=4))
    model = ModelConfig(
        depths=tuple(depths),
        embed_dims=tuple(dims),
        chunk_lengths=tuple(chunks) if crop != 48 else (1, 1, 1, 1),
        mlp_ratio=draw(st.sampled_from([1.0, 2.5, 3.0])),
        drop_path_rate=0.0,
        num_classes=draw(st.integers(2, 9)),
        temporal=draw(st.sampled_from(["mixed", "averaged", "none"])),
        branches=draw(st.sampled_from(BRANCHES)),
        init="published",
    )
    return model, {"num_frames": frames, "crop_size": crop}


@given(networks())
@settings(max_examples=40)
def test_any_network_costs_what_is_counted(network):
    model, sizes = network
    planned, counted = planned_cost(model, **sizes), model_cost(model, **sizes)
    assert planned.params == counted.params
    assert planned.gmacs == pytest.approx(counted.gmacs, rel=1e-12)


def test_chunk_lengths_cost_nothing():
    chosen = preset("morphmlp_s_16x4")
    other = replace(chosen.model, chunk_lengths=(7, 14, 14, 7))
    sizes = {"num_frames": chosen.num_frames, "crop_size": chosen.crop_size}
    assert planned_cost(other, **sizes) == planned_cost(chosen.model, **sizes)
