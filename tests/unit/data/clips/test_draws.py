"""What chance decides about a clip: laws, keys and independence."""

import dataclasses
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from morphmlp.config.clip import AugmentConfig, RandAugmentPolicy, parse_rand_augment
from morphmlp.data.clips.draws import (
    ERASE_ASPECT,
    OPERATIONS,
    Box,
    ClipDraw,
    ClipKey,
    Erasing,
    Operation,
    draw_clip,
    draw_fractions,
    draw_operations,
    erase_box,
    random_resized_box,
    severity,
)

ROOT = Path(__file__).parents[4]
PUBLISHED = AugmentConfig(
    repeats=2,
    short_edge=None,
    rand_augment="rand-m7-n4-mstd0.5-inc1",
    scale=(0.08, 1.0),
    aspect=(0.75, 1.3333),
    flip=0.5,
    erase=0.25,
)
RANGES = {"scale": PUBLISHED.scale, "aspect": PUBLISHED.aspect}
POLICY = parse_rand_augment("rand-m7-n4-mstd0.5-inc1")


def draw(augment=PUBLISHED, *, seed=0, epoch=0, video_id="v", repeat=0, height=256, width=340, crop_size=224):
    key = ClipKey(seed=seed, epoch=epoch, video_id=video_id)
    return draw_clip(augment, key, repeat=repeat, height=height, width=width, crop_size=crop_size)


def many(count, augment=PUBLISHED, **size):
    return [draw(augment, video_id=f"v{number}", **size) for number in range(count)]


