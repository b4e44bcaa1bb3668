"""Clips are decoded once for all who need the same ones, and never taken for others."""

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from morphmlp.config import load_config
from morphmlp.config.schema import TestConfig as ViewsConfig
from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.extract import ExtractedClips, TrainClips, ViewClips
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.stream import clip_cache
from morphmlp.data.stream.clip_cache import ClipCache, clip_address

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
KEY = "0123456789abcdef" * 4
CONFIG = load_config(SMALL)
EXTRACTOR = TrainClips(clip=CONFIG.clip, augment=CONFIG.augment)
VIEWS = ViewClips(clip=CONFIG.clip, views=CONFIG.test)


def clips_of(value, concealed=0, size=4):
    return ExtractedClips(clips=np.full((1, 2, size, size, 3), value, np.uint8), concealed=concealed)


def refuse():
    raise AssertionError("decoded though it was there")


def address(extractor, decoder, *, path, num_frames, crc32, image=None, **key):
    file = {"path": path, "num_frames": num_frames, "crc32": crc32, "image": image}
    return clip_address(extractor, ClipKey(**key), decoder, **file)


@pytest.fixture
def cache(tmp_path):
    return ClipCache(folder=str(tmp_path / "cache"), max_bytes=2**30)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"frames")
    return {"path": str(path), "video_id": "v", "seed": 0, "epoch": 1, "num_frames": 30, "crc32": 7}


def test_a_clip_comes_back_as_it_was_decoded(cache):
    first = cache.get(KEY, lambda: clips_of(3, concealed=2))
    again = cache.get(KEY, refuse)
    assert again.clips.shape == first.clips.shape
    assert again.clips.tobytes() == first.clips.tobytes()
    assert again.concealed == 2


def test_what_decoding_raises_passes_through_and_nothing_is_kept(cache):
    with pytest.raises(ZeroDivisionError):
        cache.get(KEY, lambda: 1 / 0)
    assert cache.get(KEY, lambda: clips_of(1)).clips[0, 0, 0, 0, 0] == 1


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0 truncated", b"x" * 5000])
def test_a_truncated_or_unreadable_file_is_decoded_anew_and_replaced(cache, content):
    cache.get(KEY, lambda: clips_of(1))
    (file,) = Path(cache.folder).rglob("*.arrow")
    file.write_bytes(content)
    assert cache.get(KEY, lambda: clips_of(2)).clips.max() == 2
    assert cache.get(KEY, refuse).clips.max() == 2


def test_a_clip_with_a_hole_is_decoded_anew(cache):
    cache.get(KEY, lambda: clips_of(1, size=64))
    (file,) = Path(cache.folder).rglob("*.arrow")
    with file.open("r+b") as content:  # as a power cut may leave it: head and end are right
        content.seek(file.stat().st_size // 2)
        content.write(bytes(64))
    assert cache.get(KEY, lambda: clips_of(2, size=64)).clips.min() == 2
    assert cache.get(KEY, refuse).clips.min() == 2


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path):
    (tmp_path / "file").write_text("no folder")
    broken = ClipCache(folder=str(tmp_path / "file"), max_bytes=2**30)
    assert broken.get(KEY, lambda: clips_of(1)).clips.max() == 1
    assert broken.get(KEY, lambda: clips_of(2)).clips.max() == 2


def test_nothing_unfinished_stays_behind(cache, monkeypatch):
    def full(*args, **options):
        raise OSError("no space left")

    monkeypatch.setattr(clip_cache.pa.ipc, "new_file", full)
    assert cache.get(KEY, lambda: clips_of(1)).clips.max() == 1
    assert [path.name for path in Path(cache.folder).rglob("*") if path.is_file() and path.parent.name != "locks"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"video_id": "w"},
        {"epoch": 2},
        {"seed": 1},
        {"copy": 1},
        {"num_frames": 31},
        {"crc32": 8},
        {"image": StoredImage(offset=512, length=9)},
        {"image": StoredImage(as_stored=True)},
    ],
)
def test_another_video_epoch_or_seed_has_another_address(video, change):
    assert address(EXTRACTOR, "pyav", **video) != address(EXTRACTOR, "pyav", **{**video, **change})


def test_other_frames_of_one_folder_have_another_address(tmp_path, video):
    paths = [str(tmp_path), f"{tmp_path}/left_%05d.png", f"{tmp_path}/right_%05d.png"]
    assert len({address(EXTRACTOR, "pyav", **{**video, "path": path}) for path in paths}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"clip": dataclasses.replace(CONFIG.clip, num_frames=CONFIG.clip.num_frames + 1)},
        {"augment": dataclasses.replace(CONFIG.augment, flip=0.25)},
    ],
)
def test_other_augmentation_or_sizes_have_another_address(video, change):
    assert address(EXTRACTOR, "pyav", **video) != address(dataclasses.replace(EXTRACTOR, **change), "pyav", **video)


