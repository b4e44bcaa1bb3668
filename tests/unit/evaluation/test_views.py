"""Views folded into answers, against loops that take one video and one view at a time."""

from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_scores import names, predictions, view_logits

from morphmlp.config.values import Fold
from morphmlp.errors import EvaluationError
from morphmlp.evaluation.views import ViewChoice, cheapest, ensemble, fold_parts, numbers_of, spread


def softmax(logits):
    powers = [np.exp(float(value) - float(max(logits))) for value in logits]
    return np.array(powers) / sum(powers)


def naive(logits, choice, crops, fold):
    """Scores of the classes of each video, as the fold says."""
    scores = []
    for of_video in logits:
        total, views = np.zeros(of_video.shape[1]), 0
        for clip in choice.clips:
            for crop in choice.crops:
                view = of_video[clip * crops + crop]
                total += softmax(view) if fold.endswith("probabilities") else view
                views += 1
        scores.append(total / (views if fold.startswith("mean") else 1))
    return np.array(scores)


def parts_of(table, sizes):
    starts = np.cumsum([0, *sizes])
    return [table.slice(start, size) for start, size in zip(starts, sizes, strict=False)]


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6)),
    st.sampled_from(get_args(Fold)),
    st.integers(0, 2**32),
    st.data(),
)
def test_any_views_fold_as_a_loop_folds_them(shape, fold, seed, data):
    videos, clips, crops, classes = shape
    logits, labels = view_logits(videos, classes, clips * crops, seed=seed)
    choice = ViewChoice(
        clips=tuple(sorted(data.draw(st.sets(st.integers(0, clips - 1), min_size=1)))),
        crops=tuple(sorted(data.draw(st.sets(st.integers(0, crops - 1), min_size=1)))),
    )
    sizes = data.draw(st.sampled_from([[videos], [1, videos - 1], [videos, 0]]))
    folded, _ = fold_parts(
        parts_of(predictions(logits, labels), sizes), num_clips=clips, num_crops=crops, choice=choice, fold=fold
    )
    views = choice.num_views if fold.startswith("sum") else 1
    expected = naive(logits, choice, crops, fold)
    assert np.abs(folded.means * views - expected).max() < 1e-5
    assert folded.video_ids.to_pylist() == names(videos)
    assert (folded.labels == labels).all()
    if fold.endswith("probabilities"):  # which are shares as they are, without a softmax of their own
        means = expected / expected.sum(axis=1, keepdims=True)
        assert np.abs(folded.answers().shares[:, 0] - means.max(axis=1)).max() < 1e-5
    assert (folded.answers().guesses[:, 0] == expected.argmax(axis=1)).mean() > 0.99  # but for ties by rounding


def test_all_views_summed_are_the_tests_own_answer():
    logits, labels = view_logits(200, 7, 12)
    table = predictions(logits, labels)
    choice = ViewChoice(clips=tuple(range(4)), crops=tuple(range(3)))
    folded, curve = fold_parts([table], num_clips=4, num_crops=3, choice=choice, fold="sum-logits")
    assert folded.answers().guesses[:, 0].tolist() == table["prediction"].to_pylist()
    assert curve.iloc[-1]["top1"] == pytest.approx(folded.answers().top1.value)
    assert curve.iloc[-1]["low"] == pytest.approx(folded.answers().top1.low)


@pytest.mark.parametrize("fold", get_args(Fold))
def test_the_curve_has_for_each_number_of_views_what_folding_them_gives(fold):
    clips, crops = 5, 3
    logits, labels = view_logits(300, 8, clips * crops, lean=0.3)
    table = predictions(logits, labels)
    every = ViewChoice(clips=tuple(range(clips)), crops=tuple(range(crops)))
    _, curve = fold_parts(parts_of(table, [100, 200]), num_clips=clips, num_crops=crops, choice=every, fold=fold)
    assert len(curve) == clips * 2
    assert curve["views"].is_monotonic_increasing
    for row in curve.itertuples():
        choice = ViewChoice(clips=spread(row.clips, clips), crops=spread(row.crops, crops))
        scores = naive(logits, choice, crops, fold)
        assert row.top1 == pytest.approx(100 * np.mean(scores.argmax(axis=1) == labels))
        first = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        assert row.top5 == pytest.approx(
            100 * np.mean([label in five for label, five in zip(labels, first, strict=True)])
        )


