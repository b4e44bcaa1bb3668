"""The published recipe: parameter groups, learning rates, label mixing, loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from morphmlp.config.schema import MixingConfig, OptimConfig
from morphmlp.models import build_model
from morphmlp.training.loop.recipe import (
    build_optimizer,
    cutmix_box,
    learning_rate,
    mix,
    parameter_groups,
    soft_target_loss_sum,
    soft_targets,
)

K400 = OptimConfig(lr=2e-4, min_lr=1e-6, warmup_epochs=10, weight_decay=0.05, clip_norm=20.0)
BOTH = MixingConfig(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
ONLY_MIXUP, ONLY_CUTMIX = replace(BOTH, cutmix=0.0), replace(BOTH, mixup=0.0)
NEITHER = replace(BOTH, mixup=0.0, cutmix=0.0)


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


def test_smoothing_takes_a_share_from_the_true_class():
    targets = soft_targets(torch.tensor([2, 0]), num_classes=4, label_smoothing=0.1)
    assert targets.flatten().tolist() == pytest.approx([0.025, 0.025, 0.925, 0.025, 0.925, 0.025, 0.025, 0.025])


def test_without_smoothing_targets_are_one_and_zero():
    assert soft_targets(torch.tensor([1]), num_classes=3, label_smoothing=0.0).tolist() == [[0, 1, 0]]


def test_the_loss_of_smoothed_targets_is_pytorchs():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 5, generator=generator), torch.tensor([0, 1, 2, 3, 4, 0])
    ours = soft_target_loss_sum(logits, soft_targets(labels, num_classes=5, label_smoothing=0.1))
    theirs = functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_the_loss_of_low_precision_logits_is_computed_in_full_precision():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = soft_targets(torch.tensor([0, 1, 2, 3]), num_classes=5, label_smoothing=0.0)
    assert soft_target_loss_sum(logits, targets).item() == soft_target_loss_sum(logits.float(), targets).item()


def numbered_clips(count=4, t=2, side=8):
    """Clip i is i everywhere, so that a mixed pixel says whose it is."""
    return torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1, 1).expand(count, 3, t, side, side).clone()


def one_hot(count=4):
    return torch.eye(count)


def mixed(mixing, seed, count=4):
    return mix(numbered_clips(count), one_hot(count), mixing=mixing, rng=np.random.default_rng(seed))


@given(st.integers(0, 2**32), st.sampled_from([BOTH, ONLY_MIXUP, ONLY_CUTMIX]), st.integers(1, 5))
def test_labels_are_mixed_by_the_share_of_pixels(seed, mixing, count):
    clips, targets = mixed(mixing, seed, count)
    partner = torch.arange(count).flip(0)
    own = torch.arange(count)
    # The mean pixel of clip i is share * i + (1 - share) * partner; so is the target's.
    means = clips.mean(dim=(1, 2, 3, 4))
    assert torch.allclose(means, targets @ own.float(), atol=1e-4)
    assert torch.allclose(targets.sum(dim=1), torch.ones(count))
    for clip, other in zip(own.tolist(), partner.tolist(), strict=True):
        rest = [k for k in range(count) if k not in (clip, other)]
        assert targets[clip, rest].sum() == 0


@given(st.integers(0, 2**32))
def test_mixup_is_one_share_for_all_clips_frames_and_pixels(seed):
    clips, targets = mixed(ONLY_MIXUP, seed)
    share = targets[0, 0].item()
    assert 0 <= share <= 1
    own, other = numbered_clips(), numbered_clips().flip(0)
    assert torch.allclose(clips, share * own + (1 - share) * other, atol=1e-5)


@given(st.integers(0, 2**32))
def test_cutmix_is_one_box_for_all_clips_and_frames(seed):
    clips, _ = mixed(ONLY_CUTMIX, seed)
    own = torch.arange(4).reshape(4, 1, 1, 1, 1)
    taken = clips != own
    assert ((clips == own) | (clips == own.flip(0))).all()
    assert (taken == taken[:1, :1, :1]).all()
    rows, columns = taken[0, 0, 0].any(dim=1), taken[0, 0, 0].any(dim=0)
    assert taken[0, 0, 0].sum() == rows.sum() * columns.sum()


def test_a_fair_coin_chooses_between_mixup_and_cutmix():
    def is_cutmix(seed):
        clips, _ = mixed(BOTH, seed)
        return bool((clips == clips.round()).all())

    assert np.mean([is_cutmix(seed) for seed in range(400)]) == pytest.approx(0.5, abs=0.08)


def test_shares_follow_the_beta_law_of_the_recipe():
    shares = [mixed(ONLY_MIXUP, seed)[1][0, 0].item() for seed in range(600)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.015)


def test_without_mixing_nothing_changes():
    clips, targets = mixed(NEITHER, 0)
    assert torch.equal(clips, numbered_clips())
    assert torch.equal(targets, one_hot())


def test_mixing_leaves_its_inputs_alone():
    for mixing in (ONLY_MIXUP, ONLY_CUTMIX):
        clips, targets = numbered_clips(), one_hot()
        mix(clips, targets, mixing=mixing, rng=np.random.default_rng(3))
        assert torch.equal(clips, numbered_clips())
        assert torch.equal(targets, one_hot())


def test_the_same_key_mixes_alike():
    assert torch.equal(mixed(BOTH, 7)[0], mixed(BOTH, 7)[0])


@given(st.floats(0, 1), st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_a_cutmix_box_lies_in_the_frame_and_covers_no_more_than_its_share(share, height, width, seed):
    rows, columns = cutmix_box(share, height=height, width=width, rng=np.random.default_rng(seed))
    assert 0 <= rows.start <= rows.stop <= height
    assert 0 <= columns.start <= columns.stop <= width
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    assert area <= (1 - share) * height * width + 1e-6


def test_a_cutmix_box_away_from_the_border_has_the_published_sides():
    rng = np.random.default_rng(0)
    boxes = [cutmix_box(0.75, height=200, width=100, rng=rng) for _ in range(200)]
    sides = {(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes}
    assert max(sides) == (100, 50)
