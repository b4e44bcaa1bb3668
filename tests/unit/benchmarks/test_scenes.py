"""What the measurement of scenes compares: crops that are alike on both sides, from the same files."""

import numpy as np
import pytest
import torch
from numpy import random

from morphmlp.benchmarks.opencv_scenes import opencv_crop, opencv_loader
from morphmlp.benchmarks.ray_scenes import SCENES, measure_scenes, write_scenes
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.scenes import crop_scene
from morphmlp.errors import ClusterError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 2)


def test_the_loader_gives_crops_with_maps_whose_zero_is_ignored(files):
    [(images, maps)] = opencv_loader(*files, 2, size=512, batch=2, workers=0)
    assert (images.shape, images.dtype) == ((2, 512, 512, 3), torch.uint8)
    assert (maps.shape, maps.dtype) == ((2, 512, 512), torch.uint8)
    assert set(maps.unique().tolist()) <= {*range(150), 255}


def test_crops_of_both_sides_are_alike_on_average():
    rng = np.random.default_rng(0)
    label_map = np.kron(rng.integers(0, 5, (16, 20)), np.ones((16, 16))).astype(np.uint8)
    image = np.stack([40 * label_map, 200 - 40 * label_map, np.full_like(label_map, 90)], axis=-1)
    random.seed(0)
    theirs = [opencv_crop(image, label_map, size=512) for _ in range(100)]
    ours = []
    for epoch in range(100):
        draw = SCENES.draw(label_map, ClipKey(seed=0, epoch=epoch, video_id="v"))
        ours.append(crop_scene(image, label_map, draw, size=512, fill=SCENES.fill))
    means, spreads, ignored = zip(*(_summary(crops) for crops in (ours, theirs)), strict=True)
    assert means[0] == pytest.approx(means[1], abs=5)
    assert spreads[0] == pytest.approx(spreads[1], abs=5)
    assert ignored[0] == pytest.approx(ignored[1], abs=0.1)


def _summary(crops):
    """Mean and spread of the crops' colours, and the share of pixels without a class."""
    colours = np.array([crop[labels < 255].mean(0) for crop, labels in crops])
    return colours.mean(0), colours.std(0), np.mean([labels == 255 for _, labels in crops])


def test_a_cluster_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ClusterError, match="RAY_ADDRESS is set"):
        measure_scenes(tmp_path, quick=True, progress=None)
