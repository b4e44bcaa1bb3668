"""Telling wrong frames from right ones, on pictures whose truth is known."""

import numpy as np
import pytest

from morphmlp.benchmarks.thumbnails import thumbnails, wrong_frames
from morphmlp.data.synthetic.kinetics_layout import realistic_frames

VIDEO = np.stack(list(realistic_frames(np.random.default_rng(3), count=60)))
WANTED = np.arange(5, 50, 4)


def test_the_wanted_frames_are_right():
    assert wrong_frames(thumbnails(VIDEO[WANTED]), WANTED, thumbnails(VIDEO)) == 0


def test_frames_that_were_rounded_otherwise_are_right():
    other = VIDEO[WANTED].astype(int) + np.random.default_rng(0).integers(-3, 4, VIDEO[WANTED].shape)
    other = (1.02 * other + 4).clip(0, 255).astype(np.uint8)
    assert wrong_frames(thumbnails(other), WANTED, thumbnails(VIDEO)) == 0


@pytest.mark.parametrize("shift", [-2, -1, 1, 2, 9])
def test_other_frames_of_the_video_are_wrong_unless_they_show_the_same(shift):
    differ = [index for index in WANTED if (VIDEO[index] != VIDEO[index + shift]).mean() > 0.5]
    assert differ
    assert wrong_frames(thumbnails(VIDEO[WANTED + shift]), WANTED, thumbnails(VIDEO)) >= len(differ)


def test_garbage_is_wrong_though_no_frame_fits_it():
    garbage = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    garbage = garbage.repeat(32, axis=1).repeat(43, axis=2)[:, :, :340]
    assert wrong_frames(thumbnails(garbage), WANTED[:2], thumbnails(VIDEO)) == 2


def test_frames_of_another_count_are_wrong():
    assert wrong_frames(thumbnails(VIDEO[WANTED[1:]]), WANTED, thumbnails(VIDEO)) == len(WANTED)


def test_a_cell_is_the_mean_of_its_pixels():
    tall = np.zeros((1, 64, 32, 3), dtype=np.uint8)
    tall[0, :2] = 32
    cells = thumbnails(tall)
    assert cells.shape == (1, 32, 32)
    assert cells[0, 0, 0] - cells[0, 1, 0] == 32
    assert cells.mean() == pytest.approx(0)


def test_small_frames_have_a_cell_for_each_pixel():
    assert thumbnails(np.zeros((2, 5, 40, 3), dtype=np.uint8)).shape == (2, 5, 32)