def test_the_cheapest_setting_is_the_first_within_a_tenth_of_a_point_of_the_best():
    logits, labels = view_logits(40, 4, 6)
    choice = ViewChoice(clips=(0, 1, 2), crops=(0, 1))
    _, curve = fold_parts([predictions(logits, labels)], num_clips=3, num_crops=2, choice=choice, fold="sum-logits")
    curve["top1"] = [70.0, 71.0, 77.0, 77.05, 77.1, 76.0]
    assert cheapest(curve) == 2
    curve["top1"] = [70.0, 71.0, 76.9, 77.05, 77.1, 76.0]
    assert cheapest(curve) == 3
    curve["top1"] = 50.0
    assert curve.loc[cheapest(curve), "views"] == 1


@pytest.mark.parametrize(
    ("count", "of", "expected"),
    [(1, 3, (1,)), (1, 10, (4,)), (2, 10, (0, 9)), (4, 10, (0, 3, 6, 9)), (3, 3, (0, 1, 2))],
)
def test_fewer_views_are_evenly_spread(count, of, expected):
    assert spread(count, of) == expected


@given(st.integers(1, 60), st.data())
def test_spread_views_are_so_many_different_ones(of, data):
    count = data.draw(st.integers(1, of))
    found = spread(count, of)
    assert len(set(found)) == count
    assert 0 <= min(found) <= max(found) < of


def test_views_are_named_by_numbers_from_one():
    assert numbers_of("1-3, 7", of=10, option="--clips", what="clips") == (0, 1, 2, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "--clips 0: the scores have clips 1 to 10, and no 0"),
        ("2,11", "--clips 2,11: the scores have clips 1 to 10, and no 11"),
        ("3-1", "--clips 3-1: the scores have clips 1 to 10, and no 3-1"),
        ("a", "--clips a: 'a' is no number; right are numbers from 1, as in 1-4,7"),
        ("", "--clips : '' is no number; right are numbers from 1, as in 1-4,7"),
        ("1-3,2", "--clips 1-3,2: names a number twice"),
    ],
)
def test_views_that_arent_there_are_refused(text, message):
    with pytest.raises(EvaluationError) as caught:
        numbers_of(text, of=10, option="--clips", what="clips")
    assert str(caught.value) == message


def folded_test(seed, views, fold):
    logits, labels = view_logits(50, 6, views, seed=seed)
    labels = view_logits(50, 6, 1)[1]
    choice = ViewChoice(clips=tuple(range(views)), crops=(0,))
    return logits, fold_parts([predictions(logits, labels)], num_clips=views, num_crops=1, choice=choice, fold=fold)[0]


@pytest.mark.parametrize("fold", get_args(Fold))
def test_an_ensemble_sums_over_all_views_or_takes_the_mean_of_the_tests(fold):
    (some, first), (others, second) = folded_test(1, 2, fold), folded_test(2, 5, fold)
    scored = [
        naive(logits, ViewChoice(clips=tuple(range(logits.shape[1])), crops=(0,)), 1, fold) for logits in (some, others)
    ]
    expected = scored[0] + scored[1]
    whole = ensemble([first, second], fold)
    expected = expected / (7 if fold.startswith("sum") else 2)
    assert np.abs(whole.means - expected).max() < 1e-6
    assert whole.num_views == 7


def test_an_ensemble_of_other_videos_is_refused():
    (_, first), (_, second) = folded_test(1, 2, "sum-logits"), folded_test(2, 2, "sum-logits")
    object.__setattr__(second, "video_ids", pa.array([f"w{number}" for number in range(50)]))
    with pytest.raises(EvaluationError, match="the same videos"):
        ensemble([first, second], "sum-logits")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda views: views[:-1], "video v00001 has logits of 3 views, the scores' header says 4 x 1"),
        (lambda views: [views[0][:-1], *views[1:]], "views have logits of 2 and of 3 classes"),
    ],
)
def test_a_table_of_other_views_is_refused(change, message):
    logits, labels = view_logits(3, 3, 4)
    table = predictions(logits, labels)
    views = table["view_logits"].to_pylist()
    views[1] = change(views[1])
    place = table.schema.get_field_index("view_logits")
    table = table.set_column(place, table.schema.field(place), pa.array(views, table.schema.field(place).type))
    choice = ViewChoice(clips=(0,), crops=(0,))
    with pytest.raises(EvaluationError, match=message):
        fold_parts([table], num_clips=4, num_crops=1, choice=choice, fold="sum-logits")
