"""Before a run: are the videos there? Decided from some of them, in seconds. Nothing of Ray is started."""

import shutil
import threading
import time

import pytest

from morphmlp.data.manifest import manifest_from_rows
from morphmlp.data.stream import ray_first_look
from morphmlp.data.stream.ray_first_look import MOST_FILES, FileSample, file_faults

VIDEOS = 1000


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    for number in range(VIDEOS):
        (tmp_path / "disk" / f"{number}.mp4").write_bytes(b"video")
    return tmp_path / "disk"


def sample_of(disk, *, videos=VIDEOS, split="train", template=""):
    manifest = manifest_from_rows(
        video_ids=[f"{number:04}" for number in range(videos)],
        paths=[f"{disk}/{number}.mp4{template}" for number in range(videos)],
        labels=[0] * videos,
        splits=[split] * videos,
        sizes_bytes=[5] * videos,
        class_names=["yoga"],
    )
    return FileSample.of(split, manifest)


def test_videos_that_are_there_need_no_word(disk):
    sample = sample_of(disk)
    assert len(set(sample.files)) == MOST_FILES
    assert file_faults([sample, sample_of(disk, split="val")], limit=0.0) == []


def test_a_disk_that_is_gone_is_reported_in_one_line_for_each_split(disk):
    shutil.rmtree(disk)
    sample = sample_of(disk)
    lines = file_faults([sample, sample_of(disk, split="val", videos=2)], limit=0.01)
    missing = [f"{path}: no such file or directory" for path in sample.files[:3]]
    assert lines[0] == (
        "data.train: 200 of 200 files looked at (1000 videos) can't be used, more than ingest.max_quarantined_share "
        f"0.01 allows: {'; '.join(missing)}; ...; is the disk there that holds them?"
    )
    assert lines[1].startswith("data.val: 2 of 2 files looked at (2 videos) can't be used, ")
    assert len(lines) == 2


@pytest.mark.parametrize(("gone", "refused"), [(500, True), (200, True), (12, False), (3, False)])
def test_a_sample_refuses_what_is_far_beyond_the_limit_and_leaves_the_rest_to_the_run(disk, gone, refused):
    for number in range(gone):
        (disk / f"{number}.mp4").unlink()
    assert bool(file_faults([sample_of(disk)], limit=0.01)) == refused


def test_a_split_that_is_looked_at_whole_is_held_to_its_limit(disk):
    (disk / "3.mp4").write_bytes(b"")
    assert file_faults([sample_of(disk, videos=100)], limit=0.01) == []
    (line,) = file_faults([sample_of(disk, videos=99)], limit=0.01)
    assert "data.train: 1 of 99 files looked at (99 videos) can't be used" in line
    assert f"{disk / '3.mp4'}: the file is empty (0 bytes)" in line


def test_where_nothing_may_be_left_out_one_missing_file_is_enough(disk):
    (disk / "3.mp4").unlink()
    (line,) = file_faults([sample_of(disk, videos=200)], limit=0.0)
    assert "1 of 200 files looked at (200 videos) can't be used, more than ingest.on_broken fail allows" in line


@pytest.mark.parametrize("template", ["", "/%05d.jpg"])
@pytest.mark.parametrize("content", [[], ["00001.jpg"]])
def test_a_folder_of_frames_must_hold_something(disk, content, template):
    (disk / "0.mp4").unlink()
    (disk / "0.mp4").mkdir()
    for name in content:
        (disk / "0.mp4" / name).touch()
    lines = file_faults([sample_of(disk, videos=1, template=template)], limit=0.0)
    assert ["the folder is empty" in line for line in lines] == [True] * (not content)


@pytest.fixture
def hang(monkeypatch):
    """`hang(paths)`: whoever asks for these waits, as at a server that is gone."""
    over = threading.Event()

    def hang_at(paths):
        ask = ray_first_look.require_content

        def slow(path):
            if path in paths:
                over.wait(60)
            ask(path)

        monkeypatch.setattr(ray_first_look, "require_content", slow)

    yield hang_at
    over.set()


def test_a_disk_that_does_not_answer_is_reported_in_time(disk, hang):
    sample = sample_of(disk)
    hang(sample.files)
    began = time.monotonic()
    lines = file_faults([sample], limit=0.5, patience_s=0.3)
    assert time.monotonic() - began < 10
    assert lines == [
        f"data.train: none of 200 files answers within 0.3 s, the first: {sample.files[0]}; is the disk or server "
        "there that holds them?"
    ]


def test_files_that_answer_late_are_not_counted(disk, hang):
    sample = sample_of(disk)
    hang(sample.files[:3])
    for path in sample.files[3:30]:
        (disk / path).unlink()
    (line,) = file_faults([sample], limit=0.01, patience_s=2.0)
    assert line.startswith("data.train: 27 of 197 files looked at (1000 videos) can't be used")
