"""Intervals of segmentation scores by resampling images, held against scipy's bootstrap and a naive loop."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from morphmlp.data.columns import SEGMENTED
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.tasks.segmentation import bootstrap as ours
from morphmlp.tasks.segmentation.bootstrap import image_areas, resampled_scores, score_differences, score_intervals
from morphmlp.tasks.segmentation.confusion import outcome_of, predictions_table
from morphmlp.tasks.segmentation.counts import count_table


def predictions(images, k, seed=0, *, absent=()):
    """Maps of a few classes each, half right; `absent` classes are only predicted."""
    rng = np.random.default_rng(seed)
    outcomes = {}
    for row in range(images):
        there = rng.choice(sorted(set(range(k)) - set(absent)), 3)
        labels = rng.choice(there, (9, 11)).astype(np.uint8)
        found = np.where(rng.random((9, 11)) < rng.uniform(0.2, 0.9), labels, rng.integers(0, k, (9, 11)))
        labels[rng.random((9, 11)) < 0.1] = IGNORED
        outcomes[row] = outcome_of(found.astype(np.uint8), labels, num_classes=k, loss=0.0)
    manifest = manifest_from_rows(
        video_ids=[f"v{row:04}" for row in range(images)],
        paths=["v.jpg"] * images,
        labels=[0] * images,
        splits=["test"] * images,
        sizes_bytes=[1] * images,
        class_names=["a"],
    )
    return predictions_table(manifest, outcomes)


@pytest.mark.parametrize("key", ["miou", "macc", "aacc"])
@pytest.mark.parametrize(("images", "k", "absent"), [(1, 3, ()), (7, 4, ()), (30, 6, (5,))])
def test_the_interval_is_scipys_of_the_same_draws(key, images, k, absent):
    table = predictions(images, k, absent=absent)

    def score(rows, axis):
        """Of the images in the last axis, each counted as often as it was drawn."""
        picked = np.moveaxis(rows, axis, -1).reshape(-1, rows.shape[axis])
        return np.array([count_table(table.take(row), num_classes=k).scores()[key] for row in picked])

    options = {"n_resamples": 50, "method": "percentile", "vectorized": True, "rng": np.random.default_rng(3)}
    if images == 1:  # scipy refuses a single one
        low = high = score(np.array([[0]]), -1)[0]
    else:
        low, high = bootstrap((np.arange(images),), score, **options).confidence_interval
    found = score_intervals(table, num_classes=k, resamples=50, seed=3)[key]
    assert found == pytest.approx((low, high), rel=1e-12)


def test_resamples_are_the_same_in_any_number_of_parts(monkeypatch):
    areas = image_areas(predictions(20, 5), num_classes=5)
    whole = resampled_scores(areas, resamples=30, seed=1)
    monkeypatch.setattr(ours, "_DRAWS_AT_ONCE", 70)  # three resamples at a time, and one by one where images are more
    for key, scores in resampled_scores(areas, resamples=30, seed=1).items():
        assert np.array_equal(scores, whole[key])
    monkeypatch.setattr(ours, "_DRAWS_AT_ONCE", 1)
    assert np.array_equal(resampled_scores(areas, resamples=30, seed=1)["miou"], whole["miou"])


def test_the_interval_holds_the_score_and_narrows_with_more_images():
    widths = []
    for images in (20, 320):
        table = predictions(images, 5)
        low, high = score_intervals(table, num_classes=5, resamples=400)["miou"]
        assert low < count_table(table, num_classes=5).scores()["miou"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2  # a fourth, but for chance


def test_the_interval_is_the_same_each_time_and_depends_on_the_seed():
    table = predictions(12, 4)
    first, again, other = (score_intervals(table, num_classes=4, resamples=99, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_no_images_have_no_interval():
    found = score_intervals(SEGMENTED.empty_table(), num_classes=3)
    assert set(found) == {"miou", "macc", "aacc"}
    assert all(math.isnan(end) for ends in found.values() for end in ends)


@pytest.mark.parametrize("key", ["miou", "macc", "aacc"])
def test_the_interval_of_a_difference_is_scipys_paired_bootstrap(key):
    one, other = predictions(12, 4), predictions(12, 4, seed=9)

    def difference(rows, axis):
        picked = np.moveaxis(rows, axis, -1).reshape(-1, rows.shape[axis])
        scores = [
            [count_table(table.take(row), num_classes=4).scores()[key] for row in picked] for table in (one, other)
        ]
        return np.subtract(*scores)

    options = {"n_resamples": 60, "method": "percentile", "vectorized": True, "rng": np.random.default_rng(3)}
    theirs = bootstrap((np.arange(12),), difference, **options)
    found, p_value = score_differences(one, other, num_classes=4, resamples=60, seed=3)[key]
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)
    assert found.value == pytest.approx(difference(np.arange(12)[None], -1)[0])
    rarer = min(np.sum(theirs.bootstrap_distribution <= 0), np.sum(theirs.bootstrap_distribution >= 0))
    assert p_value == pytest.approx(min(1, 2 * (rarer + 1) / 61))


def test_a_test_differs_in_nothing_from_itself():
    table = predictions(20, 4)
    for found, p_value in score_differences(table, table, num_classes=4, resamples=50).values():
        assert (found.value, found.low, found.high, p_value) == (0, 0, 0, 1)
