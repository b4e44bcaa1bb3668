"""The task of segmentation: its loss against a loop over pixels, and what validation and test count of whole images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from morphmlp.config import load_config
from morphmlp.config.segmentation import SegmentationTestConfig
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.segmentation.segmentation import pixel_loss_sum

CPU = torch.device("cpu")
CLASSES, IGNORED = 4, 255
CONFIG = load_config(Path(__file__).parents[2] / "small_segmentation.yaml")
UPERNET = {"segmentation.decoder": "upernet", "segmentation.auxiliary_weight": 0.4}


def scaled_by_hand(logits, height, width):
    """Bilinear with corners not aligned, a pixel at a time."""
    classes, rows, columns = logits.shape
    scaled = np.empty((classes, height, width))
    for row in range(height):
        for column in range(width):
            y = max((row + 0.5) * rows / height - 0.5, 0)
            x = max((column + 0.5) * columns / width - 0.5, 0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            above = logits[:, top, left] * (1 - x + left) + logits[:, top, right] * (x - left)
            below = logits[:, bottom, left] * (1 - x + left) + logits[:, bottom, right] * (x - left)
            scaled[:, row, column] = above * (1 - y + top) + below * (y - top)
    return scaled


def loss_by_hand(logits, targets, *, loss_over, weights):
    total = 0.0
    for of_clip, labels in zip(logits.double().numpy(), targets.numpy(), strict=True):
        scaled = scaled_by_hand(of_clip, *labels.shape)
        own, valid = 0.0, 0
        for row, column in np.ndindex(labels.shape):
            label = labels[row, column]
            if label != IGNORED:
                scores = scaled[:, row, column]
                own += weights[label] * (np.log(np.exp(scores).sum()) - scores[label])
                valid += 1
        total += own / (labels.size if loss_over == "all_pixels" else max(valid, 1))
    return total


def maps_and_logits(seed=0, sizes=((5, 7), (16, 20))):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (3, CLASSES, *sizes[0]))).float()
    targets = torch.from_numpy(rng.choice([0, 1, 2, 3, IGNORED], (3, *sizes[1])))
    targets[2] = IGNORED
    return logits, targets


@pytest.mark.parametrize("sizes", [((5, 7), (16, 20)), ((4, 4), (4, 4)), ((1, 1), (3, 2))])
@pytest.mark.parametrize("loss_over", ["all_pixels", "valid_pixels"])
@pytest.mark.parametrize("weights", [None, (1.0, 0.5, 3.0, 2.0)])
def test_the_loss_is_that_of_a_loop_over_pixels_of_logits_at_the_maps_size(sizes, loss_over, weights):
    logits, targets = maps_and_logits(sizes=sizes)
    tensor = None if weights is None else torch.tensor(weights)
    found = pixel_loss_sum(logits, targets, loss_over=loss_over, class_weights=tensor)
    expected = loss_by_hand(logits, targets, loss_over=loss_over, weights=weights or (1.0,) * CLASSES)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss_over", ["all_pixels", "valid_pixels"])
def test_a_crop_without_a_labelled_pixel_has_no_loss_and_no_gradient(loss_over):
    logits, targets = maps_and_logits()
    logits.requires_grad_()
    pixel_loss_sum(logits, targets, loss_over=loss_over).backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[2].any()
    assert logits.grad[:2].any()


@pytest.mark.parametrize("overrides", [{}, UPERNET, {**UPERNET, "segmentation.auxiliary_weight": 0.0}])
def test_the_auxiliary_head_counts_with_its_weight(overrides):
    config = load_config(Path(__file__).parents[2] / "small_segmentation.yaml", overrides)
    task = task_of(config)
    network = task.network().train()
    outputs = tuple(output.detach() for output in network(torch.randn(2, 3, 32, 32)))
    targets = task.targets(torch.randint(0, CLASSES, (2, 32, 32), dtype=torch.uint8))
    weight = config.segmentation.auxiliary_weight
    assert len(outputs) == (2 if weight else 1)
    losses = [float(pixel_loss_sum(one, targets, loss_over="all_pixels")) for one in outputs]
    assert float(task.loss_sum(outputs, targets)) == pytest.approx(losses[0] + weight * sum(losses[1:]), rel=1e-6)
    assert float(task.loss_sum(outputs[0], targets)) == pytest.approx(losses[0])


class ByColour(nn.Module):
    """Says of each 4 x 4 pixels that they are the class whose number their mean grey level is nearest to."""

    is_image = True
    pixel_mean, pixel_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def forward(self, images):
        grey = 255 * nn.functional.avg_pool2d(images, 4).mean(dim=1, keepdim=True)
        return -((grey / 50 - torch.arange(CLASSES)[:, None, None]) ** 2)


def images_and_maps():
    """Of different sizes, in grey levels that say the class but for a stripe that lies."""
    rng = np.random.default_rng(0)
    for height, width in ((72, 36), (36, 108), (36, 36)):
        labels = rng.integers(0, CLASSES, (height // 36, width // 36)).repeat(36, 0).repeat(36, 1).astype(np.uint8)
        image = np.repeat(50 * labels[..., None], 3, axis=2)
        labels[:8] = (labels[:8] + 1) % CLASSES
        labels[-4:] = IGNORED
        yield image, labels


def batch_of(image, labels):
    return MicroBatch(
        plan=MicroBatchPlan(epoch=0, step=0, index=0, rows=np.arange(1)),
        clips=torch.from_numpy(image)[None, None],
        labels=torch.from_numpy(labels)[None],
        rows=np.arange(1),
        broken=(),
    )


def test_validation_and_test_count_the_same_pixels_each_at_the_images_own_size():
    """Where the test sees an image as validation does; truth from a loop over the pixels that the colours say."""
    task, network = task_of(replace(CONFIG, segmentation=replace(CONFIG.segmentation, long_edge=10_000))), ByColour()
    counts, outcomes, naive = task.no_counts(), {}, np.zeros((CLASSES, CLASSES))
    for row, (image, labels) in enumerate(images_and_maps()):
        counts += task.validated(network, batch_of(image, labels), CPU)
        clips, maps = torch.from_numpy(image)[None, None, None], torch.from_numpy(labels)[None]
        (outcomes[row],) = task.outcomes(network, clips, maps, CPU)
        for label, level in zip(labels.ravel(), image[..., 0].ravel(), strict=True):
            if label != IGNORED:
                naive[label, level // 50] += 1
    manifest = manifest_from_rows(
        video_ids=["a", "b", "c"],
        paths=["a.jpg", "b.jpg", "c.jpg"],
        labels=[0, 0, 0],
        splits=["val"] * 3,
        sizes_bytes=[1] * 3,
        class_names=list("wxyz"),
    )
    table = task.predictions(manifest, outcomes)
    tested = task.count_predictions(table)
    assert table["video_id"].to_pylist() == ["a", "b", "c"]
    assert torch.equal(tested.confusion, counts.confusion)
    assert tested.loss == pytest.approx(counts.loss)
    off_edges = np.abs(counts.confusion.numpy() - naive).sum() / naive.sum()
    assert off_edges < 0.1  # pixels between two colours, where logits are interpolated
    assert counts.num_videos == 3
    scores, intervals = counts.scores(), task.intervals(table)
    assert scores.keys() == intervals.keys() == {"miou", "macc", "aacc"}
    assert all(intervals[key][0] <= scores[key] <= intervals[key][1] for key in ("macc", "aacc"))
    assert np.array_equal(task.confusion(table), counts.confusion.numpy())


def test_validation_sees_an_image_once_whatever_the_test_does():
    several = SegmentationTestConfig(mode="slide", stride=16, scales=(0.5, 1.0), flip=True)
    tasks = [task_of(CONFIG), task_of(replace(CONFIG, segmentation=replace(CONFIG.segmentation, test=several)))]
    batch = batch_of(*next(images_and_maps()))
    one, other = (task.validated(ByColour(), batch, CPU) for task in tasks)
    assert one == other


def test_the_least_and_the_greatest_class_weight_are_told():
    config = replace(CONFIG, train=replace(CONFIG.train, class_weights=(1.0, 0.5, 3.0, 2.0)))
    manifest = manifest_from_rows(
        video_ids=["a"], paths=["a"], labels=[0], splits=["train"], sizes_bytes=[1], class_names=["wall", "sky", "cup"]
    )
    assert task_of(config).notes(manifest) == ["train.class_weights: 0.5 (sky) to 3 (cup)"]
    assert task_of(CONFIG).notes(manifest) == []
