"""Which windows slide over a video, and that reading them a part at a time changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from morphmlp.config.schema import TestConfig as Views
from morphmlp.data.clips.extract import ViewClips, WindowClips
from morphmlp.data.clips.sampling import DenseWindow, dense_window
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.errors import ConfigError
from morphmlp.prediction import sliding as module
from morphmlp.prediction.sliding import Hop, sliding, window_clips


def window(*, frames=4, stride=2, fps=30.0, video_frames=48):
    return DenseWindow(num_frames=frames, frame_stride=stride, fps=fps, video_frames=video_frames)


@pytest.mark.parametrize(
    ("video_frames", "hop", "starts", "to_the_end"),
    [
        (48, 8.0, (0, 8, 16, 24, 32, 40), (0, 8, 16, 24, 32, 40)),
        (50, 8.0, (0, 8, 16, 24, 32, 40), (0, 8, 16, 24, 32, 40, 42)),
        (48, 20.0, (0, 20, 40), (0, 20, 40)),
        (8, 1.0, (0,), (0,)),
        (1, 5.0, (0,), (0,)),
        (9, 0.5, (0, 0.5, 1), (0, 0.5, 1)),
        (20, 100.0, (0,), (0, 12)),
    ],
)
def test_windows_lie_inside_the_video_a_hop_apart(video_frames, hop, starts, to_the_end):
    sized = window(video_frames=video_frames)
    assert sized.sliding_starts(hop) == starts
    assert sized.sliding_starts(hop, to_the_end=True) == to_the_end


@pytest.mark.parametrize("video_frames", [48, 100, 1000])
@pytest.mark.parametrize("fps", [24.0, 25.0, 30.0])
@pytest.mark.parametrize("hop", [1.0, 7.5, 8.0, 30.0])
def test_every_frame_up_to_the_last_lies_in_a_window_where_they_overlap(video_frames, fps, hop):
    sized = window(fps=fps, stride=8, video_frames=video_frames)
    starts = np.array(sized.sliding_starts(min(hop, sized.span), to_the_end=True))
    assert np.all(np.diff(starts) <= min(hop, sized.span) + 1e-9)
    assert starts[-1] + sized.span > video_frames - 1


@pytest.mark.parametrize(
    ("text", "fps", "frames"), [("2s", 25.0, 50.0), ("8", 25.0, 8.0), ("0.5s", 30.0, 15.0), (".1s", 30.0, 3.0)]
)
def test_a_hop_is_in_seconds_or_frames(text, fps, frames):
    assert Hop.parsed(text).frames(fps) == pytest.approx(frames)


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "2m", "s", "1e3", "nan"])
def test_other_hops_are_refused(text):
    with pytest.raises(ConfigError, match=r"--hop: .* must be a number of seconds, as in 2s"):
        Hop.parsed(text)


def test_without_a_window_it_is_the_networks_own_and_without_a_hop_windows_touch(place):
    clip = place.config().test_clip
    own = sliding(clip, window=None, hop=None, to_the_end=True)
    assert (own.clip, own.in_words) == (clip, "4x2 every 8 frames")
    assert sliding(clip, window="4", hop="1s", to_the_end=True).in_words == "4x1 every 1 s"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("16x4", "16 frames; this network takes 4, as in 4x4"),
        ("4x0", "must be frames x stride"),
        ("four", "must be frames x stride"),
    ],
)
def test_windows_that_the_network_cannot_take_are_refused(place, asked, message):
    with pytest.raises(ConfigError, match=message):
        sliding(place.config().test_clip, window=asked, hop=None, to_the_end=True)


def test_a_network_of_segments_needs_a_window(place):
    clip = replace(place.config().test_clip, sampling="segments", frame_stride=None)
    with pytest.raises(ConfigError, match="--window: is missing, as in --window 4x4"):
        sliding(clip, window=None, hop="1s", to_the_end=True)
    assert sliding(clip, window="4x2", hop="1s", to_the_end=True).clip == replace(
        clip, sampling="dense", frame_stride=2
    )


def test_a_network_for_images_looks_at_every_frame_of_a_video(place):
    windows = sliding(place.config("image").test_clip, window=None, hop=None, to_the_end=True)
    assert windows.in_words == "1x1 every 1 frame"


class Counted:
    """A reader that keeps how many frames were asked for at a time."""

    def __init__(self, path):
        self._reader = decoder_by_name("pyav").open(str(path))
        self.info, self.asked = self._reader.info, []

    def read(self, indices, box=None):
        self.asked.append(len(indices))
        return self._reader.read(indices, box)


def test_windows_are_read_a_part_at_a_time_with_the_same_clips(place, files, monkeypatch):
    windows = sliding(place.config().test_clip, window=None, hop="3", to_the_end=True)
    whole, parts = Counted(files / "whole.mp4"), Counted(files / "whole.mp4")
    views = Views(num_clips=1, num_crops=3)
    ((starts, clips),) = window_clips(whole, windows, views)
    monkeypatch.setattr(module, "_GROUP_BYTES", 2 * 4 * whole.info.height * whole.info.width * 3)
    found = list(window_clips(parts, windows, views))
    assert tuple(start for group, _ in found for start in group) == starts
    assert torch.equal(torch.cat([some for _, some in found]), clips)
    assert len(found) > 2
    assert max(parts.asked) <= 2 * 4 < sum(whole.asked)


def test_windows_at_the_starts_of_the_tests_clips_are_these_clips(place, files):
    clip, views = place.config().test_clip, Views(num_clips=5, num_crops=3)
    reader = decoder_by_name("pyav").open(str(files / "whole.mp4"))
    starts = dense_window(clip, reader.info).view_starts(5)
    expected = ViewClips(clip=clip, views=views).extract(reader).clips
    assert np.array_equal(WindowClips(clip=clip, views=views, starts=starts).extract(reader).clips, expected)
