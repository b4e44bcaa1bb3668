"""Label maps of whole images, windows, scales and mirrored images, held against naive loops over whole maps."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from morphmlp.config.clip import ClipConfig
from morphmlp.config.segmentation import SegmentationConfig, SegmentationTestConfig
from morphmlp.data.clips.augment import normalise
from morphmlp.data.clips.scenes import scaled_image
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.tasks.segmentation import prediction
from morphmlp.tasks.segmentation.prediction import predict_labels, window_places

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
K = 7
CLIP = ClipConfig(
    sampling="segments",
    num_frames=1,
    frame_stride=None,
    crop_size=32,
    short_edge=32,
    channel_order="rgb",
    pixel_mean=MEAN,
    pixel_std=STD,
)
CONFIG = SegmentationConfig(
    decoder="semantic_fpn",
    decoder_channels=8,
    dropout=0.1,
    auxiliary_weight=0.0,
    loss_over="all_pixels",
    long_edge=128,
    resize_ratio=(0.5, 2.0),
    category_limit=0.75,
    flip=0.5,
    photometric=True,
)
WHOLE = SegmentationTestConfig()
SIZES = {
    "as scaled": (32, 48),
    "larger": (75, 101),
    "much larger": (170, 240),
    "smaller": (11, 17),
    "one pixel": (1, 1),
    "tall": (97, 40),
    "wide, held by its long side": (20, 200),
    "a line": (1, 300),
}


class Strided(nn.Module):
    """Logits at a fourth of the size, rounded up, with something to say of every pixel."""

    is_image, pixel_mean, pixel_std = True, MEAN, STD

    def __init__(self, k=K, stride=4):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn((k, 3, 5, 5), generator=generator) / 4)
        self.stride, self.seen = stride, []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return functional.conv2d(images, self.weight, stride=self.stride, padding=2)


def picture(size, seed=0):
    """Smooth, so that no pixel's classes are nearly equal by chance alone."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 3, *(side // 8 + 2 for side in size)), generator=generator)
    return (
        (255 * functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1))[0].permute(1, 2, 0).byte().numpy()
    )


def label_map(size, seed=1):
    labels = np.random.default_rng(seed).integers(0, K, size).astype(np.uint8)
    labels[np.random.default_rng(seed + 1).random(size) < 0.2] = IGNORED
    return labels


def scaled(image, scale=1.0, divisor=32):
    """By mmcv's `rescale_size` and PVT's `AlignResize`, written out."""
    height, width = image.shape[:2]
    longest, shortest = int(CONFIG.long_edge * scale), int(CLIP.short_edge * scale)
    factor = min(longest / max(height, width), shortest / min(height, width))
    size = max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)
    if divisor is not None:
        size = tuple(int(np.ceil(side / divisor)) * divisor for side in size)
    return scaled_image(torch.as_tensor(image), size)


def whole_logits(network, pixels):
    """Of a scaled image, at its size."""
    small = network(normalise(pixels[None, None], mean=MEAN, std=STD)[:, :, 0])
    return functional.interpolate(small, size=pixels.shape[:2], mode="bilinear", align_corners=False)


