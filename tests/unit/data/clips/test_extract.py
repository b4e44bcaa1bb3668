"""Clips of one file: what is shared, what is drawn, and in which order views come."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.config.schema import TestConfig as Views  # pytest collects names that begin with Test
from morphmlp.data.clips import extract as clips_module
from morphmlp.data.clips.augment import augment_clip, evaluation_crops
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainClips, TrainFrames, ViewClips, clip_draws
from morphmlp.data.decoding.protocol import DecodedFrames, VideoInfo, cut

ROOT = Path(__file__).parents[4]
CLIP = ClipConfig(sampling="dense", num_frames=4, frame_stride=2, crop_size=16, short_edge=20, channel_order="rgb")
SEGMENTS = dataclasses.replace(CLIP, sampling="segments", frame_stride=None)
WHOLE = AugmentConfig(
    repeats=1, short_edge=None, rand_augment=None, scale=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0, erase=0.0
)
DRAWN = dataclasses.replace(WHOLE, repeats=3, scale=(0.3, 1.0), aspect=(0.75, 1.25), flip=0.5)
EVERYTHING = dataclasses.replace(
    DRAWN, repeats=4, short_edge=20, rand_augment="rand-m7-n4-mstd0.5-inc1", scale=(0.08, 1.0), erase=0.5
)


class Numbered:
    """An open video whose frames say their number (red), row (green) and column (blue)."""

    def __init__(self, num_frames=40, height=24, width=24, fps=30.0):
        self.info = VideoInfo(num_frames=num_frames, fps=fps, pts_s=(), width=width, height=height, codec="none")
        self.height, self.width = height, width
        self.asked = []

    def read(self, indices, box=None):
        self.asked.append(list(indices))
        frames = np.zeros((len(indices), self.height, self.width, 3), dtype=np.uint8)
        frames[..., 0] = np.array(indices)[:, None, None]
        frames[..., 1] = np.arange(self.height)[:, None]
        frames[..., 2] = np.arange(self.width)
        return DecodedFrames(frames=cut(frames, box), concealed=0)


class Textured(Numbered):
    """The same with pictures that are worth augmenting, in memory that can't be written."""

    def read(self, indices, box=None):
        decoded = super().read(indices)
        rng = np.random.default_rng(0)
        frames = decoded.frames ^ rng.integers(0, 256, decoded.frames.shape, dtype=np.uint8)
        frames.flags.writeable = False
        return DecodedFrames(frames=cut(frames, box), concealed=1)


def key_of(seed=0, epoch=0, video_id="v"):
    return ClipKey(seed=seed, epoch=epoch, video_id=video_id)


def extract(clips, video, **key):
    return clips.extract(video, key_of(**key)).clips


def train_clips(augment=DRAWN, clip=CLIP):
    return TrainClips(clip=clip, augment=augment)


def numbers_of(clip):
    return clip[:, 0, 0, 0].tolist()


def test_a_video_is_decoded_once_for_all_repeats():
    decoder = Numbered()
    clips = extract(train_clips(), decoder)
    assert clips.shape == (3, 4, 16, 16, 3)
    assert train_clips().clips_per_video == 3
    assert len(decoder.asked) == 1


def test_repeats_share_their_frames_and_differ_in_their_cut():
    clips = extract(train_clips(), Numbered())
    assert len({tuple(numbers_of(clip)) for clip in clips}) == 1
    assert len({clip.tobytes() for clip in clips}) == 3


def test_a_repeat_is_the_same_whatever_the_number_of_repeats():
    three, two = (extract(train_clips(dataclasses.replace(DRAWN, repeats=n)), Numbered()) for n in (3, 2))
    assert (three[:2] == two).all()


def test_draws_depend_on_seed_epoch_and_video_and_on_nothing_else():
    first = extract(train_clips(), Numbered())
    np.random.default_rng().random()
    assert (extract(train_clips(), Numbered()) == first).all()
    others = [
        extract(train_clips(), Numbered(), seed=1),
        extract(train_clips(), Numbered(), epoch=1),
        extract(train_clips(), Numbered(), video_id="w"),
    ]
    assert all((other != first).any() for other in others)


def test_one_draw_holds_for_all_frames():
    for clip in extract(train_clips(), Numbered()):
        assert (clip[..., 1:] == clip[:1, ..., 1:]).all()


