"""Photometric distortion against OpenCV and mmsegmentation's arithmetic."""

import colorsys
import itertools

import cv2
import numpy as np
import pytest

from morphmlp.data.clips.photometric import adjust, from_hsv, to_hsv
from morphmlp.data.clips.scene_draws import Adjustment

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def columns(*levels):
    """All combinations of the levels as an image of one column, whose pixels OpenCV converts one by one."""
    return np.stack(np.meshgrid(*levels, indexing="ij"), -1).reshape(-1, 1, 3).astype(np.uint8)


def published(image, adjustments):
    """mmsegmentation's steps in the order given, each on uint8, in OpenCV's HSV."""

    def convert(levels, alpha=1, beta=0):
        return np.clip(levels.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    for adjustment in adjustments:
        if adjustment.name == "brightness":
            image = convert(image, beta=adjustment.argument)
        elif adjustment.name == "contrast":
            image = convert(image, alpha=adjustment.argument)
        else:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            if adjustment.name == "saturation":
                hsv[:, :, 1] = convert(hsv[:, :, 1], alpha=adjustment.argument)
            else:
                hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + int(adjustment.argument)) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image


def test_hue_saturation_and_value_are_those_of_opencv():
    levels = range(0, 256, 3)
    for colours in (columns(levels, levels, levels), columns(range(256), range(256), [0, 100, 255])):
        assert np.array_equal(np.stack(to_hsv(colours), -1), cv2.cvtColor(colours, cv2.COLOR_RGB2HSV))


def test_colours_come_back_from_hsv_rounded_and_within_a_level_of_opencv():
    hsv = columns(range(180), range(0, 256, 15), range(0, 256, 15))
    ours = from_hsv(*np.moveaxis(hsv, -1, 0)).astype(int)
    exact = [colorsys.hsv_to_rgb(h / 180, s / 255, v / 255) for h, s, v in hsv[:, 0].tolist()]
    assert np.abs(ours[:, 0] - 255 * np.array(exact)).max() < 0.503  # the tables' fixed point may turn a half
    assert np.abs(ours - cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).max() <= 1
    vectors = hsv.reshape(len(hsv) // 18, 18, 3)  # what OpenCV converts several at a time it cuts off
    assert np.abs(ours.reshape(vectors.shape) - cv2.cvtColor(vectors, cv2.COLOR_HSV2RGB)).max() <= 1


STEPS = {
    "brightness": (-32, -0.5, 0, 7.3, 32),
    "contrast": (0.5, 0.99, 1, 1.5),
    "saturation": (0.5, 1, 1.27, 1.5),
    "hue": (-18, -1, 0, 17),
}


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, arguments in STEPS.items() for argument in arguments]
)
def test_a_step_is_the_published_one(name, argument):
    colours = IMAGE.reshape(-1, 1, 3)
    step = [Adjustment(name=name, argument=argument)]
    ours, theirs = adjust(colours, step).astype(int), published(colours, step)
    if name in ("brightness", "contrast"):
        assert np.array_equal(ours, theirs)
    assert np.abs(ours - theirs).max() <= 1
    assert np.mean(ours != theirs) < 0.01  # halves


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)), ids="-".join)
def test_steps_follow_each_other_in_the_order_drawn(order):
    colours = IMAGE.reshape(-1, 1, 3)
    steps = [Adjustment(name=name, argument=STEPS[name][-1]) for name in order]
    ours, theirs = adjust(colours, steps).astype(int), published(colours, steps)
    assert np.abs(ours - theirs).mean() < 0.2
    assert np.abs(adjust(colours, steps[::-1]).astype(int) - theirs).mean() > 1


def test_the_image_stays_as_it_is():
    before = IMAGE.copy()
    adjust(IMAGE, [Adjustment(name=name, argument=arguments[0]) for name, arguments in STEPS.items()])
    assert np.array_equal(IMAGE, before)


def test_grey_stays_grey_under_saturation_and_hue():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    for name in ("saturation", "hue"):
        assert np.array_equal(adjust(grey, [Adjustment(name=name, argument=STEPS[name][0])]), grey)
