"""Clips of one file: what is shared, what is drawn, and in which order views come."""

import dataclasses

import numpy as np
import pytest

from morphmlp.config.schema import AugmentConfig, ClipConfig
from morphmlp.config.schema import TestConfig as Views  # pytest collects names that begin with Test
from morphmlp.data.augment import evaluation_crops
from morphmlp.data.clips import SINGLE_VIEW, TrainClips, ViewClips
from morphmlp.data.decoding import DecodedFrames, VideoInfo

CLIP = ClipConfig(sampling="dense", num_frames=4, frame_stride=2, crop_size=16, short_edge=20)
WHOLE = AugmentConfig(repeats=1, scale=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)
DRAWN = AugmentConfig(repeats=3, scale=(0.3, 1.0), aspect=(0.75, 1.25), flip=0.5)


class Numbered:
    """A decoder whose frames say their number (red), row (green) and column (blue)."""

    name = "numbered"
    version = "1"

    def __init__(self, num_frames=40, height=24, width=24, fps=30.0):
        self.info = VideoInfo(num_frames=num_frames, fps=fps, pts_s=())
        self.height, self.width = height, width
        self.opened, self.asked = [], []

    def open(self, path):
        self.opened.append(path)
        return self

    def read(self, indices):
        self.asked.append(list(indices))
        frames = np.zeros((len(indices), self.height, self.width, 3), dtype=np.uint8)
        frames[..., 0] = np.array(indices)[:, None, None]
        frames[..., 1] = np.arange(self.height)[:, None]
        frames[..., 2] = np.arange(self.width)
        return DecodedFrames(frames=frames, concealed=0)


def cut(clips, decoder, *, video_id="v", epoch=0):
    return clips.cut(decoder, path="v.mp4", video_id=video_id, epoch=epoch).clips


def train_clips(augment=DRAWN, seed=0):
    return TrainClips(clip=CLIP, augment=augment, seed=seed)


def numbers_of(clip):
    return clip[:, 0, 0, 0].tolist()


def test_a_video_is_opened_and_decoded_once_for_all_repeats():
    decoder = Numbered()
    clips = cut(train_clips(), decoder)
    assert clips.shape == (3, 4, 16, 16, 3)
    assert train_clips().clips_per_video == 3
    assert (len(decoder.opened), len(decoder.asked)) == (1, 1)


def test_repeats_share_their_frames_and_differ_in_their_cut():
    clips = cut(train_clips(), Numbered())
    assert len({tuple(numbers_of(clip)) for clip in clips}) == 1
    assert len({clip.tobytes() for clip in clips}) == 3


def test_a_repeat_is_the_same_whatever_the_number_of_repeats():
    three, two = (cut(train_clips(dataclasses.replace(DRAWN, repeats=n)), Numbered()) for n in (3, 2))
    assert (three[:2] == two).all()


def test_draws_depend_on_seed_epoch_and_video_and_on_nothing_else():
    first = cut(train_clips(), Numbered())
    np.random.default_rng().random()
    assert (cut(train_clips(), Numbered()) == first).all()
    others = [
        cut(train_clips(seed=1), Numbered()),
        cut(train_clips(), Numbered(), epoch=1),
        cut(train_clips(), Numbered(), video_id="w"),
    ]
    assert all((other != first).any() for other in others)


def test_the_path_of_a_video_plays_no_part():
    one, other = (
        train_clips().cut(Numbered(), path=path, video_id="v", epoch=0).clips for path in ("a.mp4", "b/c.mp4")
    )
    assert (one == other).all()


def test_one_draw_holds_for_all_frames():
    for clip in cut(train_clips(), Numbered()):
        assert (clip[..., 1:] == clip[:1, ..., 1:]).all()


def test_starts_cover_the_room_of_the_video():
    starts = [numbers_of(cut(train_clips(WHOLE), Numbered(), epoch=epoch)[0])[0] for epoch in range(200)]
    assert min(starts) <= 2
    assert max(starts) >= 29
    assert max(starts) <= 32


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_clips_are_flipped_as_often_as_asked(share):
    augment = dataclasses.replace(WHOLE, repeats=200, flip=share)
    flipped = [clip[0, 0, 0, 2] > clip[0, 0, -1, 2] for clip in cut(train_clips(augment), Numbered())]
    assert np.mean(flipped) == pytest.approx(share, abs=0.12 if share == 0.5 else 0)


def views(num_clips, num_crops):
    return ViewClips(clip=CLIP, views=Views(num_clips=num_clips, num_crops=num_crops))


def test_views_come_clip_by_clip_with_the_crops_fastest():
    cutter = views(2, 3)
    clips = cut(cutter, Numbered(width=48))
    assert len(clips) == cutter.clips_per_video == 6
    assert [numbers_of(clip)[0] for clip in clips] == [0, 0, 0, 32, 32, 32]
    columns = [int(clip[0, 0, 0, 2]) for clip in clips]
    assert columns[:3] == columns[3:]
    assert columns[0] < columns[1] < columns[2]


def test_views_are_the_published_crops_of_the_published_clips():
    decoder = Numbered(width=40)
    clips = cut(views(3, 1), decoder)
    assert decoder.asked == [[0, 2, 4, 7, 16, 18, 20, 23, 32, 34, 36, 39]]
    frames = decoder.read(decoder.asked[0]).frames
    (crops,) = evaluation_crops(frames, short_edge=20, crop_size=16, num_crops=1)
    assert (clips == crops.reshape(3, 4, 16, 16, 3)).all()


def test_views_are_the_same_in_every_epoch_and_decoded_at_once():
    decoder = Numbered()
    first = cut(views(4, 3), decoder)
    assert (cut(views(4, 3), Numbered(), epoch=5, video_id="w") == first).all()
    assert len(decoder.asked) == 1


def test_validation_sees_the_centre_of_the_video():
    decoder = Numbered()
    clips = cut(ViewClips(clip=CLIP, views=SINGLE_VIEW), decoder)
    assert clips.shape == (1, 4, 16, 16, 3)
    assert decoder.asked[0][0] == 16


def test_a_video_of_one_frame_gives_whole_clips():
    assert cut(train_clips(), Numbered(num_frames=1)).shape == (3, 4, 16, 16, 3)
    assert cut(views(2, 3), Numbered(num_frames=1)).shape == (6, 4, 16, 16, 3)
