"""DeiT's image recipe, as `experiments/imagenet/` has it, against timm and Pillow; docs/decisions/0018 lists its rules.

Where both sides draw, timm's generators are replaced by ours, so that results have to be equal and not only alike.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment, create_transform, random_erasing, transforms
from torchvision.transforms import functional

from morphmlp.config import load_config
from morphmlp.config.clip import parse_rand_augment
from morphmlp.data.clips.augment import augment_clip, crop_and_resize, erase_normalised, evaluation_crops, normalise
from morphmlp.data.clips.draws import (
    OPERATION_ODDS,
    OPERATIONS,
    Box,
    ClipDraw,
    ClipKey,
    Erasing,
    Operation,
    draw_clip,
    draw_erasing,
    erase_box,
    random_resized_box,
    severity,
)
from morphmlp.data.clips.extract import TrainClips, TrainFrames
from morphmlp.data.clips.rand_augment import rand_augment
from morphmlp.data.stream.batches import ClipShape
from morphmlp.data.synthetic.kinetics_layout import realistic_frames

CONFIG = load_config(Path(__file__).parents[4] / "experiments" / "imagenet" / "morphmlp_t.yaml")
AUGMENT = CONFIG.augment
WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TIMM_NAMES = dict(zip(OPERATIONS, auto_augment._RAND_INCREASING_TRANSFORMS, strict=True))
PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class OurDraws:
    """Python's `random` and numpy's, with our generator in their place; `random` itself always says yes."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def random(self):
        return 0.0

    def uniform(self, low, high):
        return self.rng.uniform(low, high)

    def randint(self, low, high):
        return int(self.rng.integers(low, high + 1))


def picture(height, width, seed=1):
    frame = next(iter(realistic_frames(np.random.default_rng(seed), count=1)))
    return np.array(Image.fromarray(frame).resize((width, height)))


# RandAugment.


def theirs(name, magnitude, sign, pixels, interpolation="bicubic"):
    """timm's operation at a magnitude, on a Pillow image."""
    hparams = {"img_mean": AUGMENT.fill, "interpolation": PILLOW[interpolation]}
    operation = auto_augment.AugmentOp(TIMM_NAMES[name], prob=1.0, magnitude=magnitude, hparams=hparams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_augment.random, "random", lambda: 0.1 if sign > 0 else 0.9)
        return np.asarray(operation(Image.fromarray(pixels)))


def test_the_policy_of_the_experiment_is_timms():
    policy = parse_rand_augment(AUGMENT.rand_augment)
    timms = auto_augment.rand_augment_transform(AUGMENT.rand_augment, {})
    assert policy.num_ops == timms.num_layers == 2
    assert timms.choice_weights is None  # with replacement
    assert [name.lower() for name in TIMM_NAMES] == [
        "".join(f"_{c.lower()}" if c.isupper() else c for c in timms_name.removesuffix("Rel"))
        .removeprefix("_")
        .removesuffix("_increasing")
        .replace("auto_contrast", "autocontrast")
        for timms_name in TIMM_NAMES.values()
    ]
    for operation in timms.ops:
        assert (operation.prob, operation.magnitude, operation.magnitude_std, operation.magnitude_max) == (
            OPERATION_ODDS,
            policy.magnitude,
            policy.magnitude_std,
            None,
        )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_arguments_are_timms_at_every_magnitude(name, sign, monkeypatch):
    to_argument = auto_augment.LEVEL_TO_ARG[TIMM_NAMES[name]]
    monkeypatch.setattr(auto_augment.random, "random", lambda: 0.1 if sign > 0 else 0.9)
    for magnitude in np.linspace(0, 10, 101).tolist():
        (expected,) = (0,) if to_argument is None else to_argument(magnitude, {})
        assert severity(name, magnitude, sign=sign) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "interpolation"),
    [*((name, "bicubic") for name in OPERATIONS), *((name, "bilinear") for name in WARPS)],
)
def test_pixels_are_timms(name, interpolation):
    pixels = picture(64, 80)
    for magnitude, sign in itertools.product((0.0, 7.77, 9.13, 9.9), (1, -1)):
        operation = Operation(name=name, argument=severity(name, magnitude, sign=sign), interpolation=interpolation)
        frame = torch.from_numpy(pixels)[None]
        expected = theirs(name, magnitude, sign, pixels, interpolation)
        assert (rand_augment(frame, [operation], fill=AUGMENT.fill)[0].numpy() == expected).all()
        # Clips and GPUs warp in single precision: a sum next to a whole number can fall on its other side. (At 9.0 a
        # translation by 32.4 pixels has 4 % such sums.)
        clip = rand_augment(frame.repeat(2, 1, 1, 1), [operation], fill=AUGMENT.fill)[1].numpy()
        off = np.abs(clip.astype(int) - expected)
        assert off.max() <= (1 if name in WARPS else 0)
        assert (off > 0).mean() < 0.002


