"""The published recipe: parameter groups and learning rates."""

from dataclasses import replace

import pytest
import torch

from morphmlp.config.schema import OptimConfig
from morphmlp.models import build_model
from morphmlp.training.loop.recipe import (
    build_optimizer,
    learning_rate,
    parameter_groups,
)

K400 = OptimConfig(lr=2e-4, min_lr=1e-6, warmup_epochs=10, weight_decay=0.05, clip_norm=20.0)


@pytest.mark.parametrize(
    ("epoch", "published"),
    [(1, 2.09e-5), (5, 1.005e-4), (10, 2e-4), (20, 1.81e-4), (30, 1.312e-4), (45, 4.20e-5), (59, 1.20e-6)],
)
def test_learning_rates_are_the_published_ones(epoch, published):
    # Published with three or four digits; the rounding of the last one is allowed for.
    assert learning_rate(epoch, epochs=60, optim=K400) == pytest.approx(published, rel=5e-3)


def test_the_learning_rate_starts_and_ends_at_its_least_value():
    assert learning_rate(0, epochs=60, optim=K400) == 1e-6
    assert learning_rate(60, epochs=60, optim=K400) == pytest.approx(1e-6)


def test_the_learning_rate_changes_inside_an_epoch():
    assert learning_rate(0.5, epochs=60, optim=K400) == pytest.approx(1e-6 + (2e-4 - 1e-6) / 20)


def test_the_learning_rate_has_no_jump_at_the_end_of_the_warm_up():
    before, after = (learning_rate(10 + shift, epochs=60, optim=K400) for shift in (-1e-6, 1e-6))
    assert before == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize(("warmup", "epochs"), [(0, 5), (5, 5)])
def test_a_recipe_may_be_all_warm_up_or_have_none(warmup, epochs):
    optim = replace(K400, warmup_epochs=warmup)
    rates = [learning_rate(epoch / 10, epochs=epochs, optim=optim) for epoch in range(epochs * 10 + 1)]
    assert all(1e-6 <= rate <= 2e-4 for rate in rates)
    assert max(rates) == pytest.approx(2e-4)
    assert rates[0] == pytest.approx(1e-6 if warmup else 2e-4)


@pytest.mark.parametrize(("name", "sizes"), [("morphmlp_s_16x4", (4, 193, 315)), ("morphmlp_b_16x4", (4, 292, 474))])
def test_parameter_groups_have_the_published_sizes_and_order(name, sizes):
    with torch.device("meta"):
        model = build_model(name)
    optimizer = build_optimizer(model, K400)
    assert tuple(len(group["params"]) for group in optimizer.param_groups) == sizes
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.05, 0.0]


def test_every_parameter_is_in_one_group_and_only_matrices_decay():
    with torch.device("meta"):
        model = build_model("morphmlp_s_16x4")
    batch_norm, decayed, undecayed = parameter_groups(model)
    together = [id(parameter) for group in (batch_norm, decayed, undecayed) for parameter in group]
    assert sorted(together) == sorted(map(id, model.parameters()))
    assert {parameter.ndim > 1 for parameter in decayed} == {True}
    assert {parameter.ndim for parameter in (*batch_norm, *undecayed)} == {1}


def test_the_optimiser_is_the_published_one():
    (group, *_) = build_optimizer(torch.nn.Linear(2, 2), K400).param_groups
    assert (group["betas"], group["eps"], group["lr"]) == ((0.9, 0.999), 1e-8, 2e-4)
