"""Classification: soft targets, label mixing, loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from morphmlp.config.schema import MixingConfig
from morphmlp.tasks.classification import cutmix_box, mix, soft_target_loss_sum, soft_targets

BOTH = MixingConfig(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
ONLY_MIXUP, ONLY_CUTMIX = replace(BOTH, cutmix=0.0), replace(BOTH, mixup=0.0)
NEITHER = replace(BOTH, mixup=0.0, cutmix=0.0)


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
