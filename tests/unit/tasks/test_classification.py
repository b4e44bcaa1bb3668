"""Classification: soft targets, label mixing, loss; counts, scores and predictions."""

import math
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from morphmlp.config import load_config
from morphmlp.config.schema import MixingConfig
from morphmlp.data.columns import PREDICTIONS
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.tasks.classification import (
    ClassificationCounts,
    balanced_class_weights,
    class_weights_in_words,
    cutmix_box,
    mix,
    soft_target_loss_sum,
    soft_targets,
)
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.task import zero

CONFIG = load_config(Path(__file__).parents[1] / "small_experiment.yaml")
TASK = task_of(CONFIG)
PREDICTING = replace(TASK, model=replace(CONFIG.model, num_classes=3))
MANIFEST = manifest_from_rows(
    video_ids=["a", "b", "c", "d"],
    paths=["a.mp4", "b.mp4", "c.mp4", "d.mp4"],
    labels=[0, 1, 2, 0],
    splits=["test"] * 4,
    sizes_bytes=[1] * 4,
    class_names=["x", "y", "z"],
)
OUTCOMES = {
    2: np.array([[0, 1, 3], [0, 4, 1.5]], dtype=np.float32).tobytes(),
    0: np.array([[2, 0, 0], [1, 0, 0]], dtype=np.float32).tobytes(),
    3: np.array([[0, 0, 1], [9, 0, 0]], dtype=np.float32).tobytes(),
}
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


def counts_of(logits, labels):
    return TASK.counts(logits, labels)


