"""Contact sheets show the very clips that training and validation get, and say how they came about."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from morphmlp.config import load_config
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainClips, ViewClips
from morphmlp.data.decoding.protocol import DecodedFrames, VideoInfo, cut
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.stream.plan import epoch_order
from morphmlp.errors import DecodeError
from morphmlp.reporting.clip_rows import training_rows, validation_rows
from morphmlp.reporting.contact_sheet import contact_sheet

CONFIG = load_config(Path(__file__).parents[1] / "small_experiment.yaml")
AUGMENT = dataclasses.replace(CONFIG.augment, rand_augment="rand-m7-n4-mstd0.5-inc1", erase=1.0)
MANIFEST = manifest_from_rows(
    video_ids=[f"v{number}" for number in range(6)],
    paths=[f"v{number}.mp4" for number in range(6)],
    labels=[number % 2 for number in range(6)],
    splits=["train"] * 6,
    class_names=["abseiling", "riding a bike"],
    sizes_bytes=[1] * 6,
)


class Noise:
    """Opens videos of 40 frames of noise; one name is broken."""

    info = VideoInfo(num_frames=40, fps=30.0, pts_s=(), width=60, height=48, codec="none")

    def __init__(self, broken=""):
        self.broken = broken

    def open(self, path, *, num_frames, crc32=None, image=None):
        if path == self.broken:
            raise DecodeError("has no video stream")
        return self

    def read(self, indices, box=None):
        frames = [np.random.default_rng(i).integers(0, 256, (48, 60, 3), dtype=np.uint8) for i in indices]
        return DecodedFrames(frames=cut(np.stack(frames), box), concealed=0)


def config_with(**changes):
    return dataclasses.replace(CONFIG, augment=AUGMENT, **changes)


def first_videos(count, epoch):
    return [f"v{row}" for row in epoch_order(6, seed=CONFIG.train.seed, epoch=epoch)[:count]]


def train_rows(config, videos, *, count, epoch):
    sections = {"clip": config.clip, "augment": config.augment, "seed": config.train.seed}
    return training_rows(MANIFEST, videos, **sections, count=count, epoch=epoch)


def test_training_rows_are_the_clips_of_the_first_videos_of_the_epoch():
    config = config_with()
    rows = list(train_rows(config, Noise(), count=3, epoch=2))
    assert [row.video_id for row in rows] == [name for name in first_videos(3, 2) for _ in range(2)]
    extractor = TrainClips(clip=config.clip, augment=config.augment)
    for name, pair in zip(first_videos(3, 2), (rows[:2], rows[2:4], rows[4:]), strict=True):
        extracted = extractor.extract(Noise(), ClipKey(seed=config.train.seed, epoch=2, video_id=name))
        assert all((row.clip == clip).all() for row, clip in zip(pair, extracted.clips, strict=True))


def test_training_rows_say_what_was_drawn_and_from_what():
    first, second, *_ = train_rows(config_with(), Noise(), count=1, epoch=0)
    assert first.words.startswith("clip 1 of 2: ")
    assert second.words.startswith("clip 2 of 2: ")
    assert "crop" in first.words
    assert "erase" in first.words
    assert first.source == "40 frames 60x48 at 30 per second, none"
    assert first.label in MANIFEST.class_names
    assert len(first.indices) == len(first.clip) == 4
    assert first.indices == second.indices


def test_validation_rows_are_the_views_of_the_first_videos_of_the_manifest():
    rows = list(validation_rows(MANIFEST, Noise(), clip=CONFIG.clip, count=99))
    assert [row.video_id for row in rows] == [f"v{number}" for number in range(6)]
    extracted = ViewClips(clip=CONFIG.clip, views=SINGLE_VIEW).extract(Noise())
    assert (rows[0].clip == extracted.clips[0]).all()
    assert rows[0].words == "centre clip, short side scaled to 36, centre crop 32x32"
    assert rows[0].indices == (16, 18, 20, 23)


@pytest.mark.parametrize("make", ["training", "validation"])
def test_colours_are_shown_as_they_are_whatever_the_network_takes(make):
    plain = dataclasses.replace(CONFIG.augment, rand_augment=None)
    shown = []
    for order in ("rgb", "bgr"):
        config = dataclasses.replace(CONFIG, augment=plain, clip=dataclasses.replace(CONFIG.clip, channel_order=order))
        rows = (
            train_rows(config, Noise(), count=1, epoch=0)
            if make == "training"
            else validation_rows(MANIFEST, Noise(), clip=config.clip, count=1)
        )
        shown.append(next(iter(rows)).clip)
    assert (shown[0] == shown[1]).all()


@pytest.mark.parametrize("make", ["training", "validation"])
def test_a_broken_video_has_a_row_that_says_why(make):
    name = first_videos(1, 0)[0] if make == "training" else "v0"
    videos = Noise(broken=f"{name}.mp4")
    rows = list(
        train_rows(config_with(), videos, count=2, epoch=0)
        if make == "training"
        else validation_rows(MANIFEST, videos, clip=CONFIG.clip, count=2)
    )
    assert (rows[0].video_id, rows[0].clip) == (name, None)
    assert rows[0].words == "can't be used: has no video stream"
    assert rows[1].clip is not None


def texts_of(figure):
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(("pictures", "shown"), [(8, ["16", "18", "20", "23"]), (2, ["16", "23"])])
def test_a_sheet_shows_frames_from_the_first_to_the_last_with_their_numbers(pictures, shown, tmp_path):
    rows = list(validation_rows(MANIFEST, Noise(), clip=CONFIG.clip, count=3))
    figure = contact_sheet(rows, title="small: val clips", pictures=pictures)
    assert len(figure.axes) == 3 * len(shown)
    assert [axes.texts[0].get_text() for axes in figure.axes] == shown * 3
    picture = figure.axes[0].images[0].get_array()
    assert (np.asarray(picture) == rows[0].clip[0]).all()
    figure.savefig(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_sheet_names_each_video_once_and_each_clip_s_draws():
    rows = list(train_rows(config_with(), Noise(), count=2, epoch=0))
    texts = texts_of(contact_sheet(rows, title="small: train clips"))
    assert "small: train clips" in texts
    for name in first_videos(2, 0):
        assert texts.count(name) == 1
    assert sum(text.startswith("clip ") for text in texts) == 4


def test_a_sheet_takes_rows_without_pictures_and_no_rows_at_all():
    rows = list(validation_rows(MANIFEST, Noise(broken="v0.mp4"), clip=CONFIG.clip, count=1))
    assert contact_sheet(rows, title="broken").axes == []
    assert contact_sheet([], title="nothing").axes == []
