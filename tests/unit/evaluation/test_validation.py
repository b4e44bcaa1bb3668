"""Scores from micro-batches: in fp32, in evaluation mode, whatever the batches' sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from morphmlp.config.clip import PIXEL_MEAN, PIXEL_STD
from morphmlp.data.clips.augment import normalise
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.evaluation.validation import score_single_views
from morphmlp.tasks.classification import Classification, view_outputs

CPU = torch.device("cpu")
CLASSES = 6
TASK = Classification(model=None, clip=None, augment=None, mixing=None, test_clip=None, views=None)  # makes no network


class TinyNet(nn.Module):
    """Has what evaluation mode must switch off, and remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm3d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3 * 2 * 4 * 4, CLASSES)
        self.sizes = []
        self.is_image = False
        self.pixel_mean, self.pixel_std = PIXEL_MEAN, PIXEL_STD

    def forward(self, clips):
        self.sizes.append(len(clips))
        return self.head(self.drop(self.norm(clips)).flatten(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyNet()


def clips_of(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 2, 4, 4, 3), dtype=torch.uint8, generator=generator)


def broken(name):
    return BrokenVideo(
        video_id=name,
        path=name,
        size_bytes=None,
        mtime=None,
        stage="val",
        error="DecodeError",
        message="truncated",
        decoder="pyav",
        decoder_version="1",
    )


def batch_of(clips, labels, videos=()):
    rows = np.arange(len(labels) + len(videos))
    return MicroBatch(
        plan=MicroBatchPlan(epoch=0, step=0, index=0, rows=rows),
        clips=clips,
        labels=torch.tensor(labels, dtype=torch.int64),
        rows=rows[: len(labels)],
        broken=tuple(videos),
    )


def test_logits_are_those_of_the_network_in_evaluation_mode(model):
    logits = view_outputs(model, clips_of(5), device=CPU, clips_at_once=5)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(logits, model(normalise(clips_of(5))))
    assert model.norm.num_batches_tracked == 0


@pytest.mark.parametrize("clips_at_once", [1, 2, 3, 7])
def test_clips_go_through_in_parts_and_score_alike(model, clips_at_once):
    together = view_outputs(model, clips_of(5), device=CPU, clips_at_once=5)
    model.sizes.clear()
    assert torch.allclose(
        view_outputs(model, clips_of(5), device=CPU, clips_at_once=clips_at_once), together, atol=1e-6
    )
    assert max(model.sizes) == min(clips_at_once, 5)
    assert sum(model.sizes) == 5


def test_logits_need_no_gradient_and_are_fp32_on_the_cpu(model):
    logits = view_outputs(model.bfloat16().float(), clips_of(2), device=CPU, clips_at_once=2)
    assert not logits.requires_grad
    assert (logits.dtype, logits.device) == (torch.float32, CPU)


def test_counts_are_the_sum_over_micro_batches(model):
    clips, labels = clips_of(7), [0, 1, 2, 3, 4, 5, 0]
    batches = [batch_of(clips[:3], labels[:3]), batch_of(clips[3:4], labels[3:4]), batch_of(clips[4:], labels[4:])]
    counts, videos = score_single_views(model, iter(batches), task=TASK, device=CPU)
    whole = TASK.counts(view_outputs(model, clips, device=CPU, clips_at_once=7), torch.tensor(labels))
    assert (counts.num_videos, counts.top1_hits, counts.top5_hits) == (7, whole.top1_hits, whole.top5_hits)
    assert counts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert videos == []


def test_broken_videos_are_handed_on_and_not_counted(model):
    batches = [batch_of(clips_of(2), [0, 1], [broken("x")]), batch_of(clips_of(0), [], [broken("y"), broken("z")])]
    counts, videos = score_single_views(model, iter(batches), task=TASK, device=CPU)
    assert counts.num_videos == 2
    assert [video.video_id for video in videos] == ["x", "y", "z"]


def test_scoring_ends_with_the_micro_batch_that_makes_broken_videos_too_many(model):
    batches = iter([batch_of(clips_of(2), [0, 1], [broken("x")]), batch_of(clips_of(0), [], [broken("y")]), "untaken"])
    counts, videos = score_single_views(model, batches, task=TASK, device=CPU, too_many=lambda broken: broken > 1)
    assert ([video.video_id for video in videos], next(batches)) == (["x", "y"], "untaken")
    assert counts.num_videos == 2


def test_nothing_to_score_counts_nothing(model):
    assert score_single_views(model, iter([]), task=TASK, device=CPU) == (TASK.no_counts(), [])