def random_scores(videos, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(videos, classes, generator=generator)
    return logits, torch.randint(0, classes, (videos,), generator=generator)


def test_hits_are_those_of_a_naive_loop():
    logits, labels = random_scores(50, 9)
    counts = counts_of(logits, labels)
    places = [sorted(row.tolist(), reverse=True).index(row[label]) for row, label in zip(logits, labels, strict=True)]
    assert counts.num_videos == 50
    assert counts.top1_hits == sum(place == 0 for place in places)
    assert counts.top5_hits == sum(place < 5 for place in places)
    assert counts.scores()["top1"] == pytest.approx(2 * counts.top1_hits)
    assert counts.scores()["top5"] == pytest.approx(2 * counts.top5_hits)
    assert counts.loss == pytest.approx(functional.cross_entropy(logits, labels).item())


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(2, 8))
def test_batches_add_up_to_the_whole(sizes, classes):
    logits, labels = random_scores(sum(sizes), classes)
    whole = counts_of(logits, labels)
    parts = map(counts_of, logits.split(sizes), labels.split(sizes))
    added = reduce(ClassificationCounts.__add__, parts, ClassificationCounts())
    assert replace(added, loss_sum=zero()) == replace(whole, loss_sum=zero())
    assert added.loss_sum.item() == pytest.approx(whole.loss_sum.item(), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_with_five_classes_or_fewer_every_video_is_a_top5_hit(classes):
    assert counts_of(*random_scores(7, classes)).scores()["top5"] == 100.0


def test_low_precision_logits_are_scored_in_full_precision():
    logits, labels = random_scores(20, 6)
    counts = counts_of(logits.bfloat16(), labels)
    assert counts.loss == pytest.approx(functional.cross_entropy(logits.bfloat16().float(), labels).item())


def test_no_videos_have_no_score():
    counts = ClassificationCounts()
    assert all(math.isnan(value) for value in (*counts.scores().values(), counts.loss))


def test_counts_travel_as_one_tensor_and_come_back_by_name():
    counts = counts_of(*random_scores(20, 6))
    packed = counts.pack()
    assert packed.shape == (4,)
    assert ClassificationCounts().unpack(packed) == counts
    assert ClassificationCounts().unpack(2 * packed) == counts + counts


def test_rows_stand_in_the_order_of_the_manifest():
    table = PREDICTING.predictions(MANIFEST, OUTCOMES)
    assert table["video_id"].to_pylist() == ["a", "c", "d"]
    assert table["label"].to_pylist() == [0, 2, 0]
    assert table.schema.equals(PREDICTIONS)


def test_logits_are_summed_over_views_and_the_prediction_is_their_argmax():
    table = PREDICTING.predictions(MANIFEST, OUTCOMES)
    assert table["logits"].to_pylist() == [[3, 0, 0], [0, 5, 4.5], [9, 0, 1]]
    assert table["prediction"].to_pylist() == [0, 1, 0]


def test_the_logits_of_every_view_are_kept():
    assert PREDICTING.predictions(MANIFEST, OUTCOMES)["view_logits"].to_pylist()[1] == [[0, 1, 3], [0, 4, 1.5]]


def test_raw_logits_are_summed_and_not_their_softmax():
    # One confident view outweighs two that lean the other way; averaged probabilities would say class 1.
    views = np.array([[8, 0, 0], [0, 2, 0], [0, 2, 0]], dtype=np.float32)
    softmax = np.exp(views) / np.exp(views).sum(axis=1, keepdims=True)
    assert softmax.sum(axis=0).argmax() == 1
    assert PREDICTING.predictions(MANIFEST, {1: views.tobytes()})["prediction"].to_pylist() == [0]


def test_counts_of_the_table_are_those_of_its_predictions():
    counts = TASK.count_predictions(PREDICTING.predictions(MANIFEST, OUTCOMES))
    assert (counts.num_videos, counts.top1_hits, counts.top5_hits) == (3, 2, 3)


def test_a_table_without_rows_counts_nothing():
    assert TASK.count_predictions(PREDICTING.predictions(MANIFEST, {})).num_videos == 0


def test_predictions_are_read_back_and_counted_alike(tmp_path):
    table = PREDICTING.predictions(MANIFEST, OUTCOMES)
    pq.write_table(table, tmp_path / "p.parquet")
    again = pq.read_table(tmp_path / "p.parquet", schema=PREDICTIONS)
    assert again.equals(table)
    assert TASK.count_predictions(again) == TASK.count_predictions(table)


def test_the_confusion_matrix_counts_true_classes_by_row():
    task, rng = replace(TASK, model=replace(CONFIG.model, num_classes=6)), np.random.default_rng(0)
    labels, predictions = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    naive = [[0] * 6 for _ in range(6)]
    for label, prediction in zip(labels, predictions, strict=True):
        naive[label][prediction] += 1
    assert task.confusion(pa.table({"label": labels, "prediction": predictions})).tolist() == naive


def test_no_videos_give_a_confusion_matrix_of_zeros():
    assert not TASK.confusion(PREDICTING.predictions(MANIFEST, {})).any()


def manifest_of(labels, *, num_classes):
    return manifest_from_rows(
        video_ids=[f"v{row}" for row in range(len(labels))],
        paths=[f"v{row}.mp4" for row in range(len(labels))],
        labels=labels,
        splits=["train"] * len(labels),
        sizes_bytes=[1] * len(labels),
        class_names=[f"class {number}" for number in range(num_classes)],
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_balanced_weights_are_scikit_learns_and_average_one_over_the_videos(labels):
    weights = balanced_class_weights(manifest_of(labels, num_classes=4), num_classes=4)
    there = np.unique(labels)
    theirs = compute_class_weight("balanced", classes=there, y=labels)
    assert [weights[label] for label in there] == pytest.approx(list(theirs))
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1.0)
    assert all(weights[label] == 1.0 for label in range(4) if label not in there)


def test_the_loss_of_weighted_classes_is_pytorchs_whatever_is_mixed():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 2, 3, 3, 0])
    targets = soft_targets(labels, num_classes=4, label_smoothing=0.1)
    _, targets = mix(numbered_clips(6), targets, mixing=ONLY_MIXUP, rng=np.random.default_rng(0))
    weights = (0.5, 2.0, 1.0, 0.1)
    ours = soft_target_loss_sum(logits, targets, class_weights=weights)
    theirs = functional.cross_entropy(logits, targets, weight=torch.tensor(weights), reduction="sum")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_a_task_weighs_by_the_training_videos_and_leaves_validation_as_it_is():
    config = load_config(Path(__file__).parents[1] / "small_experiment.yaml", {"train.class_weights": "balanced"})
    videos = manifest_of([0, 0, 0, 1, 2, 2], num_classes=4)
    task = task_of(config, train=videos)
    assert task.class_weights == pytest.approx((2 / 3, 2.0, 1.0, 1.0))
    assert task_of(config).class_weights is None
    words = class_weights_in_words(task.class_weights, videos)
    assert words == "0.667 (class 0) to 2 (class 1); 1 classes have no training videos"
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 1])
    assert task.counts(logits, labels) == task_of(config).counts(logits, labels)
    targets = task.targets(labels)
    assert task.loss_sum(logits, targets) != task_of(config).loss_sum(logits, targets)


def test_a_test_gives_intervals_and_calibration_of_the_mean_over_views():
    table = PREDICTING.predictions(MANIFEST, OUTCOMES)
    intervals, further = PREDICTING.intervals(table), PREDICTING.further_scores(table)
    assert intervals.keys() == {"top1", "top5", "mean_class_acc"}
    top1 = PREDICTING.count_predictions(table).scores()["top1"]
    expected = binomtest(round(3 * top1 / 100), 3).proportion_ci(method="wilson")
    assert intervals["top1"] == pytest.approx((100 * expected.low, 100 * expected.high))
    means = torch.tensor(
        np.stack([np.frombuffer(OUTCOMES[row], np.float32).reshape(2, 3).mean(0) for row in (0, 2, 3)])
    )
    assert further["nll"] == pytest.approx(functional.cross_entropy(means, torch.tensor([0, 2, 0])).item(), rel=1e-6)
    assert further.keys() == {"mean_class_acc", "ece", "nll"}


def test_a_test_without_a_scored_video_has_no_scores():
    table = PREDICTIONS.empty_table()
    values = [*PREDICTING.further_scores(table).values(), *sum(PREDICTING.intervals(table).values(), ())]
    assert len(values) == 9
    assert np.isnan(values).all()
