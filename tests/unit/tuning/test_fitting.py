"""Sizes moved to the nearest that fit, or into a budget."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_mapping
from morphmlp.config.shapes import shape_faults
from morphmlp.config.sweep import BudgetConfig
from morphmlp.models.cost_formula import planned_cost
from morphmlp.tuning.fitting import Sizes, brought_inside, deepened, divisors, nearest_values, sizes_of, widened

S = load_config(Path(__file__).parents[3] / "experiments" / "k400" / "morphmlp_s_16x4.yaml")
SIZES = Sizes.of(S)


def cost(sizes):
    return planned_cost(sizes.model, num_frames=sizes.num_frames, crop_size=sizes.crop_size)


def mapping(**model):
    content = config_to_mapping(S)
    content["model"] |= model
    return content


def test_sizes_are_read_and_broken_rules_are_told():
    assert sizes_of(mapping()) == (SIZES, [])
    _, faults = sizes_of(mapping(chunk_lengths=[13, 28, 28, 49]))
    assert faults[0].startswith("model.chunk_lengths: stage 1: chunk length 13 must divide")


def test_what_cannot_be_read_is_left_to_the_schema():
    assert sizes_of(mapping(depths="many")) == (None, [])
    assert sizes_of({}) == (None, [])


@given(st.lists(st.integers(1, 400), min_size=4, max_size=4))
def test_moved_chunk_lengths_are_possible_and_none_possible_is_nearer(chunks):
    values = {"model.chunk_lengths": chunks}
    moved = nearest_values(values, mapping(chunk_lengths=chunks))["model.chunk_lengths"]
    assert shape_faults(embed_dims=S.model.embed_dims, chunk_lengths=moved, crop_size=224) == []
    if not shape_faults(embed_dims=S.model.embed_dims, chunk_lengths=chunks, crop_size=224):
        assert moved == chunks


def test_only_swept_fields_are_moved():
    assert nearest_values({"optim.lr": 1.0}, mapping(chunk_lengths=[13, 28, 28, 49])) == {"optim.lr": 1.0}


def test_widths_are_moved_where_chunk_lengths_stay():
    moved = nearest_values({"model.embed_dims": [110, 220, 390, 780]}, mapping(embed_dims=[110, 220, 390, 780]))
    assert moved == {"model.embed_dims": [112, 224, 392, 784]}


def test_divisors_ascend():
    assert divisors(28) == [1, 2, 4, 7, 14, 28]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3, 2.0])
def test_a_wider_network_keeps_the_shape_rules(factor):
    wider = widened(S.model, factor)
    assert shape_faults(embed_dims=wider.embed_dims, chunk_lengths=wider.chunk_lengths, crop_size=224) == []
    for before, after in zip(S.model.embed_dims, wider.embed_dims, strict=True):
        assert after == pytest.approx(before * factor, abs=49)


def test_a_deeper_network_has_a_block_in_every_stage_at_least():
    assert deepened(S.model, 2.0).depths == tuple(2 * depth for depth in S.model.depths)
    assert deepened(S.model, 0.01).depths == (1, 1, 1, 1)


@pytest.mark.parametrize("adjust", ["depths", "embed_dims"])
def test_a_network_is_brought_into_the_budget_by_the_least_change(adjust):
    budget = BudgetConfig(gmacs=(90, 110), adjust=adjust)
    fitted = brought_inside(SIZES, budget, cost)
    assert 90 <= cost(fitted).gmacs <= 110
    assert replace(fitted.model, **{adjust: getattr(S.model, adjust)}) == S.model
    assert brought_inside(fitted, budget, cost) == fitted


def test_a_budget_that_no_network_meets_gives_none():
    assert brought_inside(SIZES, BudgetConfig(gmacs=(66.4, 66.41), adjust="depths"), cost) is None
