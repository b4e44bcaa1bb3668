"""The predictions table, and the proof that every video is in it once."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from morphmlp.data.columns import PREDICTIONS
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.errors import EvaluationError
from morphmlp.evaluation.predictions import (
    check_coverage,
    count_predictions,
    predictions_table,
    write_predictions,
)

MANIFEST = manifest_from_rows(
    video_ids=["a", "b", "c", "d"],
    paths=["a.mp4", "b.mp4", "c.mp4", "d.mp4"],
    labels=[0, 1, 2, 0],
    splits=["test"] * 4,
    sizes_bytes=[1] * 4,
    class_names=["x", "y", "z"],
)
LOGITS = {
    2: np.array([[0, 1, 3], [0, 4, 1.5]], dtype=np.float32),
    0: np.array([[2, 0, 0], [1, 0, 0]], dtype=np.float32),
    3: np.array([[0, 0, 1], [9, 0, 0]], dtype=np.float32),
}


def test_rows_stand_in_the_order_of_the_manifest():
    table = predictions_table(MANIFEST, LOGITS)
    assert table["video_id"].to_pylist() == ["a", "c", "d"]
    assert table["label"].to_pylist() == [0, 2, 0]
    assert table.schema.equals(PREDICTIONS)


def test_logits_are_summed_over_views_and_the_prediction_is_their_argmax():
    table = predictions_table(MANIFEST, LOGITS)
    assert table["logits"].to_pylist() == [[3, 0, 0], [0, 5, 4.5], [9, 0, 1]]
    assert table["prediction"].to_pylist() == [0, 1, 0]


def test_the_logits_of_every_view_are_kept():
    assert predictions_table(MANIFEST, LOGITS)["view_logits"].to_pylist()[1] == [[0, 1, 3], [0, 4, 1.5]]


def test_raw_logits_are_summed_and_not_their_softmax():
    # One confident view outweighs two that lean the other way; averaged probabilities would say class 1.
    views = np.array([[8, 0, 0], [0, 2, 0], [0, 2, 0]], dtype=np.float32)
    softmax = np.exp(views) / np.exp(views).sum(axis=1, keepdims=True)
    assert softmax.sum(axis=0).argmax() == 1
    assert predictions_table(MANIFEST, {1: views})["prediction"].to_pylist() == [0]


def test_counts_of_the_table_are_those_of_its_predictions():
    counts = count_predictions(predictions_table(MANIFEST, LOGITS))
    assert (counts.num_videos, counts.top1_hits, counts.top5_hits) == (3, 2, 3)


def test_a_table_without_rows_counts_nothing():
    assert count_predictions(predictions_table(MANIFEST, {})).num_videos == 0


def test_predictions_are_read_back_and_counted_alike(tmp_path):
    table = predictions_table(MANIFEST, LOGITS)
    write_predictions(table, tmp_path / "new" / "p.parquet")
    again = pq.read_table(tmp_path / "new" / "p.parquet", schema=PREDICTIONS)
    assert again.equals(table)
    assert count_predictions(again) == count_predictions(table)


@pytest.mark.parametrize(
    ("scored", "broken"), [([0, 1, 2, 3], []), ([3, 1, 0, 2], []), ([0, 2], ["b", "d"]), ([], ["a", "b", "c", "d"])]
)
def test_videos_that_are_scored_once_or_quarantined_cover_the_manifest(scored, broken):
    check_coverage(MANIFEST, scored=scored, broken=broken)


@pytest.mark.parametrize(
    ("scored", "broken", "message"),
    [
        ([0, 1, 2], [], r"of 4 videos 1 were neither scored nor quarantined \(d\) and 0 were scored twice"),
        ([], [], r"of 4 videos 4 were neither scored nor quarantined \(a, b, c\) and 0"),
        ([0, 1, 2, 3, 3], [], "of 4 videos 0 were neither scored nor quarantined and 1 were scored twice"),
        ([0, 0, 1], ["c"], r"of 4 videos 1 were neither scored nor quarantined \(d\) and 1 were scored twice"),
    ],
)
def test_missing_and_doubled_videos_are_refused_with_their_numbers(scored, broken, message):
    with pytest.raises(EvaluationError, match=message):
        check_coverage(MANIFEST, scored=scored, broken=broken)