def slide_logits(network, pixels, *, window, stride):
    """mmsegmentation's `slide_inference`, written out."""
    height, width = pixels.shape[:2]
    total, count = torch.zeros((1, K, height, width)), torch.zeros((1, 1, height, width))
    for row in range(max(height - window + stride - 1, 0) // stride + 1):
        for column in range(max(width - window + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + window, height), min(column * stride + window, width)
            top, left = max(bottom - window, 0), max(right - window, 0)
            total[:, :, top:bottom, left:right] += whole_logits(network, pixels[top:bottom, left:right])
            count[:, :, top:bottom, left:right] += 1
    assert count.min() > 0
    return total / count


def naive(network, image, test):
    """Log probabilities at the image's own size, by whole maps."""
    shares = []
    for scale in test.scales:
        for mirrored in (False, True) if test.flip else (False,):
            pixels = scaled(image, scale, test.size_divisor)
            pixels = pixels.flip(1) if mirrored else pixels
            if test.stride is None:
                logits = whole_logits(network, pixels)
            else:
                logits = slide_logits(network, pixels, window=CLIP.crop_size, stride=test.stride)
            logits = functional.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
            shares.append(logits.softmax(1).flip(3) if mirrored else logits.softmax(1))
    return torch.stack(shares).mean(0).log()[0]


def predicted(image, test=WHOLE, *, config=CONFIG, labels=None, network=None):
    network = network or Strided()
    return predict_labels(network, image, config=replace(config, test=test), clip=CLIP, device=CPU, with_loss_of=labels)


TESTS = {
    "whole": WHOLE,
    "windows": SegmentationTestConfig(mode="slide", stride=21),
    "windows side by side": SegmentationTestConfig(mode="slide", stride=32),
    "mirrored": SegmentationTestConfig(flip=True),
    "scales": SegmentationTestConfig(scales=(0.5, 1.0, 1.75)),
    "scales and mirrored": SegmentationTestConfig(scales=(0.5, 0.75, 1.25), flip=True),
    "in proportion": SegmentationTestConfig(size_divisor=None),
    "windows in proportion": SegmentationTestConfig(mode="slide", stride=21, size_divisor=None),
    "scales and mirrored in proportion": SegmentationTestConfig(scales=(0.5, 1.25), flip=True, size_divisor=None),
    "multiples of 12": SegmentationTestConfig(size_divisor=12),
    "windows, scales and mirrored": SegmentationTestConfig(mode="slide", stride=21, scales=(1.0, 1.5), flip=True),
}


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
@pytest.mark.parametrize("band", [2**25, 4 * K * 700, 1], ids=["one band", "bands", "row by row"])
def test_a_prediction_is_that_of_whole_maps(monkeypatch, size, test, band):
    monkeypatch.setattr(prediction, "BAND_BYTES", band)
    image, labels = picture(size), label_map(size)
    expected = naive(Strided(), image, test)
    found = predicted(image, test, labels=labels)
    assert found.labels.shape == size
    # Where two classes are as good as equal, another order of sums may take the other.
    two = expected.topk(2, dim=0).values
    clear = ((two[0] - two[1]) > 1e-5).numpy()
    assert clear.mean() > 0.9
    assert np.array_equal(found.labels[clear], expected.argmax(0).numpy()[clear])
    theirs = functional.nll_loss(
        expected[None], torch.from_numpy(labels).long()[None], ignore_index=IGNORED, reduction="sum"
    )
    assert found.loss == pytest.approx(theirs.item() / labels.size, rel=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (300, 300), (9, 9)])
@pytest.mark.parametrize("stride", [1, 20, 32])
def test_one_window_that_covers_the_image_gives_what_the_whole_image_gives(size, stride):
    image, labels = picture(size), label_map(size)
    whole = predicted(image, labels=labels)
    windows = predicted(image, SegmentationTestConfig(mode="slide", stride=stride), labels=labels)
    assert np.array_equal(whole.labels, windows.labels)
    assert whole.loss == windows.loss


@pytest.mark.parametrize(
    ("side", "places"),
    [(32, [0]), (20, [0]), (33, [0, 1]), (53, [0, 21]), (54, [0, 21, 22]), (100, [0, 21, 42, 63, 68])],
)
def test_the_last_window_is_moved_in(side, places):
    assert window_places(side, window=min(side, 32), stride=21) == places


@pytest.mark.parametrize("side", [1, 31, 32, 33, 100, 101])
@pytest.mark.parametrize("stride", [1, 7, 31, 32])
def test_windows_cover_each_pixel_and_stay_inside(side, stride):
    window = min(side, 32)
    places = window_places(side, window=window, stride=stride)
    assert {pixel for place in places for pixel in range(place, place + window)} == set(range(side))
    assert len(set(places)) == len(places)


def test_windows_have_the_crops_size_or_the_images_where_that_is_smaller():
    network = Strided()
    test = SegmentationTestConfig(mode="slide", stride=32, size_divisor=None)
    predicted(picture((10, 200)), test, network=network)
    # Scaled to 6 x 128, held by the long side.
    assert network.seen == [(1, 3, 6, 32)] * 4


@pytest.mark.parametrize(("divisor", "columns"), [(None, 43), (32, 64), (8, 48)])
def test_the_image_is_scaled_as_opencv_does(divisor, columns):
    """All but some pixels next to an edge, where one level of grey decides."""
    image = picture((75, 101))
    seen = torch.from_numpy(cv2.resize(image, (columns, 32), interpolation=cv2.INTER_LINEAR))
    logits = whole_logits(Strided(), seen)
    expected = functional.interpolate(logits, size=(75, 101), mode="bilinear", align_corners=False)[0].argmax(0)
    found = predicted(image, SegmentationTestConfig(size_divisor=divisor)).labels
    assert (found == expected.numpy()).mean() > 0.99


class Coarse(nn.Module):
    """Two classes, bright and dark, of cells of 32 px, brought to a fourth of the image's size as decoders do."""

    is_image, pixel_mean, pixel_std = True, (0.5,) * 3, (0.5,) * 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        cells = functional.avg_pool2d(images.mean(1, keepdim=True), 32, ceil_mode=True)
        fine = functional.interpolate(cells, [-(-side // 4) for side in images.shape[-2:]], mode="bilinear")
        return torch.cat([fine, -fine], 1)


@pytest.mark.parametrize("columns", range(256, 289, 3))
def test_a_border_on_the_right_stays_in_its_place_at_any_width(columns):
    border = 224 * columns // -(-columns // 32) // 32  # between two cells, once both sides are multiples of 32
    image = np.zeros((32, columns, 3), np.uint8)
    image[:, :border] = 255
    config = replace(CONFIG, long_edge=1024)
    found = predicted(image, SegmentationTestConfig(), config=config, network=Coarse()).labels
    assert abs((found[16] == 0).sum() - border) <= 2


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
def test_the_loss_over_valid_pixels_is_that_over_all_by_their_shares(test):
    image, labels = picture((50, 60)), label_map((50, 60))
    over_all = predicted(image, test, labels=labels).loss
    over_valid = predicted(image, test, labels=labels, config=replace(CONFIG, loss_over="valid_pixels")).loss
    assert over_valid == pytest.approx(over_all * labels.size / (labels != IGNORED).sum())


@pytest.mark.parametrize("over", ["all_pixels", "valid_pixels"])
def test_an_image_without_a_labelled_pixel_has_a_loss_of_0(over):
    nothing = np.full((20, 20), IGNORED, dtype=np.uint8)
    assert predicted(picture((20, 20)), labels=nothing, config=replace(CONFIG, loss_over=over)).loss == 0


def test_without_a_label_map_there_is_no_loss():
    assert predicted(picture((20, 20))).loss is None


def test_a_mirrored_image_has_the_mirrored_prediction_where_both_are_seen():
    image, test = picture((40, 61)), SegmentationTestConfig(flip=True)
    assert np.array_equal(predicted(image[:, ::-1].copy(), test).labels, predicted(image, test).labels[:, ::-1])


def test_no_map_of_logits_is_larger_than_a_band(monkeypatch):
    """Of a large image: what torch makes on the way, tensor by tensor."""
    monkeypatch.setattr(prediction, "BAND_BYTES", 2**14)
    image, labels, largest = picture((300, 400)), label_map((300, 400)), 0

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float32:
                largest = max(largest, out.numel() * 4)
            return out

    with Watched():
        found = predicted(image, labels=labels)
    assert found.labels.shape == (300, 400)
    whole = 4 * K * 300 * 400
    assert largest < 2 * 2**14 < whole / 100
