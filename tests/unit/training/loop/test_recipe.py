"""The published recipe: parameter groups and learning rates."""

import math
from dataclasses import replace

import pytest
import torch

from morphmlp.config.schema import OptimConfig
from morphmlp.models import build_model
from morphmlp.training.loop.length import Length
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
    assert learning_rate(epoch, whole=60, optim=K400) == pytest.approx(published, rel=5e-3)


def test_the_learning_rate_starts_and_ends_at_its_least_value():
    assert learning_rate(0, whole=60, optim=K400) == 1e-6
    assert learning_rate(60, whole=60, optim=K400) == pytest.approx(1e-6)


def test_the_learning_rate_changes_inside_an_epoch():
    assert learning_rate(0.5, whole=60, optim=K400) == pytest.approx(1e-6 + (2e-4 - 1e-6) / 20)


def test_the_learning_rate_has_no_jump_at_the_end_of_the_warm_up():
    before, after = (learning_rate(10 + shift, whole=60, optim=K400) for shift in (-1e-6, 1e-6))
    assert before == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize(("warmup", "epochs"), [(0, 5), (5, 5)])
def test_a_recipe_may_be_all_warm_up_or_have_none(warmup, epochs):
    optim = replace(K400, warmup_epochs=warmup)
    rates = [learning_rate(epoch / 10, whole=epochs, optim=optim) for epoch in range(epochs * 10 + 1)]
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


def mmcv_rate(step, *, steps, lr, warmup_steps, warmup_ratio, regular):
    """mmcv's `LrUpdaterHook.before_train_iter` with `by_epoch=False` and `warmup='linear'`, as it is written."""
    if step >= warmup_steps:
        return regular(step, steps, lr)
    k = (1 - step / warmup_steps) * (1 - warmup_ratio)
    return regular(step, steps, lr) * (1 - k)


def mmcv_poly(power, min_lr=0.0):
    """`PolyLrUpdaterHook.get_lr`."""

    def regular(progress, max_progress, base_lr):
        coeff = (1 - progress / max_progress) ** power
        return (base_lr - min_lr) * coeff + min_lr

    return regular


def mmcv_cosine(min_lr_ratio):
    """`CosineAnnealingLrUpdaterHook.get_lr`."""

    def regular(progress, max_progress, base_lr):
        target_lr = base_lr * min_lr_ratio
        cos_out = math.cos(math.pi * (progress / max_progress)) + 1
        return target_lr + 0.5 * (base_lr - target_lr) * cos_out

    return regular


MMSEG = [
    # Swin's UPerNet, UniFormer's and PVT's Semantic FPN; a least rate above 0; all warm-up.
    pytest.param(160_000, 6e-5, 1_500, 1e-6, ("poly", 1.0, 0.0), id="upernet"),
    pytest.param(80_000, 2e-4, 1_000, 0.1, ("cosine", None, 1e-8), id="uniformer fpn"),
    pytest.param(40_000, 1e-4, 0, 1.0, ("poly", 0.9, 0.0), id="pvt fpn"),
    pytest.param(500, 1e-2, 100, 1e-3, ("poly", 0.9, 0.01), id="least rate"),
    pytest.param(50, 1e-2, 50, 0.5, ("cosine", None, 0.1), id="all warm-up"),
]


@pytest.mark.parametrize(("steps", "lr", "warmup_steps", "warmup_ratio", "schedule"), MMSEG)
def test_rates_of_segmentation_are_those_of_mmcvs_hooks(steps, lr, warmup_steps, warmup_ratio, schedule):
    kind, power, least = schedule
    optim = OptimConfig(
        lr=lr,
        min_lr=lr * least,
        warmup_steps=warmup_steps,
        warmup_lr=lr * warmup_ratio,
        weight_decay=0.01,
        clip_norm=None,
        schedule=kind,
        power=power,
    )
    regular = mmcv_poly(power, lr * least) if kind == "poly" else mmcv_cosine(least)
    some = sorted(
        {*range(0, steps, max(1, steps // 997)), *range(max(warmup_steps - 2, 0), warmup_steps + 2), steps - 1}
    )
    for step in (step for step in some if step < steps):
        expected = mmcv_rate(
            step, steps=steps, lr=lr, warmup_steps=warmup_steps, warmup_ratio=warmup_ratio, regular=regular
        )
        assert learning_rate(step, whole=steps, optim=optim) == pytest.approx(expected, rel=1e-12), step
    assert learning_rate(0, whole=steps, optim=optim) == pytest.approx(lr * (warmup_ratio if warmup_steps else 1))


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_poly_is_torchs_polynomial_schedule(power):
    optim = replace(K400, lr=0.1, min_lr=0.0, warmup_epochs=None, warmup_steps=0, schedule="poly", power=power)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=200, power=power)
    for step in range(201):
        (theirs,) = scheduler.get_last_lr()
        assert learning_rate(step, whole=200, optim=optim) == pytest.approx(theirs, rel=1e-9, abs=1e-15)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("schedule", "power"), [("steps", None), ("cosine", None), ("poly", 0.9)])
def test_a_length_in_epochs_or_as_many_steps_has_the_same_rates(schedule, power):
    in_epochs = replace(K400, schedule=schedule, power=power)
    in_steps = replace(in_epochs, warmup_epochs=None, warmup_steps=70)
    epochs = Length(steps_per_epoch=7, whole=60)
    steps = Length(steps_per_epoch=7, unit="step", whole=420, validate_every=7)
    for step in range(421):
        one, other = (
            learning_rate(length.position(step), whole=length.whole, optim=optim)
            for length, optim in ((epochs, in_epochs), (steps, in_steps))
        )
        assert one == pytest.approx(other, rel=1e-12)
