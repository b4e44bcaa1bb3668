"""When training ends early: a table of scores, and that a resumed count continues where it was."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.config.schema import EarlyStoppingConfig
from morphmlp.tasks.scores import TOP1
from morphmlp.training.loop.early_stopping import EarlyStopping


def epochs_taken(scores, *, epochs=2, min_delta=0.0, higher_is_better=True, every=1, resume_after=None):
    """Epochs until the end, by scores of every so many epochs; after one of them the count is saved and loaded."""
    config = EarlyStoppingConfig(epochs=epochs, min_delta=min_delta)
    score_name = replace(TOP1, higher_is_better=higher_is_better)
    stopping = EarlyStopping(config, score_name)
    for number, score in enumerate(scores, start=1):
        stopping.add(number * every, score)
        if stopping.ended:
            return number * every
        if number == resume_after:
            state, stopping = stopping.state_dict(), EarlyStopping(config, score_name)
            stopping.load_state_dict(state)
    return None


@pytest.mark.parametrize(
    ("scores", "settings", "end"),
    [
        ([10, 20, 30, 40], {}, None),
        ([10, 20, 20, 20], {}, 4),
        ([10, 9, 8], {}, 3),
        ([10, 9, 11, 10, 10], {}, 5),
        ([10, 10], {"epochs": 1}, 2),
        # The best is only replaced by a better one: 10, then 10.8.
        ([10, 10.4, 10.8, 11.2, 11.2], {"min_delta": 0.5}, 5),
        ([10, 10.5, 10.5], {"min_delta": 0.5}, 3),
        # A loss: less is better.
        ([2.0, 1.0, 1.5, 1.0], {"higher_is_better": False}, 4),
        ([1.0, 2.0, 3.0], {"higher_is_better": False}, 3),
        # Validated every second epoch.
        ([10, 10], {"every": 2}, 4),
        ([10, 10, 10], {"every": 2, "epochs": 3}, 6),
    ],
)
def test_training_ends_after_so_many_epochs_without_a_better_score(scores, settings, end):
    assert epochs_taken(scores, **settings) == end
    for resume_after in range(1, len(scores)):
        assert epochs_taken(scores, **settings, resume_after=resume_after) == end


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 4), st.sampled_from([0.0, 1.0, 2.5]))
def test_it_ends_where_a_look_back_over_all_scores_would(scores, epochs, min_delta):
    best, best_at, expected = scores[0], 1, None
    for number, score in enumerate(scores, start=1):
        if score > best + min_delta:
            best, best_at = score, number
        if number - best_at == epochs:
            expected = number
            break
    assert epochs_taken(scores, epochs=epochs, min_delta=min_delta) == expected


def test_an_end_is_told_in_words_and_kept():
    stopping = EarlyStopping(EarlyStoppingConfig(epochs=2), TOP1)
    assert not stopping.ended
    for epoch, score in enumerate([50.0, 49.0, 48.0], start=1):
        stopping.add(epoch, score)
    assert stopping.in_words == "no top-1 better than 50.00 of epoch 1 in the 2 epochs since (train.early_stopping)"
    again = EarlyStopping(EarlyStoppingConfig(epochs=2), TOP1)
    again.load_state_dict(stopping.state_dict())
    assert again.ended
