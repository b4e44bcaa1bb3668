"""The training pipeline of segmentation against mmcv's and mmsegmentation's arithmetic, with OpenCV's pixels."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from morphmlp.config.clip import ClipConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.scene_draws import SceneDraw, draw_scene, scaled_size
from morphmlp.data.clips.scenes import (
    TrainScenes,
    WholeScenes,
    class_shares,
    crop_scene,
    cut_map,
    scaled_image,
)
from morphmlp.data.decoding.protocol import Box, DecodedFrames, VideoInfo
from morphmlp.errors import DecodeError

PUBLISHED = SegmentationConfig(
    decoder="semantic_fpn",
    decoder_channels=128,
    dropout=0.1,
    auxiliary_weight=0.0,
    loss_over="all_pixels",
    long_edge=2048,
    resize_ratio=(0.5, 2.0),
    category_limit=0.75,
    flip=0.5,
    photometric=True,
)
CLIP = ClipConfig(
    sampling="segments",
    num_frames=1,
    frame_stride=None,
    crop_size=512,
    short_edge=512,
    channel_order="rgb",
    pixel_mean=(0.485, 0.456, 0.406),
    pixel_std=(0.229, 0.224, 0.225),
)
SMALL = TrainScenes(
    clip=replace(CLIP, crop_size=32, short_edge=32), segmentation=replace(PUBLISHED, long_edge=128), num_classes=150
)
SIZES = ((512, 683), (683, 512), (300, 2000), (97, 101), (1, 40), (333, 500))
MEAN_COLOUR = (124, 116, 104)


def key_of(epoch=0, video_id="v", copy=0):
    return ClipKey(seed=0, epoch=epoch, video_id=video_id, copy=copy)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blocks(height, width, *, side=40, classes=150, seed=0):
    """A map of squares, some of them ignored."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, classes, (-(-height // side), -(-width // side)), dtype=np.uint8)
    cells[rng.random(cells.shape) < 0.1] = 255
    return np.ascontiguousarray(np.kron(cells, np.ones((side, side), dtype=np.uint8))[:height, :width])


class Still:
    """An open image."""

    def __init__(self, pixels):
        height, width = pixels.shape[:2]
        self.info = VideoInfo(num_frames=1, fps=1.0, pts_s=(0.0,), width=width, height=height, codec="png")
        self.pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        self.pixels.flags.writeable = False

    def read(self, indices):
        assert list(indices) == [0]
        return DecodedFrames(frames=self.pixels.reshape(1, *self.pixels.shape), concealed=0, refused=1)


def extract(extractor, image, label_map, **key):
    return extractor.extract(Still(image), key_of(**key), Still(label_map))


def mmcv_rescale_size(old_size, scale):
    """mmcv's function, restated: sizes and scale are (width, height)."""
    w, h = old_size
    factor = min(max(scale) / max(h, w), min(scale) / min(h, w))
    return int(w * float(factor) + 0.5), int(h * float(factor) + 0.5)


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.5, 2.0))
def test_sizes_are_those_of_mmcv(height, width, ratio):
    scale = int(2048 * ratio), int(512 * ratio)
    new_width, new_height = mmcv_rescale_size((width, height), scale)
    ours = scaled_size(height, width, long_edge=scale[0], short_edge=scale[1])
    assert ours == (max(new_height, 1), max(new_width, 1))


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((512, 683), (512, 683)), ((375, 500), (512, 683)), ((300, 2000), (307, 2048)), ((1, 5000), (1, 2048))],
)
def test_a_scaled_image_stays_inside_both_edges(size, scaled):
    assert scaled_size(*size, long_edge=2048, short_edge=512) == scaled


