"""Scores of answers against torch, scikit-learn and torchmetrics, on random and degenerate tables."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from morphmlp.tasks.answers import answers_of, class_table, confused_pairs


def random_table(videos, classes, *, seed=0, sharpness=2.0, absent=()):
    """Scores that lean to the true class, and the true classes; `absent` classes have no videos."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(sorted(set(range(classes)) - set(absent)), videos)
    scores = rng.normal(size=(videos, classes)).astype(np.float32) * sharpness
    scores[np.arange(videos), labels] += 1.5
    return scores, labels


def certain(labels, classes, right):
    """All right, or all wrong, and sure of it."""
    scores = np.random.default_rng(0).random((len(labels), classes)).astype(np.float32)
    scores[np.arange(len(labels)), labels if right else (labels + 1) % classes] = 30
    return scores, labels


LABELS = np.array([0, 1, 2, 3, 4, 5, 1, 2])
TABLES = {
    "random": random_table(500, 12),
    "overconfident": random_table(300, 7, seed=1, sharpness=9),
    "classes without videos": random_table(200, 9, seed=2, absent=(0, 8)),
    "two classes": random_table(90, 2, seed=3),
    "more rows than one part": random_table(9000, 6, seed=4),
    "one video": random_table(1, 6),
    "all right": certain(LABELS, 6, right=True),
    "all wrong": certain(LABELS, 6, right=False),
}


@pytest.fixture(params=TABLES, ids=list(TABLES))
def table(request):
    return TABLES[request.param]


@pytest.mark.parametrize("k", [1, 5])
def test_top1_and_top5_are_scikit_learns(table, k):
    scores, labels = table
    classes, answers = scores.shape[1], answers_of(*table)
    mine = {1: answers.top1, 5: answers.top5}[k].value
    if k >= classes:
        assert mine == 100
    else:  # it takes two classes for one score
        of_classes = scores if classes > 2 else scores[:, 1] - scores[:, 0] > 0
        assert mine == pytest.approx(100 * top_k_accuracy_score(labels, of_classes, k=k, labels=range(classes)))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
def test_mean_class_accuracy_is_scikit_learns_balanced_accuracy(table):
    scores, labels = table
    theirs = balanced_accuracy_score(labels, scores.argmax(axis=1))
    assert answers_of(scores, labels).mean_class_accuracy.value == pytest.approx(100 * theirs)


def test_confusion_is_scikit_learns(table):
    scores, labels = table
    theirs = confusion_matrix(labels, scores.argmax(axis=1), labels=range(scores.shape[1]))
    assert (answers_of(scores, labels).confusion == theirs).all()


def test_likelihood_is_pytorchs(table):
    scores, labels = table
    theirs = cross_entropy(torch.from_numpy(scores).double(), torch.from_numpy(labels)).item()
    assert answers_of(scores, labels).nll == pytest.approx(theirs, rel=1e-12)


def test_ece_is_torchmetrics(table):
    scores, labels = table
    probabilities = torch.from_numpy(scores).double().softmax(dim=1)
    theirs = multiclass_calibration_error(
        probabilities, torch.from_numpy(labels), num_classes=scores.shape[1], n_bins=15, norm="l1"
    )
    answers = answers_of(scores, labels)
    assert answers.ece == pytest.approx(100 * theirs.item(), abs=1e-4)
    assert answers.reliability["videos"].sum() == len(labels)


def test_a_probability_on_the_border_of_two_bins_belongs_to_the_lower_one():
    # Five classes alike: 0.2 is the upper end of the third of fifteen bins.
    bins = answers_of(np.zeros((4, 5)), np.array([0, 0, 1, 2])).reliability
    assert bins.loc[bins["videos"] > 0, ["up_to", "confidence", "right"]].to_numpy().tolist() == [
        pytest.approx([0.2, 0.2, 0.5])
    ]


def test_of_equal_scores_the_lower_class_comes_first():
    answers = answers_of(np.zeros((3, 8)), np.array([0, 4, 5]))
    assert answers.guesses.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert answers.ranks.tolist() == [0, 4, 5]
    assert (answers.top1.value, answers.top5.value) == pytest.approx((100 / 3, 200 / 3))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32), st.integers(1, 4))
def test_ranks_and_guesses_are_those_of_a_stable_sort(videos, classes, seed, levels):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, levels, (videos, classes)).astype(np.float32), rng.integers(0, classes, videos)
    answers = answers_of(scores, labels)
    order = np.argsort(-scores, axis=1, kind="stable")
    assert (answers.guesses == order[:, :5]).all()
    assert (answers.ranks == (order == labels[:, None]).argmax(axis=1)).all()
    assert (answers.right == (scores.argmax(axis=1) == labels)).all()


def test_scores_that_are_no_numbers_are_wrong_and_have_no_calibration():
    scores = np.array([[np.nan, 0, 0], [0, np.nan, 0], [0, 0, 1]], np.float32)
    answers = answers_of(scores, np.array([0, 2, 2]))
    assert answers.right.tolist() == [False, False, True]
    assert answers.top5.value == pytest.approx(100 / 3)
    assert np.isnan([answers.ece, answers.nll]).all()


def test_no_videos_have_no_scores():
    values = answers_of(np.zeros((0, 4)), np.zeros(0, np.int64)).values()
    assert values.keys() == {"top1", "top5", "mean_class_acc", "ece", "nll"}
    assert np.isnan(list(values.values())).all()


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="classes 0 to 2"):
        answers_of(np.zeros((2, 3)), np.array([0, 3]))


def test_classes_stand_with_their_accuracy_and_what_they_are_taken_for():
    guessed = [0, 0, 1, 1, 1, 0, 2]
    answers = answers_of(np.eye(4)[guessed], np.array([0, 0, 0, 1, 1, 2, 2]))
    rows = class_table(answers, ["a", "b", "c", "d"]).set_index("class")
    assert rows["videos"].tolist() == [3, 2, 2, 0]
    assert rows["right"].tolist() == [2, 2, 1, 0]
    assert rows["accuracy"].tolist() == pytest.approx([200 / 3, 100, 50, np.nan], nan_ok=True)
    assert rows["taken_for"].tolist() == ["b", "", "a", ""]
    assert (rows["low"][:3] <= rows["accuracy"][:3]).all()
    assert (rows["accuracy"][:3] <= rows["high"][:3]).all()
    assert np.isnan(rows.loc["d", ["low", "high"]].to_numpy(float)).all()


def test_pairs_come_by_how_often_they_are_confused():
    guessed = [1, 1, 0, 2, 0, 2]
    answers = answers_of(np.eye(3)[guessed], np.array([0, 0, 0, 1, 2, 2]))
    pairs = confused_pairs(answers, ["a", "b", "c"])
    assert pairs.to_dict("records") == [
        {"class": "a", "taken_for": "b", "times": 2, "share": pytest.approx(200 / 3)},
        {"class": "b", "taken_for": "c", "times": 1, "share": 100},
        {"class": "c", "taken_for": "a", "times": 1, "share": 50},
    ]
    assert len(confused_pairs(answers, ["a", "b", "c"], most=1)) == 1
    perfect = answers_of(np.eye(3), np.arange(3))
    assert confused_pairs(perfect, ["a", "b", "c"]).empty


def test_some_of_the_answers_are_those_of_their_videos():
    scores, labels = TABLES["random"]
    rows = np.array([7, 3, 3])
    taken, direct = answers_of(scores, labels).take(rows), answers_of(scores[rows], labels[rows])
    assert taken.guesses.tolist() == direct.guesses.tolist()
    assert taken.values() == pytest.approx(direct.values())