def test_the_same_key_draws_the_same_in_another_process():
    code = (
        "from tests.unit.data.clips.test_draws import draw; "
        "print([draw(epoch=3, video_id=v, repeat=1) for v in ('a', 'b', 'c', 'd')])"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str([draw(epoch=3, video_id=v, repeat=1) for v in ("a", "b", "c", "d")])


def test_draws_take_no_torch():
    code = "import sys, morphmlp.data.clips.draws; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


def test_every_part_of_the_key_matters():
    keys = [{}, {"seed": 1}, {"epoch": 1}, {"video_id": "w"}, {"repeat": 1}]
    assert len({draw(**key).box for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ({"rand_augment": None}, "operations"),
        ({"flip": 0.0}, "flip"),
        ({"erase": 0.0}, "erase"),
        ({"scale": (1.0, 1.0), "aspect": (1.0, 1.0)}, "box"),
    ],
)
def test_switching_one_augmentation_off_leaves_the_draws_of_the_others(off, gone):
    for with_it, without in zip(many(40), many(40, dataclasses.replace(PUBLISHED, **off)), strict=True):
        values = [{**vars(clip), gone: None} for clip in (with_it, without)]
        assert values[0] == values[1]


def test_the_size_of_the_frames_plays_a_part_in_the_crop_alone():
    small, large = draw(height=120, width=160), draw(height=480, width=640)
    assert small.box != large.box
    assert dataclasses.replace(small, box=large.box) == large


def test_flips_and_erasing_come_as_often_as_asked():
    clips = many(2000)
    assert np.mean([clip.flip for clip in clips]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([clip.erase is not None for clip in clips]) == pytest.approx(0.25, abs=0.04)
    always = many(50, dataclasses.replace(PUBLISHED, flip=1.0, erase=1.0))
    assert all(clip.flip and clip.erase is not None for clip in always)


def test_erasing_has_a_key_of_its_own_for_its_noise():
    keys = [draw(dataclasses.replace(PUBLISHED, erase=1.0), repeat=repeat).erase.key for repeat in range(2)]
    assert keys == [(0, 0, "v", 0, "noise"), (0, 0, "v", 1, "noise")]


# RandAugment.


def operations(count=4000, policy=POLICY):
    rng = np.random.default_rng(0)
    return [draw_operations(rng, policy=policy) for _ in range(count)]


def test_each_drawn_operation_is_carried_out_with_half_the_chance():
    counts = np.bincount([len(drawn) for drawn in operations()], minlength=5) / 4000
    assert counts == pytest.approx([1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16], abs=0.025)


def test_all_fifteen_operations_are_equally_likely_and_can_come_twice():
    drawn = operations()
    counts = Counter(operation.name for clip in drawn for operation in clip)
    assert set(counts) == set(OPERATIONS)
    shares = np.array([counts[name] for name in OPERATIONS]) / sum(counts.values())
    assert shares == pytest.approx(np.full(15, 1 / 15), abs=0.01)
    assert any(len({operation.name for operation in clip}) < len(clip) for clip in drawn)


def test_magnitudes_are_normal_around_the_policy_s_with_either_sign():
    shears = np.array([op.argument for clip in operations() for op in clip if op.name.startswith("shear")])
    magnitudes = np.abs(shears) / 0.03
    assert magnitudes.mean() == pytest.approx(7, abs=0.06)
    assert magnitudes.std() == pytest.approx(0.5, abs=0.05)
    assert np.mean(shears > 0) == pytest.approx(0.5, abs=0.06)


def test_magnitudes_stay_in_their_range():
    wild = RandAugmentPolicy(magnitude=9.0, num_ops=4, magnitude_std=8.0)
    turns = [abs(op.argument) for clip in operations(policy=wild) for op in clip if op.name == "rotate"]
    assert (min(turns), max(turns)) == (0.0, 30.0)


def test_without_deviation_every_magnitude_is_the_policy_s():
    fixed = parse_rand_augment("rand-m5-n2-inc1")
    turns = {abs(op.argument) for clip in operations(500, fixed) for op in clip if op.name == "rotate"}
    assert turns == {15.0}


@pytest.mark.parametrize(
    ("name", "at_0", "at_7", "at_10"),
    [
        ("autocontrast", 0, 0, 0),
        ("equalize", 0, 0, 0),
        ("invert", 0, 0, 0),
        ("rotate", 0, 21, 30),
        ("posterize", 4, 2, 0),
        ("solarize", 256, 77, 0),
        ("solarize_add", 0, 77, 110),
        ("color", 1, 1.63, 1.9),
        ("contrast", 1, 1.63, 1.9),
        ("brightness", 1, 1.63, 1.9),
        ("sharpness", 1, 1.63, 1.9),
        ("shear_x", 0, 0.21, 0.3),
        ("shear_y", 0, 0.21, 0.3),
        ("translate_x", 0, 0.315, 0.45),
        ("translate_y", 0, 0.315, 0.45),
    ],
)
def test_severities_are_the_published_ones(name, at_0, at_7, at_10):
    assert [severity(name, magnitude, sign=1) for magnitude in (0, 7, 10)] == pytest.approx([at_0, at_7, at_10])


def test_a_sign_turns_what_has_two_directions():
    assert severity("rotate", 7, sign=-1) == pytest.approx(-21)
    assert severity("color", 7, sign=-1) == pytest.approx(0.37)
    assert severity("solarize", 7, sign=-1) == 77


# Boxes.


@given(
    st.integers(8, 400),
    st.integers(8, 400),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    st.integers(0, 2**32),
)
def test_a_box_lies_in_the_frame(height, width, scale, aspect, seed):
    box = random_resized_box(
        np.random.default_rng(seed), height=height, width=width, scale=tuple(scale), aspect=tuple(aspect)
    )
    assert box.height > 0
    assert box.width > 0
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


def drawn_boxes(height, width, count, **ranges):
    rng = np.random.default_rng(0)
    boxes = [random_resized_box(rng, height=height, width=width, **ranges) for _ in range(count)]
    return np.array([(box.top, box.left, box.height, box.width) for box in boxes], dtype=float)


def torchvision_boxes(height, width, count, **ranges):
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        frame = torch.empty(3, height, width)
        boxes = [
            RandomResizedCrop.get_params(frame, list(ranges["scale"]), list(ranges["aspect"])) for _ in range(count)
        ]
    return np.array(boxes, dtype=float)


def distance(ours, theirs):
    """Kolmogorov and Smirnov's."""
    places = np.sort(np.concatenate([ours, theirs]))
    cdfs = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (ours, theirs)]
    return np.abs(cdfs[0] - cdfs[1]).max()


@pytest.mark.parametrize(("height", "width"), [(256, 340), (340, 256), (240, 240)])
def test_boxes_follow_the_law_of_torchvision(height, width):
    ours, theirs = (make(height, width, 3000, **RANGES) for make in (drawn_boxes, torchvision_boxes))
    share = [boxes[:, 2] * boxes[:, 3] / (height * width) for boxes in (ours, theirs)]
    aspect = [np.log(boxes[:, 3] / boxes[:, 2]) for boxes in (ours, theirs)]
    top = [boxes[:, 0] / height for boxes in (ours, theirs)]
    left = [boxes[:, 1] / width for boxes in (ours, theirs)]
    # 0.05 is exceeded by chance once in a thousand draws of 3000.
    assert all(distance(*values) < 0.05 for values in (share, aspect, top, left))


def test_the_first_try_is_drawn_as_by_numpys_uniform():
    for seed in range(200):
        theirs, ours = np.random.default_rng(seed), np.random.default_rng(seed)
        area = 1000 * 1000 * theirs.uniform(0.08, 0.5)
        ratio = math.exp(theirs.uniform(math.log(0.75), math.log(4 / 3)))
        box = random_resized_box(ours, height=1000, width=1000, scale=(0.08, 0.5), aspect=(0.75, 4 / 3))
        assert (box.height, box.width) == (round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio)))