@pytest.mark.parametrize(("size", "ratio"), list(itertools.product(SIZES, (0.5, 0.77, 1.0, 1.31, 2.0))))
def test_images_and_maps_are_scaled_as_opencv_does(size, ratio):
    scaled = scaled_size(*size, long_edge=int(512 * ratio), short_edge=int(128 * ratio))
    image, label_map = noise(*size), noise(*size, seed=1)[..., 0].copy()
    ours = scaled_image(torch.from_numpy(image), scaled).numpy().astype(int)
    theirs = cv2.resize(image, scaled[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(ours - theirs).max() <= 1
    assert abs(np.mean(ours - theirs)) < 0.5
    whole = Box(top=0, left=0, height=scaled[0], width=scaled[1])
    nearest = cv2.resize(label_map, scaled[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(cut_map(label_map, *scaled, whole), nearest)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 700), st.integers(1, 700))
def test_a_map_shows_the_pixels_that_opencv_shows(height, width, new_height, new_width):
    label_map = noise(height, width)[..., 0].copy()
    box = Box(top=new_height // 3, left=new_width // 4, height=new_height - new_height // 3, width=new_width // 2 + 1)
    box = replace(box, width=min(box.width, new_width - box.left))
    nearest = cv2.resize(label_map, (new_width, new_height), interpolation=cv2.INTER_NEAREST)
    ours = cut_map(label_map, new_height, new_width, box)
    assert np.array_equal(ours, nearest[box.top :, box.left : box.left + box.width])


def test_scaling_on_a_device_without_a_kernel_for_bytes_rounds_the_same_floats():
    image = torch.from_numpy(noise(90, 110))
    floats = torch.nn.functional.interpolate(image[None].permute(0, 3, 1, 2).float(), size=(70, 140), mode="bilinear")
    ours = scaled_image(image, (70, 140)).float()
    assert (floats.round()[0].permute(1, 2, 0) - ours).abs().max() <= 1


def mmsegmentation_crop(image, label_map, draw, size):
    """Resize, RandomCrop, RandomFlip and Pad of mmsegmentation with what was drawn."""
    image = cv2.resize(image, (draw.width, draw.height), interpolation=cv2.INTER_LINEAR)
    label_map = cv2.resize(label_map, (draw.width, draw.height), interpolation=cv2.INTER_NEAREST)
    top, left = draw.box.top, draw.box.left
    image, label_map = image[top : top + size, left : left + size], label_map[top : top + size, left : left + size]
    if draw.flip:
        image, label_map = cv2.flip(image, 1), cv2.flip(label_map, 1)
    below, beside = size - image.shape[0], size - image.shape[1]
    return (
        cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=MEAN_COLOUR),
        cv2.copyMakeBorder(label_map, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=255),
    )


@pytest.mark.parametrize(("size", "epoch"), list(itertools.product(SIZES, range(4))))
def test_a_crop_is_that_of_mmsegmentation(size, epoch):
    extractor = replace(SMALL, segmentation=replace(SMALL.segmentation, photometric=False))
    image, label_map = noise(*size), blocks(*size)
    extracted = extract(extractor, image, label_map, epoch=epoch)
    draw = extractor.draw(label_map, key_of(epoch=epoch))
    expected, expected_map = mmsegmentation_crop(image, label_map, draw, 32)
    assert extracted.clips.shape == (1, 1, 32, 32, 3)
    assert extracted.maps.shape == (1, 32, 32)
    assert np.abs(extracted.clips[0, 0].astype(int) - expected).max() <= 1
    assert np.array_equal(extracted.maps[0], expected_map)
    assert (extracted.concealed, extracted.refused) == (0, 1)


def test_what_lies_next_to_a_small_image_has_the_mean_colour_and_no_class():
    draw = SceneDraw(height=20, width=24, box=Box(top=0, left=0, height=20, width=24), flip=True, adjustments=())
    image, label_map = noise(20, 24), blocks(20, 24)
    crop, cut = crop_scene(image, label_map, draw, size=32, fill=SMALL.fill)
    assert np.array_equal(crop[:20, :24], image[:, ::-1])
    assert np.array_equal(cut[:20, :24], label_map[:, ::-1])
    for outside in (np.s_[20:, :], np.s_[:, 24:]):
        assert (crop[outside] == MEAN_COLOUR).all()
        assert (cut[outside] == 255).all()
    mean, std = np.array(CLIP.pixel_mean), np.array(CLIP.pixel_std)
    assert (np.abs((np.array(MEAN_COLOUR) / 255 - mean) / std) < 0.01).all()  # published: 0


@given(st.integers(60, 900), st.integers(60, 900), st.integers(0, 10**6))
def test_an_image_painted_from_its_map_stays_in_line_with_it(height, width, epoch):
    extractor = replace(SMALL, clip=CLIP, segmentation=replace(PUBLISHED, photometric=False))
    label_map = blocks(height, width, side=30, seed=epoch)
    colours = noise(1, 256, seed=2)[0]
    colours[255] = MEAN_COLOUR
    draw = extractor.draw(label_map, key_of(epoch=epoch))
    crop, cut = crop_scene(colours[label_map], label_map, draw, size=512, fill=extractor.fill)
    # Bilinear and nearest read up to half a scaled pixel and one pixel apart: where all are alike there, so are they.
    reach = 2 * int(np.ceil(height / draw.height)) + 3
    inside = ndimage.maximum_filter(label_map, reach) == ndimage.minimum_filter(label_map, reach)
    _, away = crop_scene(colours[label_map], inside.astype(np.uint8), draw, size=512, fill=extractor.fill)
    assert np.mean(away > 0) > 0.3
    assert np.array_equal(crop[away > 0], colours[cut[away > 0]])


def test_shares_of_classes_leave_out_ignored_pixels():
    label_map = blocks(90, 130)
    classes, counts = np.unique(label_map[label_map < 255], return_counts=True)
    assert len(classes) > 2
    assert class_shares(label_map) == pytest.approx(counts / counts.sum())
    assert class_shares(np.full((3, 4), 255, dtype=np.uint8)) == ()


def drawn(shares, config=PUBLISHED, **key):
    """A draw from a wide image whose crops hold what `shares` says, and the boxes that were looked at."""
    looked_at = []

    def look(_height, _width, box):
        looked_at.append(box)
        return shares(box)

    sizes = {"height": 600, "width": 800, "short_edge": 512, "crop_size": 64}
    return draw_scene(config, key_of(**key), **sizes, class_shares=look), looked_at


@pytest.mark.parametrize("shares", [(), (1.0,), (0.75, 0.25), (0.1, 0.9)])
def test_a_crop_of_one_class_is_drawn_anew_ten_times_and_then_taken_unseen(shares):
    draw, looked_at = drawn(lambda _: shares)
    assert len(looked_at) == 10
    assert draw.box not in looked_at
    assert len(set(looked_at)) == 10


@pytest.mark.parametrize("shares", [(0.7499, 0.2501), (0.2, 0.3, 0.5)])
def test_the_first_crop_of_several_classes_is_taken(shares):
    draw, looked_at = drawn(lambda _: shares)
    assert looked_at == [draw.box]


def test_without_a_limit_the_first_crop_is_taken_unseen():
    draw, looked_at = drawn(lambda _: (1.0,), replace(PUBLISHED, category_limit=1.0))
    assert looked_at == []
    assert draw.box == drawn(lambda _: (0.5, 0.5))[1][0]


def test_equal_keys_draw_alike_and_other_keys_otherwise():
    image, label_map = noise(90, 120), blocks(90, 120, side=9)
    keys = [{}, {"epoch": 1}, {"video_id": "w"}, {"copy": 1}]
    crops = [extract(SMALL, image, label_map, **key).clips.tobytes() for key in keys]
    assert len(set(crops)) == len(keys)
    assert crops == [extract(SMALL, image, label_map, **key).clips.tobytes() for key in keys]


def test_one_setting_leaves_the_draws_of_the_others_alone():
    for epoch in range(20):
        whole, _ = drawn(lambda _: (0.5, 0.5), epoch=epoch)
        assert (
            replace(whole, adjustments=())
            == drawn(lambda _: (0.5, 0.5), replace(PUBLISHED, photometric=False), epoch=epoch)[0]
        )
        assert replace(whole, flip=False) == drawn(lambda _: (0.5, 0.5), replace(PUBLISHED, flip=0.0), epoch=epoch)[0]


DRAWS = [drawn(lambda _: (0.5, 0.5), epoch=epoch)[0] for epoch in range(4000)]


def test_ratios_and_places_of_crops_are_uniform_over_their_ranges():
    ratios = np.array([draw.height / 512 for draw in DRAWS])
    assert np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0.5, 0.875, 1.25, 1.625, 2], abs=0.04)
    for place in (
        [draw.box.top / (draw.height - 64) for draw in DRAWS],
        [draw.box.left / (draw.width - 64) for draw in DRAWS],
    ):
        assert np.quantile(place, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.03)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5), ("hue", -18, 17)],
)
def test_each_change_of_colours_has_its_odds_and_range(name, low, high):
    arguments = [step.argument for draw in DRAWS for step in draw.adjustments if step.name == name]
    assert len(arguments) / len(DRAWS) == pytest.approx(0.5, abs=0.03)
    assert min(arguments) == pytest.approx(low, abs=0.02 * (high - low))
    assert max(arguments) == pytest.approx(high, abs=0.02 * (high - low))
    assert np.mean(arguments) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    if name == "hue":
        assert set(arguments) == set(range(-18, 18))