def test_starts_cover_the_room_of_the_video():
    starts = [numbers_of(extract(train_clips(WHOLE), Numbered(), epoch=epoch)[0])[0] for epoch in range(200)]
    assert min(starts) <= 2
    assert max(starts) >= 29
    assert max(starts) <= 32


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_clips_are_flipped_as_often_as_asked(share):
    augment = dataclasses.replace(WHOLE, repeats=200, flip=share)
    flipped = [clip[0, 0, 0, 2] > clip[0, 0, -1, 2] for clip in extract(train_clips(augment), Numbered())]
    assert np.mean(flipped) == pytest.approx(share, abs=0.12 if share == 0.5 else 0)


def views(num_clips, num_crops):
    return ViewClips(clip=CLIP, views=Views(num_clips=num_clips, num_crops=num_crops))


def test_views_come_clip_by_clip_with_the_crops_fastest():
    extractor = views(2, 3)
    clips = extract(extractor, Numbered(width=48))
    assert len(clips) == extractor.clips_per_video == 6
    assert [numbers_of(clip)[0] for clip in clips] == [0, 0, 0, 32, 32, 32]
    columns = [int(clip[0, 0, 0, 2]) for clip in clips]
    assert columns[:3] == columns[3:]
    assert columns[0] < columns[1] < columns[2]


def test_views_are_the_published_crops_of_the_published_clips():
    decoder = Numbered(width=40)
    clips = extract(views(3, 1), decoder)
    assert decoder.asked == [[0, 2, 4, 7, 16, 18, 20, 23, 32, 34, 36, 39]]
    frames = torch.from_numpy(decoder.read(decoder.asked[0]).frames)
    (crops,) = evaluation_crops(frames, short_edge=20, crop_size=16, num_crops=1)
    assert (clips == crops.reshape(3, 4, 16, 16, 3).numpy()).all()


def test_views_are_the_same_in_every_epoch_and_decoded_at_once():
    decoder = Numbered()
    first = extract(views(4, 3), decoder)
    assert (extract(views(4, 3), Numbered(), epoch=5, video_id="w") == first).all()
    assert len(decoder.asked) == 1


def test_validation_sees_the_centre_of_the_video():
    decoder = Numbered()
    clips = extract(ViewClips(clip=CLIP, views=SINGLE_VIEW), decoder)
    assert clips.shape == (1, 4, 16, 16, 3)
    assert decoder.asked[0][0] == 16


def test_a_video_of_one_frame_gives_whole_clips():
    assert extract(train_clips(), Numbered(num_frames=1)).shape == (3, 4, 16, 16, 3)
    assert extract(views(2, 3), Numbered(num_frames=1)).shape == (6, 4, 16, 16, 3)


def test_a_single_view_can_be_the_left_crop():
    left, three = (
        extract(ViewClips(clip=dataclasses.replace(CLIP, short_edge=16), views=view), Numbered(width=48))
        for view in (Views(num_clips=1, num_crops=1, single_crop="left"), Views(num_clips=1, num_crops=3))
    )
    assert (left[0] == three[0]).all()


def test_segments_place_each_frame_by_itself():
    starts = np.array(
        [numbers_of(extract(train_clips(WHOLE, clip=SEGMENTS), Numbered(), epoch=epoch)[0]) for epoch in range(200)]
    )
    assert starts.min(0).tolist() == [0, 10, 20, 29]
    assert starts.max(0).tolist() == [10, 20, 29, 39]
    assert abs(np.corrcoef(starts.T)[0, 1]) < 0.2


def test_views_of_segments_are_the_middle_of_the_parts():
    decoder = Numbered()
    extract(ViewClips(clip=SEGMENTS, views=SINGLE_VIEW), decoder)
    assert decoder.asked == [[4, 14, 24, 33]]


@pytest.mark.parametrize("make", [train_clips, lambda clip: ViewClips(clip=clip, views=SINGLE_VIEW)])
def test_bgr_turns_the_colours_round(make):
    rgb, bgr = (
        extract(make(clip=dataclasses.replace(CLIP, channel_order=order)), Numbered()) for order in ("rgb", "bgr")
    )
    assert (bgr == rgb[..., ::-1]).all()


def test_colours_are_turned_round_before_anything_else():
    # The grey picture weighs the three colours differently: augmentation must see what the network sees.
    augment = dataclasses.replace(EVERYTHING, repeats=30)
    rgb, bgr = (
        extract(train_clips(augment, clip=dataclasses.replace(CLIP, channel_order=order)), Textured())
        for order in ("rgb", "bgr")
    )
    assert any((one != other[..., ::-1]).any() for one, other in zip(rgb, bgr, strict=True))


# Augmentation where the network is.


def frames_extractor(augment=EVERYTHING, clip=CLIP):
    return TrainFrames(clip=clip, augment=augment)


