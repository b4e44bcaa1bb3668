"""Synthetic data sets lie on disk as Kinetics does, and are the same for the same seed."""

import csv
import re

import av
import numpy as np
import pytest

from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic import demo_task
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset, write_realistic_videos
from morphmlp.errors import ManifestError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp("synthetic") / "demo"
    write_demo_dataset(output, train=16, val=8, test=9)
    return output


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.mp4")}


def test_the_videos_are_h264_with_b_frames_and_decode_to_what_was_drawn(demo):
    with (demo / "annotations" / "train.csv").open(newline="") as file:
        fourth = list(csv.DictReader(file))[3]
    (path,) = (demo / "train" / fourth["label"]).glob(f"{fourth['youtube_id']}_*.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 30
        frames = list(container.decode(video=0))
    assert len(frames) == demo_task.NUM_FRAMES
    assert {av.video.frame.PictureType(frame.pict_type) for frame in frames} >= {
        av.video.frame.PictureType.I,
        av.video.frame.PictureType.B,
    }
    rng = np.random.default_rng([0, 0, 3])
    drawn = demo_task.render(demo_task.draw_scene(rng), 3, rng=rng)
    decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert np.abs(decoded.astype(int) - drawn).mean() < 6


def test_files_and_annotations_follow_kinetics(demo):
    with (demo / "annotations" / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "youtube_id", "time_start", "time_end", "split"]
    assert len(rows) == 9
    for row in rows:
        assert re.fullmatch(r"[A-Za-z0-9_-]{11}", row["youtube_id"])
        name = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
        assert (demo / row["split"] / row["label"] / name).is_file()


def test_manifests_hold_balanced_classes_in_one_order(demo):
    train, val, test = (read_manifest(demo / f"{split}.parquet") for split in ("train", "val", "test"))
    assert train.class_names == val.class_names == test.class_names == demo_task.CLASS_NAMES
    assert np.bincount(train.table["label"].to_pylist()).tolist() == [2] * 8
    assert (len(train), len(val), len(test)) == (16, 8, 9)
    ids = [name for manifest in (train, val, test) for name in manifest.table["video_id"].to_pylist()]
    assert len(set(ids)) == len(ids)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(demo, tmp_path):
    write_demo_dataset(tmp_path / "again", train=16, val=8, test=9, threads=1)
    assert content(tmp_path / "again") == content(demo)
    write_demo_dataset(tmp_path / "other", train=16, val=8, test=9, seed=1)
    assert not content(tmp_path / "other").keys() & content(demo).keys()


def test_a_complete_folder_is_left_as_it_is(demo):
    video = next(demo.rglob("*.mp4"))
    before = video.stat().st_mtime_ns
    write_demo_dataset(demo, train=16, val=8, test=9)
    assert video.stat().st_mtime_ns == before


def test_a_moved_folder_gets_manifests_with_its_new_paths(tmp_path):
    write_demo_dataset(tmp_path / "old", train=8, val=0, test=0)
    (tmp_path / "old").rename(tmp_path / "new")
    write_demo_dataset(tmp_path / "new", train=8, val=0, test=0)
    paths = read_manifest(tmp_path / "new" / "train.parquet").table["path"].to_pylist()
    assert all(path.startswith(f"{tmp_path / 'new'}/") for path in paths)


def test_a_folder_with_other_videos_is_refused(demo):
    with pytest.raises(ManifestError, match=r"holds other videos \(seed 0, asked for 3, train 16, asked for 24\)"):
        write_demo_dataset(demo, train=24, val=8, test=9, seed=3)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ManifestError, match="holds something else than synthetic videos"):
        write_demo_dataset(tmp_path, train=8, val=0, test=0)


def test_a_stopped_writing_is_taken_up_again(tmp_path):
    write_demo_dataset(tmp_path / "demo", train=8, val=0, test=0)
    marker = tmp_path / "demo" / "synthetic.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    (tmp_path / "demo" / "train.parquet").unlink()
    write_demo_dataset(tmp_path / "demo", train=8, val=0, test=0)
    assert len(read_manifest(tmp_path / "demo" / "train.parquet")) == 8
    assert '"complete": true' in marker.read_text()


def test_no_videos_at_all_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="at least one video"):
        write_demo_dataset(tmp_path / "demo", train=0, val=0, test=0)


def test_realistic_videos_have_the_size_and_sound_of_kinetics(tmp_path):
    write_realistic_videos(tmp_path / "real", train=1, seconds=2, class_names=["yoga", "archery"])
    manifest = read_manifest(tmp_path / "real" / "train.parquet")
    assert manifest.class_names == ("archery", "yoga")
    with av.open(manifest.table["path"][0].as_py()) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 340, 256)
        assert (video.average_rate, audio.codec_context.name) == (30, "aac")
        assert sum(1 for _ in container.decode(video=0)) == 60
        assert float(audio.duration * audio.time_base) == pytest.approx(2, abs=0.1)
