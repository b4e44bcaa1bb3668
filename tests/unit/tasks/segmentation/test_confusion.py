"""Pixels by class and the scores of their sums, held against scikit-learn and naive loops."""

import math
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

from morphmlp.data.columns import SEGMENTED
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.tasks.segmentation.confusion import (
    areas_of,
    class_scores,
    confusion_of,
    outcome_of,
    prediction_of,
    predictions_table,
    table_confusion,
)
from morphmlp.tasks.segmentation.counts import count_image, count_table, no_counts

# Number of classes, those in the labels, those predicted, share of ignored pixels.
KINDS = {
    "all classes are there": (4, range(4), range(4), 0.0),
    "some pixels are ignored": (4, range(4), range(4), 0.3),
    "a class is nowhere": (5, (0, 1, 3), (0, 1, 3), 0.1),
    "a class is predicted and never there": (5, (0, 1, 3), (0, 1, 2, 3), 0.1),
    "a class is there and never predicted": (5, (0, 1, 2, 3), (0, 1, 3), 0.1),
    "two classes": (2, range(2), range(2), 0.5),
    "one class": (1, (0,), (0,), 0.2),
    "as many classes as 8 bits hold": (255, range(255), range(255), 0.1),
    "150 classes of which few are there": (150, (3, 77, 149), (0, 3, 77, 148), 0.2),
}


def maps(kind, seed=0, shape=(37, 53)):
    """A label map and a prediction that is right in half of its pixels."""
    _, there, predicted, ignored = KINDS[kind]
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(there), shape).astype(np.uint8)
    found = np.where(rng.random(shape) < 0.5, labels, rng.choice(list(predicted), shape)).astype(np.uint8)
    found = np.where(np.isin(found, list(predicted)), found, predicted[0]).astype(np.uint8)
    labels[rng.random(shape) < ignored] = IGNORED
    return labels, found


@pytest.mark.filterwarnings(
    "ignore:A single label was found:UserWarning"
)  # scikit-learn says so although they are named
@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_is_scikit_learns_of_the_pixels_that_count(kind):
    (labels, found), k = maps(kind), KINDS[kind][0]
    valid = labels != IGNORED
    theirs = confusion_matrix(labels[valid], found[valid], labels=range(k))
    assert np.array_equal(confusion_of(labels, found, num_classes=k), theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_are_scikit_learns(kind):
    (labels, found), k = maps(kind), KINDS[kind][0]
    valid = labels != IGNORED
    true, predicted = labels[valid], found[valid]
    # In any of the two: over which mmsegmentation averages IoU; in the labels: over which it averages accuracy.
    either = np.union1d(true, predicted)
    theirs = {
        "miou": 100 * jaccard_score(true, predicted, labels=either, average="macro", zero_division=0),
        "macc": 100 * recall_score(true, predicted, labels=np.unique(true), average="macro"),
        "aacc": 100 * accuracy_score(true, predicted),
    }
    assert count_image(found, labels, num_classes=k, loss=0.0).scores() == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_of_a_set_are_those_of_all_its_pixels(kind):
    """A loop over classes of the pixels of all images at once, as the metric is defined."""
    k = KINDS[kind][0]
    pictures = [maps(kind, seed, (20 + seed, 31)) for seed in range(4)]
    counts = reduce(add, (count_image(found, labels, num_classes=k, loss=1.0) for labels, found in pictures))
    labels, found = (np.concatenate([picture[part].ravel() for picture in pictures]) for part in (0, 1))
    ious, accuracies, right, valid = [], [], 0, labels != IGNORED
    for number in range(k):
        true, predicted = (labels == number), (found == number) & valid
        if (true | predicted).any():
            ious.append((true & predicted).sum() / (true | predicted).sum())
        if true.any():
            accuracies.append((true & predicted).sum() / true.sum())
        right += (true & predicted).sum()
    expected = {"miou": np.mean(ious), "macc": np.mean(accuracies), "aacc": right / valid.sum()}
    assert counts.scores() == pytest.approx({key: 100 * value for key, value in expected.items()}, rel=1e-12)
    assert (float(counts.num_videos), counts.loss) == (4, 1.0)


def test_absent_classes_count_as_in_mmsegmentation():
    """Class 0 half right, 1 never predicted, 2 predicted and never there, 3 nowhere."""
    labels = np.array([[0, 0, 1, IGNORED]], dtype=np.uint8)
    found = np.array([[0, 2, 0, 3]], dtype=np.uint8)
    counts = count_image(found, labels, num_classes=4, loss=0.0)
    iou, accuracy = class_scores(*areas_of(counts.confusion.numpy()))
    assert np.array_equal(iou, [100 / 3, 0, 0, np.nan], equal_nan=True)
    assert np.array_equal(accuracy, [50, 0, np.nan, np.nan], equal_nan=True)
    assert counts.scores() == pytest.approx({"miou": 100 / 9, "macc": 25, "aacc": 100 / 3})


def test_nothing_scored_has_no_score():
    nothing = np.full((3, 3), IGNORED, dtype=np.uint8)
    unlabelled = count_image(np.zeros_like(nothing), nothing, num_classes=3, loss=0.0)
    for counts in (no_counts(3), unlabelled, count_table(SEGMENTED.empty_table(), num_classes=3)):
        assert all(math.isnan(value) for value in counts.scores().values())


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_sums_over_workers_are_those_of_one(workers):
    pictures = [maps("some pixels are ignored", seed) for seed in range(7)]
    each = [count_image(found, labels, num_classes=4, loss=seed) for seed, (labels, found) in enumerate(pictures)]
    whole = reduce(add, each, no_counts(4))
    shares = [reduce(add, each[worker::workers], no_counts(4)) for worker in range(workers)]
    summed = whole.unpack(torch.stack([share.pack() for share in shares]).sum(0))
    assert summed == whole
    assert summed.scores() == whole.scores()


@pytest.mark.parametrize(
    ("labels", "found", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"label map of \(2, 3\) and a prediction of \(3, 2\)"),
        (np.full((2, 2), 4, np.uint8), np.zeros((2, 2), np.uint8), "class 4 .* classes are 0 to 3"),
        (np.full((2, 2), 254, np.uint8), np.zeros((2, 2), np.uint8), "class 254"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), IGNORED, np.uint8), "class 255"),
    ],
)
def test_maps_that_dont_fit_are_refused(labels, found, message):
    with pytest.raises(ValueError, match=message):
        confusion_of(labels, found, num_classes=4)