def finished(frames, *, augment=EVERYTHING, clip=CLIP, **key):
    finish = frames_extractor(augment, clip).finish_on(torch.device("cpu"))
    return finish(torch.from_numpy(frames.copy()), key_of(**key))


@pytest.mark.parametrize("clip", [CLIP, SEGMENTS, dataclasses.replace(CLIP, channel_order="bgr")])
@pytest.mark.parametrize(("height", "width"), [(24, 33), (33, 24), (18, 19)])
def test_clips_are_the_same_bytes_wherever_they_are_augmented(clip, height, width):
    for number in range(8):
        video_id, videos = f"v{number}", Textured(height=height, width=width)
        here = extract(train_clips(EVERYTHING, clip=clip), videos, video_id=video_id, epoch=2)
        (frames,) = extract(frames_extractor(clip=clip), videos, video_id=video_id, epoch=2)
        assert finished(frames, clip=clip, video_id=video_id, epoch=2).numpy().tobytes() == here.tobytes()


# Cutting before anything else is done.

ON_CROP = {"rand_augment_on": "crop", "interpolation": "random"}


class NotedBoxes(Textured):
    def __init__(self, *size):
        super().__init__(height=size[0], width=size[1])
        self.boxes = []

    def read(self, indices, box=None):
        self.boxes.append(box)
        return super().read(indices, box)


@pytest.mark.parametrize("clip", [CLIP, SEGMENTS, dataclasses.replace(CLIP, channel_order="bgr")])
@pytest.mark.parametrize("augment", [DRAWN, dataclasses.replace(EVERYTHING, **ON_CROP)], ids=["drawn", "on the crop"])
@pytest.mark.parametrize(
    ("size", "short_edge", "is_cut"),
    [((20, 33), 20, True), ((33, 19), 20, True), ((24, 40), None, True), ((24, 40), 20, False)],
)
def test_clips_of_the_part_that_they_show_are_the_same_bytes(clip, augment, size, short_edge, is_cut):
    augment = dataclasses.replace(augment, short_edge=short_edge, repeats=2)
    for number in range(6):
        videos, key = NotedBoxes(*size), {"video_id": f"v{number}", "epoch": 3}
        here = extract(train_clips(augment, clip=clip), videos, **key)
        assert [box is not None for box in videos.boxes] == [is_cut]
        (frames,) = extract(frames_extractor(augment, clip=clip), videos, **key)
        assert finished(frames, augment=augment, clip=clip, **key).numpy().tobytes() == here.tobytes()


def test_frames_of_another_size_than_declared_are_read_whole():
    upright, turned = Textured(height=33, width=20), Textured(height=33, width=20)
    turned.info = dataclasses.replace(turned.info, height=20, width=33)
    view = ViewClips(clip=CLIP, views=SINGLE_VIEW)
    assert (extract(view, turned) == extract(view, upright)).all()
    for number in range(8):
        assert extract(train_clips(), turned, video_id=f"v{number}").shape == (3, 4, 16, 16, 3)


@pytest.mark.parametrize(
    "extractor", [train_clips(), ViewClips(clip=CLIP, views=SINGLE_VIEW)], ids=["training", "a view"]
)
def test_frames_of_unknown_size_are_read_whole(extractor):
    known, unknown = Textured(height=20, width=33), Textured(height=20, width=33)
    unknown.info = dataclasses.replace(unknown.info, height=0, width=0)
    assert (extract(extractor, unknown) == extract(extractor, known)).all()


def test_randaugment_on_whole_frames_needs_whole_frames_where_it_does_anything():
    augment, clip = dataclasses.replace(EVERYTHING, repeats=1, rand_augment="rand-m7-n1-mstd0.5-inc1"), CLIP
    seen = set()
    for number in range(20):
        videos, key = NotedBoxes(20, 33), {"video_id": f"v{number}"}
        extract(train_clips(augment, clip=clip), videos, **key)
        draw = clip_draws(torch.empty(1, 20, 33, 3), key_of(**key), clip=clip, augment=augment)[0]
        assert (videos.boxes[0] is None) == bool(draw.operations)
        seen.add(videos.boxes[0] is None)
    assert seen == {True, False}