def test_a_coin_chooses_the_interpolation_of_each_scaling_and_warp():
    wild = replace(AUGMENT, interpolation="random", rand_augment="rand-m9-n4-mstd0.5-inc1")
    drawn = [
        draw_clip(wild, ClipKey(seed=0, epoch=0, video_id=f"v{n}"), repeat=0, height=64, width=64, crop_size=32)
        for n in range(400)
    ]
    fixed = [
        draw_clip(
            replace(wild, interpolation="bicubic"),
            ClipKey(seed=0, epoch=0, video_id=f"v{n}"),
            repeat=0,
            height=64,
            width=64,
            crop_size=32,
        )
        for n in range(400)
    ]
    scaled = [draw.interpolation for draw in drawn]
    warped = [operation.interpolation for draw in drawn for operation in draw.operations]
    for ways in (scaled, warped):
        assert set(ways) == {"bilinear", "bicubic"}
        assert np.mean([way == "bicubic" for way in ways]) == pytest.approx(0.5, abs=0.1)
    assert {operation.interpolation for draw in fixed for operation in draw.operations} == {"bicubic"}
    # It's a draw of its own: boxes and operations are the same without it.
    assert [draw.box for draw in drawn] == [draw.box for draw in fixed]
    assert [len(draw.operations) for draw in drawn] == [len(draw.operations) for draw in fixed]


# Crops, and the order.


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (40, 700), (700, 40)])
def test_boxes_are_timms_for_the_same_draws(height, width, monkeypatch):
    image = Image.new("RGB", (width, height))
    for seed in range(200):
        monkeypatch.setattr(transforms, "random", OurDraws(seed))
        expected = transforms.RandomResizedCropAndInterpolation.get_params(image, AUGMENT.scale, AUGMENT.aspect)
        box = random_resized_box(
            np.random.default_rng(seed), height=height, width=width, scale=AUGMENT.scale, aspect=AUGMENT.aspect
        )
        assert (box.top, box.left, box.height, box.width) == expected


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("box", [(0, 0, 224, 224), (10, 40, 180, 250), (100, 33, 61, 55), (3, 5, 300, 390)])
def test_a_scaled_crop_is_pillows(box, interpolation):
    pixels = picture(310, 410)
    top, left, height, width = box
    ours = crop_and_resize(
        torch.from_numpy(pixels)[None],
        Box(top=top, left=left, height=height, width=width),
        size=96,
        interpolation=interpolation,
    )[0].numpy()
    mode = functional.InterpolationMode(interpolation)
    expected = functional.resized_crop(Image.fromarray(pixels), *box, [96, 96], mode)
    off = np.abs(ours.astype(int) - np.asarray(expected))
    assert off.max() <= 1  # torch rounds its weights to fewer bits
    assert (off > 0).mean() < 0.06


def test_the_order_is_crop_flip_rand_augment():
    pixels = picture(120, 160)
    box = Box(top=7, left=20, height=90, width=100)
    names, magnitude = ("rotate", "equalize"), 9.0
    draw = ClipDraw(
        operations=tuple(Operation(name=name, argument=severity(name, magnitude, sign=1)) for name in names),
        box=box,
        flip=True,
        erase=Erasing(box=Box(top=0, left=0, height=9, width=9), key=(1,), on="normalised"),
        operations_on=AUGMENT.rand_augment_on,
        fill=AUGMENT.fill,
        interpolation="bicubic",
    )
    frames = torch.from_numpy(pixels)[None]
    expected = crop_and_resize(frames, box, size=64, interpolation="bicubic")[0].numpy()[:, ::-1].copy()
    for name in names:
        expected = theirs(name, magnitude, 1, expected)
    assert (augment_clip(frames, draw, size=64)[0].numpy() == expected).all()
    assert draw.describe().startswith("crop 90x100 at (7, 20) (bicubic), flip, rotate +27.0 deg, equalize, erase")