def test_another_decoder_has_another_address(video):
    assert address(EXTRACTOR, "pyav", **video) != address(EXTRACTOR, "decord", **video)


def test_another_version_of_what_decodes_or_resizes_has_another_address(video, monkeypatch):
    before = address(EXTRACTOR, "pyav", **video)
    monkeypatch.setattr(clip_cache, "_version", lambda decoder: "0")
    other_decoder = address(EXTRACTOR, "pyav", **video)
    monkeypatch.setattr(clip_cache.torch, "__version__", "0")
    other_torch = address(EXTRACTOR, "pyav", **video)
    monkeypatch.setattr("PIL.__version__", "0")
    other_pillow = address(EXTRACTOR, "pyav", **video)
    monkeypatch.setattr("simplejpeg.__version__", "0")
    assert len({before, other_decoder, other_torch, other_pillow, address(EXTRACTOR, "pyav", **video)}) == 5


def test_a_file_that_was_changed_has_another_address(video):
    before = address(EXTRACTOR, "pyav", **video)
    Path(video["path"]).write_bytes(b"others")
    os.utime(video["path"], ns=(1, 1))
    assert address(EXTRACTOR, "pyav", **video) != before


def test_views_are_the_same_in_every_epoch_of_any_seed_and_differ_from_other_views(video):
    assert address(VIEWS, "pyav", **video) == address(VIEWS, "pyav", **{**video, "seed": 4, "epoch": 5})
    others = dataclasses.replace(VIEWS, views=ViewsConfig(num_clips=9, num_crops=3))
    assert address(VIEWS, "pyav", **video) != address(others, "pyav", **video)


def test_the_least_recently_used_clips_go(tmp_path):
    cache = ClipCache(folder=str(tmp_path), max_bytes=clip_cache.SHARDS * 10_000)
    keys = [f"{number:08x}{0:08x}{1:048x}" for number in range(12)]  # all of one shard
    for age, key in enumerate(keys):
        cache.get(key, lambda: clips_of(1, size=24))  # 3.5 kB each
        for file in tmp_path.rglob(f"{key}.arrow"):
            os.utime(file, (age, age))
    kept = {file.stem for file in tmp_path.rglob("*.arrow")}
    assert kept == set(keys[-len(kept) :])
    assert 1 <= len(kept) <= 3


def test_a_clip_that_is_found_again_outlives_a_younger_one(tmp_path):
    cache = ClipCache(folder=str(tmp_path), max_bytes=clip_cache.SHARDS * 10_000)
    keys = [f"{number:08x}{0:08x}{1:048x}" for number in range(3)]  # all of one shard, which holds two
    for age, key in enumerate(keys):
        if key == keys[2]:
            cache.get(keys[0], refuse)
        cache.get(key, lambda: clips_of(1, size=24))
        if key != keys[2]:
            os.utime(next(tmp_path.rglob(f"{key}.arrow")), (age, age))
    assert {file.stem for file in tmp_path.rglob("*.arrow")} == {keys[0], keys[2]}


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path):
    cache = ClipCache(folder=str(tmp_path), max_bytes=2**30)
    keys = [f"{number:08x}{0:08x}{1:048x}" for number in range(2)]  # of one shard
    cache.get(keys[0], lambda: clips_of(1))
    shard = next(tmp_path.rglob("*.arrow")).parent
    left, begun = shard / ".left.unfinished", shard / ".begun.unfinished"
    for file, age_s in ((left, clip_cache.ABANDONED_S + 60), (begun, 60)):
        file.write_bytes(b"half a clip")
        os.utime(file, (time.time() - age_s,) * 2)
    cache.get(keys[1], lambda: clips_of(1))
    assert not left.exists()
    assert begun.exists()
    assert cache.get(keys[0], refuse).clips.max() == 1


def _decode_for_ever(folder, begun):
    def decode():
        begun.set()
        time.sleep(600)

    ClipCache(folder=folder, max_bytes=2**30).get(KEY, decode)


def test_a_process_that_is_killed_while_it_decodes_holds_up_nobody(cache):
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    killed = context.Process(target=_decode_for_ever, args=(cache.folder, begun))
    killed.start()
    assert begun.wait(30)
    killed.kill()
    killed.join(30)
    assert cache.get(KEY, lambda: clips_of(1)).clips.max() == 1


def _decode_slowly(folder, log, barrier):
    def decode():
        with Path(log).open("a") as file:
            file.write("decoded\n")
        return clips_of(1, size=64)

    barrier.wait(30)
    for number in range(20):
        ClipCache(folder=folder, max_bytes=2**30).get(f"{number:064x}", decode)


def test_processes_that_need_a_clip_at_the_same_time_decode_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    workers = [
        context.Process(target=_decode_slowly, args=(str(tmp_path / "c"), str(tmp_path / "log"), barrier))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "log").read_text().splitlines() == ["decoded"] * 20