def test_a_coin_puts_contrast_in_front_of_saturation_and_hue_or_behind_them():
    orders = [tuple(step.name for step in draw.adjustments) for draw in DRAWS]
    full = [order for order in orders if len(order) == 4]
    before, behind = (
        ("brightness", "contrast", "saturation", "hue"),
        ("brightness", "saturation", "hue", "contrast"),
    )
    assert set(full) == {before, behind}
    assert np.mean([order == before for order in full]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([draw.flip for draw in DRAWS]) == pytest.approx(0.5, abs=0.03)


def test_draws_say_in_words_what_they_do():
    assert DRAWS[0].describe().startswith(f"scale to {DRAWS[0].height}x{DRAWS[0].width}, crop 64x64 at (")
    words = {word for draw in DRAWS[:200] for word in draw.describe().replace(",", "").split()}
    assert {"flip", "brightness", "contrast", "saturation", "hue", "steps"} <= words


def test_whole_scenes_are_images_and_maps_as_they_are_stored():
    extractor = WholeScenes(clip=CLIP, segmentation=PUBLISHED, num_classes=150)
    image, label_map = noise(70, 90), blocks(70, 90)
    extracted = extract(extractor, image, label_map)
    assert np.array_equal(extracted.clips, image[None, None])
    assert np.array_equal(extracted.maps, label_map[None])


@pytest.mark.parametrize("extractor", [SMALL, WholeScenes(clip=CLIP, segmentation=PUBLISHED, num_classes=150)])
@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.full((70, 91), 1), "the image has 90x70 px and its label map 91x70"),
        (np.full((90, 70), 1), "the image has 90x70 px and its label map 70x90"),
        (np.where(np.arange(6300).reshape(70, 90) == 181, 150, 3), "has class 150 at row 2, column 1; there are 150"),
        (np.where(np.arange(6300).reshape(70, 90) == 181, 254, 255), "has class 254 at row 2, column 1; there are 150"),
    ],
)
def test_maps_that_do_not_fit_are_refused(extractor, label_map, message):
    with pytest.raises(DecodeError, match=message):
        extract(extractor, noise(70, 90), label_map.astype(np.uint8))


@pytest.mark.parametrize("label_map", [np.full((70, 90), 255), np.full((70, 90), 149), np.zeros((70, 90))])
def test_maps_of_one_class_or_none_are_used(label_map):
    extracted = extract(SMALL, noise(70, 90), label_map.astype(np.uint8))
    assert set(np.unique(extracted.maps)) <= {*np.unique(label_map), 255}


def test_an_image_without_a_map_is_refused():
    with pytest.raises(DecodeError, match="has no label map"):
        SMALL.extract(Still(noise(70, 90)), key_of())
