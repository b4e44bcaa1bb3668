"""Resizing, crops, the order of augmentation, erasing, and the network's scale."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as torchvision

from morphmlp.data.clips.augment import (
    augment_clip,
    crop_and_resize,
    erase_noise,
    evaluation_crops,
    normalise,
    resize,
    scale_down,
)
from morphmlp.data.clips.draws import ClipDraw, Erasing, Operation
from morphmlp.data.clips.rand_augment import rand_augment
from morphmlp.data.decoding.protocol import Box


def noise(t=2, h=40, w=60, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (t, h, w, 3), dtype=np.uint8))


def coordinates(h, w, t=1):
    """A frame whose pixels say where they are: red the row, green the column."""
    frame = torch.zeros((t, h, w, 3), dtype=torch.uint8)
    frame[..., 0] = torch.arange(h)[:, None]
    frame[..., 1] = torch.arange(w)
    return frame


def test_a_crop_of_its_own_size_is_a_cut():
    frames = noise()
    cut = crop_and_resize(frames, Box(top=3, left=5, height=16, width=16), size=16)
    assert (cut == frames[:, 3:19, 5:21]).all()


def last_first(frames):
    """Channels-first, as torchvision takes them."""
    return frames.permute(0, 3, 1, 2)


@given(st.integers(4, 90), st.integers(4, 90), st.integers(2, 70), st.integers(2, 70))
def test_resizing_is_that_of_torchvision(height, width, new_height, new_width):
    frames = noise(2, height, width)
    theirs = torchvision.resize(last_first(frames), [new_height, new_width], antialias=True)
    assert torch.equal(last_first(resize(frames, height=new_height, width=new_width)), theirs)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 40), st.integers(4, 60))
def test_cropping_and_resizing_is_that_of_torchvision(top, left, height, width, size):
    frames = noise(2, 40, 60)
    theirs = torchvision.resized_crop(last_first(frames), top, left, height, width, [size, size], antialias=True)
    cut = crop_and_resize(frames, Box(top=top, left=left, height=height, width=width), size=size)
    assert torch.equal(last_first(cut), theirs)


def test_frames_that_have_their_size_are_not_resized():
    frames = noise()
    assert resize(frames, height=40, width=60) is frames
    assert torch.equal(torchvision.resize(last_first(frames), [40, 60], antialias=True), last_first(frames))


@pytest.mark.parametrize(
    ("height", "width", "edge", "scaled"),
    [
        (40, 60, None, (40, 60)),
        (40, 60, 40, (40, 60)),
        (40, 60, 48, (40, 60)),
        (40, 61, 32, (32, 48)),
        (61, 40, 32, (48, 32)),
    ],
)
def test_frames_are_scaled_down_to_the_short_edge_and_never_up(height, width, edge, scaled):
    frames = noise(1, height, width)
    small = scale_down(frames, edge)
    assert small.shape == (1, *scaled, 3)
    assert torch.equal(last_first(small), torchvision.resize(last_first(frames), list(scaled), antialias=True))


WHOLE = Box(top=0, left=0, height=40, width=60)


def drawn(operations=(), box=WHOLE, flip=False, erase=None):
    return ClipDraw(operations=tuple(operations), box=box, flip=flip, erase=erase)


def test_a_flip_is_a_mirror():
    plain, flipped = (augment_clip(noise(), drawn(flip=flip), size=16) for flip in (False, True))
    assert torch.equal(flipped, plain.flip(2))


def test_augmentation_follows_the_published_order():
    frames = noise()
    operations = [Operation(name="rotate", argument=21.0), Operation(name="color", argument=1.6)]
    box = Box(top=3, left=5, height=20, width=30)
    erased = Box(top=2, left=1, height=5, width=4)
    clip = augment_clip(frames, drawn(operations, box, flip=True, erase=Erasing(box=erased, key=(1,))), size=16)
    by_hand = crop_and_resize(rand_augment(frames, operations), box, size=16).flip(2).clone()
    by_hand[:, 2:7, 1:5] = torch.from_numpy(erase_noise((1,), (2, 5, 4, 3)))
    assert torch.equal(clip, by_hand)
    assert clip.is_contiguous()


def test_a_draw_without_choices_cuts_and_resizes_only():
    frames, box = noise(), Box(top=3, left=5, height=20, width=30)
    assert torch.equal(augment_clip(frames, drawn(box=box), size=16), crop_and_resize(frames, box, size=16))


def test_augmenting_leaves_the_frames_alone():
    frames = noise(h=16, w=16)
    before = frames.clone()
    erase = Erasing(box=Box(top=0, left=0, height=8, width=8), key=(1,))
    augment_clip(frames, drawn(box=Box(top=0, left=0, height=16, width=16), erase=erase), size=16)
    augment_clip(frames, drawn([Operation(name="invert", argument=0)], box=WHOLE, flip=True, erase=erase), size=16)
    assert torch.equal(frames, before)


def test_erasing_fills_one_box_of_all_frames_with_fresh_noise_and_nothing_else():
    frames = torch.full((6, 16, 16, 3), 7, dtype=torch.uint8)
    erase = Erasing(box=Box(top=2, left=5, height=9, width=8), key=("a", 1))
    clip = augment_clip(frames, drawn(box=Box(top=0, left=0, height=16, width=16), erase=erase), size=16)
    changed = (clip != 7).any(-1)
    assert changed[:, 2:11, 5:13].float().mean() > 0.95
    changed[:, 2:11, 5:13] = False
    assert not changed.any()
    assert len({frame.numpy().tobytes() for frame in clip}) == 6


def test_erasing_noise_is_normal_on_the_network_s_scale_but_for_what_is_no_pixel():
    pixels = erase_noise(("v", 3), (16, 100, 80, 3))
    scaled = (pixels / 255 - 0.45) / 0.225
    inside = (pixels > 0) & (pixels < 255)
    normal = NormalDist()
    # A pixel's grey level is 0.0174 wide on the network's scale.
    assert np.mean(pixels == 0) == pytest.approx(normal.cdf(-2 + 0.0087), abs=0.001)
    assert np.mean(pixels == 255) == pytest.approx(1 - normal.cdf(0.55 / 0.225 - 0.0087), abs=0.001)
    assert 1 - inside.mean() == pytest.approx(0.03, abs=0.002)
    for place in (-1.5, -0.5, 0.0, 0.5, 1.5):
        assert np.mean(scaled < place) == pytest.approx(normal.cdf(place), abs=0.006)


def test_erasing_noise_comes_from_its_key_alone():
    assert (erase_noise(("v", 3), (2, 4, 4, 3)) == erase_noise(("v", 3), (2, 4, 4, 3))).all()
    assert (erase_noise(("v", 3), (2, 4, 4, 3)) != erase_noise(("v", 4), (2, 4, 4, 3))).any()


def test_every_frame_is_cut_alike():
    frame = noise(t=1)
    clip = crop_and_resize(frame.expand(4, -1, -1, -1), Box(top=2, left=7, height=21, width=33), size=24)
    assert clip.shape == (4, 24, 24, 3)
    assert (clip == clip[:1]).all()


def test_resizing_is_antialiased():
    stripes = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    stripes[:, :, ::2] = 200
    small = crop_and_resize(stripes, Box(top=0, left=0, height=64, width=64), size=8)
    assert (small[:, :, 1:-1].int() - 100).abs().max() <= 2


def test_cutting_leaves_the_frames_alone():
    frames = noise()
    before = frames.clone()
    crop_and_resize(frames, Box(top=0, left=0, height=9, width=9), size=4)
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


@pytest.mark.parametrize(("height", "width", "corner"), [(36, 60, (2, 0)), (60, 36, (0, 2)), (36, 36, (2, 0))])
def test_one_left_crop_is_at_the_start_of_the_long_side_and_centred_across_it(height, width, corner):
    frames = coordinates(height, width)
    (crop,) = evaluation_crops(frames, short_edge=36, crop_size=32, num_crops=1, single_crop="left")
    assert corners_of([crop]) == [corner]


def test_the_left_crop_of_the_crop_s_own_size_is_the_first_of_three():
    frames = noise(2, 64, 96)
    (left,) = evaluation_crops(frames, short_edge=32, crop_size=32, num_crops=1, single_crop="left")
    assert torch.equal(left, evaluation_crops(frames, short_edge=48, crop_size=32, num_crops=3)[0])


def test_frames_of_the_right_size_are_cut_without_a_copy():
    frames = noise(2, 32, 50)
    crops = evaluation_crops(frames, short_edge=40, crop_size=32, num_crops=3)
    assert {crop.untyped_storage().data_ptr() for crop in crops} == {frames.untyped_storage().data_ptr()}


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
    scaled = torch.nn.functional.interpolate(last_first(frames).float(), size=(32, 52), mode="bilinear", antialias=True)
    assert (last_first(right).float() - scaled[..., 20:]).abs().max() <= 1


def test_normalising_is_the_published_scale_and_can_be_undone():
    clips = noise(t=6).reshape(2, 3, 40, 60, 3)
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
