"""Sizes moved to the nearest that fit, or into a budget."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.config import load_config
from morphmlp.config.shapes import shape_faults, temporal_groups
from morphmlp.config.sweep import BudgetConfig
from morphmlp.models.planned_cost import planned_cost
from morphmlp.tuning.space import fitting
from morphmlp.tuning.space.fitting import (
    SCALES,
    Sizes,
    brought_inside,
    nearest_to_budget,
    nearest_values,
    scaled,
    width_unit,
)

S = load_config(Path(__file__).parents[4] / "experiments" / "k400" / "morphmlp_s_16x4.yaml")
SIZES = Sizes.of(S)


def deepened(sizes, factor):
    return next(scaled(sizes, "depths", [factor]))


def widened(sizes, factor):
    return next(scaled(sizes, "embed_dims", [factor]))


def cost(sizes):
    return planned_cost(sizes.model, num_frames=sizes.num_frames, crop_size=sizes.crop_size)


def with_model(**fields):
    return replace(SIZES, model=replace(S.model, **fields))


@given(st.lists(st.integers(1, 400), min_size=4, max_size=4))
def test_moved_chunk_lengths_are_possible_and_none_possible_is_nearer(chunks):
    sizes = with_model(chunk_lengths=tuple(chunks))
    moved = nearest_values({"model.chunk_lengths": chunks}, sizes)["model.chunk_lengths"]
    for asked, got, channels, grid in zip(chunks, moved, S.model.embed_dims, (56, 28, 14, 7), strict=True):
        possible = [n for n in range(1, channels + 1) if channels % n == 0 and grid**2 % n == 0]
        assert got in possible
        assert abs(math.log(got / asked)) == min(abs(math.log(n / asked)) for n in possible)


def test_only_swept_fields_are_moved():
    assert nearest_values({"optim.lr": 1.0}, with_model(chunk_lengths=(13, 28, 28, 49))) == {"optim.lr": 1.0}


def test_chunk_lengths_are_moved_rather_than_widths_where_both_are_swept():
    values = {"model.embed_dims": [110, 224, 392, 784], "model.chunk_lengths": [14, 28, 28, 49]}
    moved = nearest_values(values, with_model(embed_dims=(110, 224, 392, 784)))
    assert moved == {"model.embed_dims": [110, 224, 392, 784], "model.chunk_lengths": [2, 28, 28, 49]}


def test_widths_are_moved_where_chunk_lengths_stay():
    dims = [110, 220, 390, 780]
    moved = nearest_values({"model.embed_dims": dims}, with_model(embed_dims=tuple(dims)))
    assert moved == {"model.embed_dims": [112, 224, 392, 784]}


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3, 2.0])
def test_a_wider_network_keeps_the_shape_rules(factor):
    wider = widened(SIZES, factor).model
    assert shape_faults(embed_dims=wider.embed_dims, chunk_lengths=wider.chunk_lengths, crop_size=224) == []
    for before, after in zip(S.model.embed_dims, wider.embed_dims, strict=True):
        assert after == pytest.approx(before * factor, abs=49)


def test_the_factor_one_changes_nothing():
    assert widened(SIZES, 1.0) == deepened(SIZES, 1.0) == SIZES


@given(st.integers(1, 60).map(lambda half: 2 * half), st.sampled_from([1, 2, 4]), st.integers(1, 16), st.integers(1, 9))
def test_any_multiple_of_a_width_unit_keeps_more_than_half_of_the_temporal_groups(channels, chunk, tokens, times):
    if channels % chunk:
        return
    unit = width_unit(channels, chunk, tokens)
    assert (channels % unit, unit % 2, unit % chunk) == (channels % math.lcm(2, chunk), 0, 0)
    if channels % math.lcm(2, chunk) == 0:
        assert 2 * temporal_groups(times * unit, tokens) > temporal_groups(channels, tokens)


def test_widths_of_few_divisors_are_passed_over_where_frames_are_mixed():
    sizes = with_model(embed_dims=(32, 32, 64, 64), chunk_lengths=(1, 1, 1, 1))
    assert widened(sizes, 34 / 32).model.embed_dims == (32, 32, 72, 72)
    image = replace(sizes, model=replace(sizes.model, temporal="none"))
    assert widened(image, 34 / 32).model.embed_dims == (34, 34, 68, 68)


def test_a_deeper_network_has_a_block_in_every_stage_at_least():
    assert deepened(SIZES, 2.0).model.depths == tuple(2 * depth for depth in S.model.depths)
    assert deepened(SIZES, 0.01).model.depths == (1, 1, 1, 1)


@pytest.mark.parametrize("adjust", ["depths", "embed_dims"])
def test_a_network_is_brought_into_the_budget_by_the_least_change(adjust):
    budget = BudgetConfig(gmacs=(90, 110), adjust=adjust)
    fitted = brought_inside(SIZES, budget, cost)
    assert 90 <= cost(fitted).gmacs <= 110
    assert replace(fitted.model, **{adjust: getattr(S.model, adjust)}) == S.model
    assert brought_inside(fitted, budget, cost) == fitted


def test_a_budget_that_no_network_meets_gives_none():
    assert brought_inside(SIZES, BudgetConfig(gmacs=(66.4, 66.41), adjust="depths"), cost) is None


def test_a_network_that_no_factor_brings_inside_is_brought_as_near_as_can_be():
    budget = BudgetConfig(gmacs=(66.4, 66.41), adjust="depths")
    half = deepened(SIZES, 0.5)
    nearest = nearest_to_budget(half, budget, cost)
    others = [cost(deepened(half, factor)).gmacs for factor in SCALES]
    assert min(abs(gmacs - 66.4) for gmacs in others) == abs(cost(nearest).gmacs - 66.4)


def test_the_bound_that_is_missed_by_most_decides_what_is_nearest():
    budget = BudgetConfig(gmacs=(0, 1000), params=(0, 0.001), adjust="depths")
    assert nearest_to_budget(SIZES, budget, cost).model.depths == (1, 1, 1, 1)


def test_a_latency_is_the_median_of_passes_after_warming_up(monkeypatch):
    ticks = iter([0.0, 9.0] * fitting.WARM_UP + [0.0, 0.001, 0.0, 0.002, 0.0, 0.003, 0.0, 0.004, 0.0, 5.0])
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: next(ticks))
    small = load_config(Path(__file__).parents[2] / "small_experiment.yaml")
    assert fitting.measured_latency_ms(Sizes.of(small)) == pytest.approx(3.0)
