"""What the measurement of images compares: realistic files, loaders that end alike, decoders held to Pillow."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from morphmlp.benchmarks.image_decoders import compare_image_decoders
from morphmlp.benchmarks.image_loader_program import ImageFiles, timm_loader, torchvision_loader
from morphmlp.benchmarks.ray_images import AUGMENT, measure_images
from morphmlp.data.synthetic.photographs import photograph, write_photographs
from morphmlp.errors import ClusterError


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("images"), 4)


def test_images_are_the_same_whenever_they_are_made_and_kept(paths, tmp_path):
    again = write_photographs(tmp_path, 4)
    for one, other in zip(paths, again, strict=True):
        with open(one, "rb") as first, open(other, "rb") as second:  # noqa: PTH123
            assert first.read() == second.read()


def test_energy_falls_as_in_photographs_and_files_weigh_what_theirs_do():
    """Amplitudes of natural images fall as 1 / frequency, with an exponent of 0.8 to 1.5 over scenes."""
    picture = photograph(np.random.default_rng(0), height=375, width=500)
    grey = picture.mean(axis=2)
    spectrum = np.abs(np.fft.fft2(grey - grey.mean()))
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)[None])
    band = (frequency > 0.02) & (frequency < 0.3)
    slope, _ = np.polyfit(np.log(frequency[band]), np.log(spectrum[band]), 1)
    assert -1.5 < slope < -0.8
    target = BytesIO()
    Image.fromarray(picture).save(target, "JPEG", quality=90)
    assert 80_000 < len(target.getvalue()) < 150_000


@pytest.mark.parametrize("make", [torchvision_loader, timm_loader])
def test_each_loader_gives_uint8_batches_of_crops(make, paths):
    augment = replace(AUGMENT, interpolation="bilinear", scale=(1.0, 1.0), aspect=(1.333, 1.3334), flip=0.0)
    files = ImageFiles(paths[:1] * 2, 8)
    batches = [images for images, _ in make(files, augment, size=32, batch=4, workers=0)]
    assert [(tuple(images.shape), images.dtype) for images in batches] == [((4, 3, 32, 32), torch.uint8)] * 2
    with Image.open(paths[0]) as image:
        whole = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(whole - batches[0][0].permute(1, 2, 0).numpy()).mean() < 5


def test_decoders_are_held_to_pillow(paths):
    found = compare_image_decoders(paths, rounds=1)
    assert {"pillow", "simplejpeg"} <= found.keys()
    assert found["simplejpeg"].most_off == 0
    assert all(cost.cpu_ms > 0 and cost.version for cost in found.values())


def test_a_cluster_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ClusterError, match="RAY_ADDRESS is set"):
        measure_images(tmp_path, quick=True, progress=None)
