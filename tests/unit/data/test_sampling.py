"""Frame indices against the published rule, written out by hand and as a naive copy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data.sampling import DenseWindow

GOLDEN = {
    "30 fps, from the start": (
        (30.0, 300, 0.0),
        [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63],
    ),
    "30 fps, from 100.5": (
        (30.0, 300, 100.5),
        [100, 104, 108, 113, 117, 121, 125, 129, 134, 138, 142, 146, 150, 155, 159, 163],
    ),
    "25 fps, from the start": (
        (25.0, 250, 0.0),
        [0, 3, 6, 10, 13, 17, 20, 24, 27, 31, 34, 38, 41, 45, 48, 52],
    ),
    "a video of 20 frames repeats its last one": (
        (30.0, 20, 0.0),
        [0, 4, 8, 12, 16, 19, 19, 19, 19, 19, 19, 19, 19, 19, 19, 19],
    ),
    "a video of one frame is that frame": ((30.0, 1, 0.0), [0] * 16),
}


def window(fps=30.0, video_frames=300, num_frames=16, frame_stride=4):
    return DenseWindow(num_frames=num_frames, frame_stride=frame_stride, fps=fps, video_frames=video_frames)


@pytest.mark.parametrize("case", GOLDEN)
def test_frames_of_a_16x4_clip_are_those_of_the_table(case):
    (fps, video_frames, start), expected = GOLDEN[case]
    assert window(fps, video_frames).indices(start).tolist() == expected


windows = st.builds(
    DenseWindow,
    num_frames=st.integers(1, 64),
    frame_stride=st.integers(1, 8),
    fps=st.floats(0.5, 240),
    video_frames=st.integers(1, 2000),
)


@given(windows, st.floats(0, 1, exclude_max=True))
def test_frames_of_a_training_clip_lie_in_the_video_and_never_run_backwards(window, fraction):
    indices = window.indices(window.train_start(fraction))
    assert len(indices) == window.num_frames
    assert indices.min() >= 0
    assert indices.max() < window.video_frames
    assert (indices[1:] >= indices[:-1]).all()


@given(windows, st.integers(1, 10))
def test_frames_of_a_view_lie_in_the_video(window, num_clips):
    starts = window.view_starts(num_clips)
    assert len(starts) == num_clips
    for start in starts:
        assert 0 <= start <= window.room
        assert 0 <= window.indices(start).min() <= window.indices(start).max() < window.video_frames


@given(windows.filter(lambda window: window.span >= 1), st.floats(0, 1, exclude_max=True))
def test_frames_are_those_of_the_published_loop(window, fraction):
    start = fraction * max(window.video_frames - window.span, 0)
    end = start + window.span - 1
    step = (end - start) / max(window.num_frames - 1, 1)
    naive = [min(max(start + step * i, 0), window.video_frames - 1) for i in range(window.num_frames)]
    for index, value in zip(window.indices(window.train_start(fraction)).tolist(), naive, strict=True):
        # Where the real place is a whole number, its last bit decides.
        assert index == math.floor(value) or abs(value - round(value)) < 1e-6


def test_a_clip_covers_the_same_time_at_any_rate():
    assert window(30.0).span == 64
    assert window(25.0).span / 25 == pytest.approx(64 / 30)
    assert window(60.0, num_frames=32).span / 60 == pytest.approx(128 / 30)


def test_a_training_clip_starts_anywhere_that_leaves_room():
    assert window().room == 236
    assert [window().train_start(fraction) for fraction in (0.0, 0.5, 0.999)] == [0, 118, pytest.approx(235.764)]


def test_a_video_shorter_than_the_clip_leaves_no_room():
    assert window(video_frames=63).room == 0
    assert window(video_frames=63).train_start(0.9) == 0


@pytest.mark.parametrize(
    ("num_clips", "starts"),
    [
        (1, (118.0,)),
        (2, (0.0, 236.0)),
        (4, (0.0, 78.0, 156.0, 234.0)),
        (10, tuple(26.0 * k for k in range(10))),
    ],
)
def test_views_start_where_published(num_clips, starts):
    assert window().view_starts(num_clips) == starts


def test_views_of_a_short_video_all_start_at_its_first_frame():
    assert window(video_frames=30).view_starts(4) == (0.0, 0.0, 0.0, 0.0)
