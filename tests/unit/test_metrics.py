"""Counts that add up: whatever the split into batches, the score is the same."""

import dataclasses
import math
from functools import reduce

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from morphmlp.metrics import ScoreCounts


def random_scores(videos, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(videos, classes, generator=generator)
    return logits, torch.randint(0, classes, (videos,), generator=generator)


def test_hits_are_those_of_a_naive_loop():
    logits, labels = random_scores(50, 9)
    counts = ScoreCounts.of(logits, labels)
    places = [sorted(row.tolist(), reverse=True).index(row[label]) for row, label in zip(logits, labels, strict=True)]
    assert counts.num_videos == 50
    assert counts.top1_hits == sum(place == 0 for place in places)
    assert counts.top5_hits == sum(place < 5 for place in places)
    assert counts.top1 == pytest.approx(2 * counts.top1_hits)
    assert counts.top5 == pytest.approx(2 * counts.top5_hits)
    assert counts.loss == pytest.approx(functional.cross_entropy(logits, labels).item())


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(2, 8))
def test_batches_add_up_to_the_whole(sizes, classes):
    logits, labels = random_scores(sum(sizes), classes)
    whole = ScoreCounts.of(logits, labels)
    parts = map(ScoreCounts.of, logits.split(sizes), labels.split(sizes))
    added = reduce(ScoreCounts.__add__, parts, ScoreCounts())
    assert dataclasses.replace(added, loss_sum=0.0) == dataclasses.replace(whole, loss_sum=0.0)
    assert added.loss_sum == pytest.approx(whole.loss_sum, rel=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_with_five_classes_or_fewer_every_video_is_a_top5_hit(classes):
    assert ScoreCounts.of(*random_scores(7, classes)).top5 == 100.0


def test_low_precision_logits_are_scored_in_full_precision():
    logits, labels = random_scores(20, 6)
    counts = ScoreCounts.of(logits.bfloat16(), labels)
    assert counts.loss == pytest.approx(functional.cross_entropy(logits.bfloat16().float(), labels).item())


def test_no_videos_have_no_score():
    assert all(math.isnan(value) for value in (ScoreCounts().top1, ScoreCounts().top5, ScoreCounts().loss))