def manifest(count):
    return manifest_from_rows(
        video_ids=[f"v{row}" for row in range(count)],
        paths=[f"v{row}.jpg" for row in range(count)],
        labels=[0] * count,
        splits=["test"] * count,
        sizes_bytes=[1] * count,
        class_names=[*"abcdefghij"],
        items="images",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_gives_back_what_its_images_gave(kind):
    k = KINDS[kind][0]
    pictures = {row: maps(kind, row, (5 + row, 70 - row)) for row in (4, 0, 7)}
    losses = {4: 0.25, 0: 1.5, 7: 3.0}
    outcomes = {
        row: outcome_of(found, labels, num_classes=k, loss=losses[row]) for row, (labels, found) in pictures.items()
    }
    table = predictions_table(manifest(8), outcomes)
    assert table.schema.equals(SEGMENTED)
    assert table["video_id"].to_pylist() == ["v0", "v4", "v7"]
    assert table["height"].to_pylist() == [5, 9, 12]
    for row, png in zip(sorted(pictures), table["prediction"].to_pylist(), strict=True):
        assert np.array_equal(prediction_of(png), pictures[row][1])
    one_by_one = [
        count_image(found, labels, num_classes=k, loss=losses[row]) for row, (labels, found) in pictures.items()
    ]
    assert count_table(table, num_classes=k) == reduce(add, one_by_one)
    assert np.array_equal(table_confusion(table.slice(1, 1), num_classes=k), one_by_one[0].confusion)


def test_the_prediction_is_a_grey_png_of_the_classes(tmp_path):
    labels, found = maps("as many classes as 8 bits hold")
    table = predictions_table(manifest(1), {0: outcome_of(found, labels, num_classes=255, loss=0.0)})
    (tmp_path / "map.png").write_bytes(table["prediction"][0].as_py())
    with Image.open(tmp_path / "map.png") as picture:
        assert (picture.mode, picture.size) == ("L", found.shape[::-1])
        assert np.array_equal(picture, found)


def test_an_image_without_a_label_map_has_a_prediction_alone():
    found = maps("two classes")[1]
    table = predictions_table(manifest(1), {0: outcome_of(found, None, num_classes=2)})
    assert table["loss"].to_pylist() == [None]
    assert not table_confusion(table, num_classes=2).any()
    assert np.array_equal(prediction_of(table["prediction"][0].as_py()), found)


def test_no_outcomes_make_an_empty_table():
    table = predictions_table(manifest(3), {})
    assert (table.num_rows, table.schema) == (0, SEGMENTED)
    assert count_table(table, num_classes=3) == no_counts(3)


def test_a_table_in_pieces_counts_as_in_one():
    outcomes = {row: outcome_of(*maps("two classes", row)[::-1], num_classes=2, loss=1.0) for row in range(4)}
    table = predictions_table(manifest(4), outcomes)
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 3)])
    assert count_table(pieces, num_classes=2) == count_table(table, num_classes=2)
