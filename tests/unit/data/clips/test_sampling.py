"""Frame indices against the published rules, written out by hand and as naive copies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.config.clip import ClipConfig
from morphmlp.data.clips.sampling import DenseWindow, train_indices, view_indices
from morphmlp.data.decoding.protocol import VideoInfo

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


def clip_of(sampling, num_frames=16, frame_stride=4):
    return ClipConfig(
        sampling=sampling,
        num_frames=num_frames,
        frame_stride=None if sampling == "segments" else frame_stride,
        crop_size=8,
        short_edge=8,
        channel_order="rgb",
    )


def video(num_frames=300, fps=30.0, pts_s=None):
    pts_s = tuple(i / fps for i in range(num_frames)) if pts_s is None else pts_s
    return VideoInfo(num_frames=num_frames, fps=fps, pts_s=pts_s, width=8, height=8, codec="h264")


def published_segments(video_frames, num_frames, *, training, fractions=None, view=0, num_views=1):
    """The published loop over files that are numbered from 1; a training frame is `random.randint` of its two ends."""
    seg_size = float(video_frames - 1) / num_frames
    names = []
    for i in range(num_frames):
        start = int(np.round(seg_size * i))
        end = int(np.round(seg_size * (i + 1)))
        if training:
            names.append(start + min(int(fractions[i] * (end - start + 1)), end - start) + 1)
        else:
            names.append(start + int(seg_size / (num_views + 1) * (view + 1)) + 1)
    return [name - 1 for name in names]


# Worked out by hand. 49 frames in 8 parts: seg = 6. 100 in 8: seg = 12.375, parts begin at 0, 12.375, 24.75, 37.125,
# 49.5 (rounded to the even 50), 61.875, 74.25, 86.625. 5 frames in 8: seg = 0.5, parts begin at 0, 0.5, 1, 1.5, 2, 2.5,
# 3, 3.5.
SEGMENT_VIEWS = {
    "the middle of even parts": ((49, 8, 1, 0), [3, 9, 15, 21, 27, 33, 39, 45]),
    "the middle of rounded parts": ((100, 8, 1, 0), [6, 18, 31, 43, 56, 68, 80, 93]),
    "the first of two views": ((100, 8, 2, 0), [4, 16, 29, 41, 54, 66, 78, 91]),
    "the second of two views": ((100, 8, 2, 1), [8, 20, 33, 45, 58, 70, 82, 95]),
    "a short video repeats frames": ((5, 8, 1, 0), [0, 0, 1, 2, 2, 2, 3, 4]),
    "a video of one frame is that frame": ((1, 8, 1, 0), [0] * 8),
}


@pytest.mark.parametrize("case", SEGMENT_VIEWS)
def test_frames_of_a_view_of_segments_are_those_of_the_table(case):
    (video_frames, num_frames, num_views, view), expected = SEGMENT_VIEWS[case]
    views = view_indices(clip_of("segments", num_frames), video(video_frames), num_views)
    assert views.shape == (num_views, num_frames)
    assert views.dtype == np.int64
    assert views[view].tolist() == expected


def test_training_segments_go_from_their_first_to_their_last_frame():
    # seg = 12.375; both borders belong to a part, so that neighbours share one.
    lowest, highest = (
        train_indices(clip_of("segments", 8), video(100), [fraction] * 8).tolist()
        for fraction in (0.0, math.nextafter(1, 0))
    )
    assert lowest == [0, 12, 25, 37, 50, 62, 74, 87]
    assert highest == [12, 25, 37, 50, 62, 74, 87, 99]


def test_each_frame_of_a_training_segment_is_equally_likely():
    fractions = (np.arange(1300) + 0.5) / 1300
    first = [train_indices(clip_of("segments", 8), video(100), [fraction] * 8)[0] for fraction in fractions]
    assert np.bincount(first).tolist() == [100] * 13


lengths = st.integers(1, 400)
unit = st.floats(0, 1, exclude_max=True)


@given(lengths, st.integers(1, 64), st.integers(1, 10))
def test_views_of_segments_are_those_of_the_published_loop(video_frames, num_frames, num_views):
    views = view_indices(clip_of("segments", num_frames), video(video_frames), num_views)
    for view in range(num_views):
        assert views[view].tolist() == published_segments(
            video_frames, num_frames, training=False, view=view, num_views=num_views
        )


@given(lengths, st.lists(unit, min_size=1, max_size=64))
def test_training_segments_are_those_of_the_published_loop(video_frames, fractions):
    found = train_indices(clip_of("segments", len(fractions)), video(video_frames), fractions)
    assert found.tolist() == published_segments(video_frames, len(fractions), training=True, fractions=fractions)


@pytest.mark.parametrize("sampling", ["dense", "dense_decord"])
@pytest.mark.parametrize(
    ("num_views", "starts"), [(1, [118]), (2, [0, 236]), (4, [0, 78, 156, 234]), (10, [26 * k for k in range(10)])]
)
def test_dense_views_of_300_frames_start_where_published(sampling, num_views, starts):
    assert view_indices(clip_of(sampling), video(300), num_views)[:, 0].tolist() == starts


def test_dense_views_of_250_frames_start_where_published():
    assert view_indices(clip_of("dense"), video(250), 4)[:, 0].tolist() == [0, 62, 124, 186]


def test_dense_training_clips_take_their_place_from_the_first_fraction_alone():
    places = [train_indices(clip_of("dense"), video(), [0.5, *[rest] * 15]).tolist() for rest in (0.1, 0.9)]
    assert places[0] == places[1] == window().indices(118).tolist()


def test_decord_counts_the_video_s_own_frames():
    slow, fast = (video(600, fps) for fps in (15.0, 60.0))
    dense, decord = (
        [train_indices(clip_of(sampling), info, [0.0] * 16).tolist() for info in (slow, fast)]
        for sampling in ("dense", "dense_decord")
    )
    assert decord[0] == decord[1] == window().indices(0).tolist()
    assert [indices[-1] for indices in dense] == [31, 127]


policies = st.builds(
    clip_of, st.sampled_from(["dense", "dense_decord", "segments"]), st.integers(1, 40), st.integers(1, 8)
)


@given(policies, st.builds(video, lengths, st.floats(0.1, 1000)), unit, st.integers(1, 6))
def test_every_policy_gives_whole_clips_inside_any_video(clip, info, fraction, num_views):
    clips = [train_indices(clip, info, [fraction] * clip.num_frames), *view_indices(clip, info, num_views)]
    assert len(clips) == 1 + num_views
    for indices in clips:
        assert indices.dtype == np.int64
        assert len(indices) == clip.num_frames
        assert 0 <= indices.min() <= indices.max() < info.num_frames
        assert (np.diff(indices) >= 0).all()


@pytest.mark.parametrize("sampling", ["dense", "dense_decord", "segments"])
@pytest.mark.parametrize(
    ("num_frames", "last"), [(1, 0), (2, 1), (15, 14)], ids=["one frame", "two frames", "one frame less than the clip"]
)
def test_short_videos_reach_their_last_frame_and_no_further(sampling, num_frames, last):
    indices = train_indices(clip_of(sampling), video(num_frames), [math.nextafter(1, 0)] * 16)
    assert (len(indices), int(indices[-1])) == (16, last)


@pytest.mark.parametrize("sampling", ["dense", "dense_decord", "segments"])
def test_a_varying_frame_rate_is_counted_in_frames_at_the_mean_rate(sampling):
    # The first half at 60 frames per second, the second at 20: 30 on average.
    gaps = np.concatenate([np.full(150, 1 / 60), np.full(150, 1 / 20)])
    varying = video(300, 30.0, pts_s=tuple(np.cumsum(gaps).tolist()))
    fractions = np.linspace(0.1, 0.9, 16)
    assert (
        train_indices(clip_of(sampling), varying, fractions) == train_indices(clip_of(sampling), video(), fractions)
    ).all()
    assert (view_indices(clip_of(sampling), varying, 3) == view_indices(clip_of(sampling), video(), 3)).all()