@pytest.mark.parametrize(("height", "width"), [(256, 340), (375, 500), (300, 400), (512, 384), (224, 224), (100, 180)])
def test_a_test_view_is_timms(height, width):
    pixels = picture(height, width)
    transform = create_transform(224, is_training=False, interpolation="bicubic", crop_pct=224 / 256)
    expected = transform(Image.fromarray(pixels))
    (crop,) = evaluation_crops(
        torch.from_numpy(pixels)[None],
        short_edge=CONFIG.clip.short_edge,
        crop_size=CONFIG.clip.crop_size,
        num_crops=CONFIG.test.num_crops,
        interpolation=CONFIG.clip.interpolation,
        centre_rounding=CONFIG.clip.centre_rounding,
    )
    ours = normalise(crop[None], mean=CONFIG.clip.pixel_mean, std=CONFIG.clip.pixel_std)[0, :, 0]
    off = (ours - expected).abs()
    assert off.max() < 1.01 / 255 / 0.224
    assert (off > 1e-5).float().mean() < 0.06


# Erasing.


@pytest.mark.parametrize("size", [224, 31])
def test_erased_boxes_are_timms_for_the_same_draws(size, monkeypatch):
    erasing = random_erasing.RandomErasing(probability=1.0, mode="pixel", device="cpu")
    for seed in range(100):
        monkeypatch.setattr(random_erasing, "random", OurDraws(seed))
        rows, columns = np.nonzero(erasing(torch.zeros(3, size, size)).abs().sum(0).numpy())
        box = erase_box(np.random.default_rng(seed), size=size)
        assert (rows.min(), rows.max() + 1) == (box.top, box.top + box.height)
        assert (columns.min(), columns.max() + 1) == (box.left, box.left + box.width)


@pytest.mark.parametrize("shape", [(3, 3, 40, 40), (3, 3, 2, 40, 40)], ids=["images", "clips"])
def test_noise_is_standard_normal_for_each_pixel_and_stays_in_its_box(shape):
    clips = torch.full(shape, 7.0)
    box = Box(top=3, left=5, height=30, width=20)
    torch.manual_seed(0)
    erase_normalised(clips, [None, box, None])
    noise = clips[1, ..., 3:33, 5:25].clone()
    assert noise.unique().numel() == noise.numel()
    assert noise.mean().item() == pytest.approx(0, abs=0.1)
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    assert (noise < -2.2).any()  # darker than black, which pixels can't be
    clips[1, ..., 3:33, 5:25] = 7.0
    assert (clips == 7.0).all()


def test_a_micro_batch_brings_the_boxes_of_its_clips_wherever_they_are_augmented():
    augment = replace(AUGMENT, repeats=3, short_edge=256)
    key = ClipKey(seed=1, epoch=2, video_id="v", copy=1)
    drawn = [draw_clip(augment, key, repeat=r, height=90, width=80, crop_size=224).erase for r in range(3)]
    expected = [None if erase is None else erase.box for erase in drawn]
    for extractor in (TrainClips(clip=CONFIG.clip, augment=augment), TrainFrames(clip=CONFIG.clip, augment=augment)):
        assert ClipShape.of(extractor).erased(key) == expected
    on_pixels = TrainClips(clip=CONFIG.clip, augment=replace(augment, erase_on="pixels"))
    assert ClipShape.of(on_pixels).erased(key) == []


def test_erasing_comes_as_often_as_asked():
    keys = [ClipKey(seed=0, epoch=0, video_id=f"v{number}") for number in range(2000)]
    drawn = [draw_erasing(AUGMENT, key, repeat=0, crop_size=224) for key in keys]
    assert np.mean([erasing is not None for erasing in drawn]) == pytest.approx(0.25, abs=0.04)