@pytest.mark.parametrize(
    "views",
    [
        Views(num_clips=2, num_crops=1),
        Views(num_clips=2, num_crops=1, single_crop="left"),
        Views(num_clips=1, num_crops=3),
    ],
)
@pytest.mark.parametrize("size", [(20, 33), (33, 20), (16, 40), (24, 36)])
def test_views_of_the_part_that_they_show_are_the_published_crops(views, size):
    videos = NotedBoxes(*size)
    extractor = ViewClips(clip=CLIP, views=views)
    clips = extract(extractor, videos)
    assert (videos.boxes[0] is not None) == (min(size) == (20 if views.num_crops == 1 else 16))
    frames = torch.from_numpy(videos.read(videos.asked[0]).frames.copy())
    crops = evaluation_crops(
        frames, short_edge=20, crop_size=16, num_crops=views.num_crops, single_crop=views.single_crop
    )
    expected = torch.stack(crops).unflatten(1, (views.num_clips, 4)).transpose(0, 1).flatten(0, 1)
    assert (clips == expected.numpy()).all()


def test_frames_to_be_augmented_are_sent_once_whatever_the_repeats():
    extractor, videos = frames_extractor(), Textured(height=30, width=46)
    sent = extractor.extract(videos, key_of())
    assert sent.clips.shape == (1, 4, 20, 30, 3)
    assert extractor.clips_per_video == 4
    assert sent.concealed == 1
    assert len(videos.asked) == 1


def test_frames_to_be_augmented_are_those_that_were_decoded():
    videos = Textured()
    (frames,) = extract(frames_extractor(dataclasses.replace(EVERYTHING, short_edge=None)), videos)
    assert (frames == videos.read(videos.asked[0]).frames).all()


class TexturedByNumber(Numbered):
    """A picture of its own for each frame, whichever others it's read with."""

    def read(self, indices, box=None):
        decoded = super().read(indices)
        for place, index in enumerate(indices):
            decoded.frames[place] ^= np.random.default_rng(index).integers(
                0, 256, decoded.frames.shape[1:], dtype=np.uint8
            )
        return DecodedFrames(frames=cut(decoded.frames, box), concealed=len(set(indices) & {10, 11, 12}))


@pytest.mark.parametrize(
    "extractor",
    [
        ViewClips(clip=CLIP, views=Views(num_clips=4, num_crops=1)),
        ViewClips(clip=dataclasses.replace(CLIP, channel_order="bgr"), views=Views(num_clips=10, num_crops=3)),
        train_clips(EVERYTHING),
        frames_extractor(dataclasses.replace(EVERYTHING, short_edge=None)),
    ],
    ids=["four clips", "thirty views", "training", "whole frames"],
)
def test_large_frames_are_read_a_part_at_a_time_and_give_the_same_clips(extractor, monkeypatch):
    def result(videos):
        return extractor.extract(videos, key_of())

    whole, parts = TexturedByNumber(height=30, width=46), TexturedByNumber(height=30, width=46)
    expected = result(whole)
    assert len(whole.asked) == 1
    most = 3
    monkeypatch.setattr(clips_module, "PART_BYTES", most * 30 * 46 * 3)
    found = result(parts)
    assert max(map(len, parts.asked)) == most
    assert [index for part in parts.asked for index in part] == sorted(set(whole.asked[0]))  # each once
    assert (found.clips == expected.clips).all()
    assert found.concealed == expected.concealed


def test_a_clip_is_what_its_draws_say():
    videos = Textured(height=24, width=33)
    (frames,) = extract(frames_extractor(), videos)
    source = torch.from_numpy(frames)
    draws = clip_draws(source, key_of(), clip=CLIP, augment=EVERYTHING)
    assert len(draws) == 4
    for clip, draw in zip(extract(train_clips(EVERYTHING), videos), draws, strict=True):
        assert (clip == augment_clip(source, draw, size=16).numpy()).all()


def everything_of_five_videos():
    videos = Textured(height=40, width=52)
    return b"".join(extract(train_clips(EVERYTHING), videos, video_id=f"v{n}", epoch=1).tobytes() for n in range(5))


def test_clips_are_the_same_bytes_in_another_process():
    code = (
        "import hashlib, torch; torch.set_num_threads(1); "
        "from tests.unit.data.clips.test_extract import everything_of_five_videos; "
        "print(hashlib.sha256(everything_of_five_videos()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == hashlib.sha256(everything_of_five_videos()).hexdigest()


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"video_id": "w"}])
def test_augmentation_depends_on_seed_epoch_and_video(change):
    (frames,) = extract(frames_extractor(), Textured())
    assert (finished(frames) != finished(frames, **change)).any()
    assert (finished(frames) == finished(frames)).all()


def test_repeats_differ_in_all_that_is_drawn():
    clips = extract(train_clips(dataclasses.replace(EVERYTHING, repeats=20)), Textured())
    assert len({clip.tobytes() for clip in clips}) == 20