@pytest.mark.parametrize(("height", "width"), [(20, 2000), (2000, 20), (100, 110)])
def test_where_no_box_fits_it_is_the_centre_one_of_torchvision(height, width):
    ranges = {"scale": (4.0, 5.0), "aspect": (0.75, 1.3333)}  # no such box exists: the fallback
    assert (drawn_boxes(height, width, 1, **ranges) == torchvision_boxes(height, width, 1, **ranges)).all()


def test_the_whole_frame_is_the_only_box_of_scale_1_and_its_own_aspect():
    box = random_resized_box(np.random.default_rng(0), height=30, width=40, scale=(1.0, 1.0), aspect=(4 / 3, 4 / 3))
    assert box == Box(top=0, left=0, height=30, width=40)


def test_erased_boxes_cover_the_published_share_in_the_published_shapes():
    rng = np.random.default_rng(0)
    boxes = [erase_box(rng, size=224) for _ in range(4000)]
    shares = np.array([box.height * box.width / 224**2 for box in boxes])
    shapes = np.log([box.height / box.width for box in boxes]) / np.log(ERASE_ASPECT[1])
    assert shares.min() >= 0.019
    assert shares.max() <= 0.336
    # Uniform but for those boxes that would be longer than the crop, a few in a hundred.
    assert distance(shares, np.linspace(0.02, 1 / 3, 4000)) < 0.06
    assert distance(shapes, np.linspace(-1, 1, 4000)) < 0.06
    assert all(0 <= box.top <= 224 - box.height and 0 <= box.left <= 224 - box.width for box in boxes)
    assert all(box.height < 224 and box.width < 224 for box in boxes)


def test_a_crop_of_one_pixel_has_nothing_to_erase():
    assert erase_box(np.random.default_rng(0), size=1) is None


# In words.


def test_a_draw_is_reported_in_one_line():
    clip = ClipDraw(
        operations=(
            Operation(name="rotate", argument=-21.26),
            Operation(name="invert", argument=0),
            Operation(name="translate_x", argument=0.315),
        ),
        box=Box(top=12, left=40, height=180, width=200),
        flip=True,
        erase=Erasing(box=Box(top=3, left=4, height=90, width=60), key=()),
    )
    assert clip.describe() == (
        "rotate -21.3 deg, invert, translate_x +32%, crop 180x200 at (12, 40), flip, erase 90x60 at (3, 4)"
    )


def test_what_did_not_happen_is_not_reported():
    box = Box(top=0, left=0, height=4, width=5)
    assert ClipDraw(operations=(), box=box, flip=False, erase=None).describe() == "crop 4x5 at (0, 0)"


def test_all_operations_have_words():
    words = [Operation(name=name, argument=severity(name, 7, sign=1)).describe() for name in OPERATIONS]
    assert len(set(words)) == 15
    assert all(name in text for name, text in zip(OPERATIONS, words, strict=True))


def test_frames_are_placed_by_numbers_of_the_video_and_the_epoch():
    key = ClipKey(seed=0, epoch=0, video_id="v")
    first = draw_fractions(16, key)
    assert ((first >= 0) & (first < 1)).all()
    assert (draw_fractions(16, key) == first).all()
    assert (draw_fractions(16, dataclasses.replace(key, epoch=1)) != first).all()
    # A clip of fewer frames begins where the longer one does.
    assert draw_fractions(1, key)[0] == first[0]
