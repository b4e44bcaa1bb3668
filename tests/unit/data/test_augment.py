"""Boxes, crops, flips and the network's scale."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from morphmlp.data.augment import Box, crop_and_resize, evaluation_crops, normalise, random_resized_box

PUBLISHED = {"scale": (0.08, 1.0), "aspect": (0.75, 1.3333)}


def noise(t=2, h=40, w=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (t, h, w, 3), dtype=np.uint8)


def coordinates(h, w, t=1):
    """A frame whose pixels say where they are: red the row, green the column."""
    frame = np.zeros((t, h, w, 3), dtype=np.uint8)
    frame[..., 0] = np.arange(h)[:, None]
    frame[..., 1] = np.arange(w)
    return frame


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
    with torch.random.fork_rng():
        torch.manual_seed(0)
        frame = torch.empty(3, height, width)
        boxes = [
            RandomResizedCrop.get_params(frame, list(ranges["scale"]), list(ranges["aspect"])) for _ in range(count)
        ]
    return np.array(boxes, dtype=float)


@pytest.mark.parametrize(("height", "width"), [(256, 340), (340, 256), (240, 240)])
def test_boxes_follow_the_law_of_torchvision(height, width):
    ours, theirs = (draw(height, width, 3000, **PUBLISHED) for draw in (drawn_boxes, torchvision_boxes))
    share = [boxes[:, 2] * boxes[:, 3] / (height * width) for boxes in (ours, theirs)]
    aspect = [np.log(boxes[:, 3] / boxes[:, 2]) for boxes in (ours, theirs)]
    top = [boxes[:, 0] / height for boxes in (ours, theirs)]
    left = [boxes[:, 1] / width for boxes in (ours, theirs)]
    for a, b in (share, aspect, top, left):
        # Kolmogorov and Smirnov's distance; 0.05 is exceeded by chance once in a thousand draws of 3000.
        places = np.sort(np.concatenate([a, b]))
        cdfs = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (a, b)]
        assert np.abs(cdfs[0] - cdfs[1]).max() < 0.05


@pytest.mark.parametrize(("height", "width"), [(20, 2000), (2000, 20), (100, 110)])
def test_where_no_box_fits_it_is_the_centre_one_of_torchvision(height, width):
    ranges = {"scale": (4.0, 5.0), "aspect": (0.75, 1.3333)}  # no such box exists: the fallback
    assert (drawn_boxes(height, width, 1, **ranges) == torchvision_boxes(height, width, 1, **ranges)).all()


def test_the_whole_frame_is_the_only_box_of_scale_1_and_its_own_aspect():
    box = random_resized_box(np.random.default_rng(0), height=30, width=40, scale=(1.0, 1.0), aspect=(4 / 3, 4 / 3))
    assert box == Box(top=0, left=0, height=30, width=40)


def test_a_crop_of_its_own_size_is_a_cut():
    frames = noise()
    cut = crop_and_resize(frames, Box(top=3, left=5, height=16, width=16), size=16)
    assert (cut == frames[:, 3:19, 5:21]).all()


def test_a_flip_is_a_mirror():
    frames, box = noise(), Box(top=0, left=0, height=30, width=40)
    plain, flipped = (crop_and_resize(frames, box, size=16, flip=flip) for flip in (False, True))
    assert (flipped == plain[:, :, ::-1]).all()


def test_every_frame_is_cut_alike():
    frame = noise(t=1)
    clip = crop_and_resize(np.repeat(frame, 4, axis=0), Box(top=2, left=7, height=21, width=33), size=24, flip=True)
    assert clip.shape == (4, 24, 24, 3)
    assert (clip == clip[:1]).all()


def test_resizing_is_antialiased():
    stripes = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 200
    small = crop_and_resize(stripes, Box(top=0, left=0, height=64, width=64), size=8)
    assert np.abs(small[:, :, 1:-1].astype(int) - 100).max() <= 2


def test_cutting_leaves_the_frames_alone():
    frames = noise()
    before = frames.copy()
    crop_and_resize(frames, Box(top=0, left=0, height=9, width=9), size=4, flip=True)
    evaluation_crops(frames, short_edge=40, crop_size=32, num_crops=3)
    assert (frames == before).all()


def corners_of(crops):
    return [tuple(crop[0, 0, 0, :2].tolist()) for crop in crops]


@pytest.mark.parametrize(
    ("height", "width", "corners"),
    [(32, 51, [(0, 0), (0, 10), (0, 19)]), (51, 32, [(0, 0), (10, 0), (19, 0)]), (32, 32, [(0, 0)] * 3)],
)
def test_three_crops_are_left_centre_and_right_along_the_long_side(height, width, corners):
    # The centre offset is ceil(19 / 2).
    crops = evaluation_crops(coordinates(height, width), short_edge=40, crop_size=32, num_crops=3)
    assert corners_of(crops) == corners
    assert all(crop.shape == (1, 32, 32, 3) for crop in crops)


def test_one_crop_is_the_centre_of_the_frame_scaled_to_the_short_edge():
    (crop,) = evaluation_crops(coordinates(41, 60), short_edge=41, crop_size=32, num_crops=1)
    assert corners_of([crop]) == [(5, 14)]


def test_three_crops_come_from_the_size_of_the_crop_and_one_from_the_short_edge():
    frames = coordinates(64, 96)
    three = evaluation_crops(frames, short_edge=48, crop_size=32, num_crops=3)
    (one,) = evaluation_crops(frames, short_edge=64, crop_size=32, num_crops=1)
    assert int(three[1][0, -1, 0, 0]) > 60  # the whole height
    assert (int(one[0, 0, 0, 0]), int(one[0, -1, 0, 0])) == (16, 47)  # the middle of it


@given(st.integers(8, 90), st.integers(8, 90), st.integers(0, 8), st.sampled_from([1, 3]))
def test_evaluation_crops_are_squares_of_the_crop_size(height, width, more, num_crops):
    crops = evaluation_crops(noise(1, height, width), short_edge=16 + more, crop_size=16, num_crops=num_crops)
    assert [crop.shape for crop in crops] == [(1, 16, 16, 3)] * num_crops


def test_the_long_side_is_scaled_with_rounding_down():
    # 33 * 32 / 20 = 52.8: the last crop begins at 52 - 32 = 20, not at 21.
    frames = coordinates(20, 33)
    right = evaluation_crops(frames, short_edge=32, crop_size=32, num_crops=3)[2]
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(frames).permute(0, 3, 1, 2).float(), size=(32, 52), mode="bilinear", antialias=True
    )
    assert np.abs(right.astype(float) - scaled.permute(0, 2, 3, 1).numpy()[:, :, 20:]).max() <= 1


def test_normalising_is_the_published_scale_and_can_be_undone():
    clips = torch.from_numpy(noise(t=6)).reshape(2, 3, 40, 60, 3)
    scaled = normalise(clips)
    assert scaled.shape == (2, 3, 3, 40, 60)
    assert scaled.is_contiguous()
    back = (scaled * 0.225 + 0.45) * 255
    assert (back.round().to(torch.uint8) == clips.permute(0, 4, 1, 2, 3)).all()


def test_normalising_takes_the_mean_to_zero_and_white_to_its_published_value():
    white = normalise(torch.full((1, 1, 1, 1, 3), 255, dtype=torch.uint8))
    black = normalise(torch.zeros(1, 1, 1, 1, 3, dtype=torch.uint8))
    assert white.flatten().tolist() == pytest.approx([(1 - 0.45) / 0.225] * 3)
    assert black.flatten().tolist() == pytest.approx([-2.0] * 3)
