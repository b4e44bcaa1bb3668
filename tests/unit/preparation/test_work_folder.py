"""What counts as finished when a job continues."""

import os
import time

import pyarrow as pa
import pytest

from morphmlp.data.quarantine import file_state
from morphmlp.errors import ManifestError
from morphmlp.preparation.work_folder import RESULT, WorkFolder, stored_bytes

SCHEMA = pa.schema([*RESULT, pa.field("note", pa.string())])
SETTINGS = {"decoder": "pyav", "timeout_s": 60.0}


def result(video_id, path, *, note="", error="", output=None):
    size, mtime = file_state(str(path))
    row = {
        "video_id": video_id,
        "path": str(path),
        "size_bytes": size,
        "mtime": mtime,
        "error": error,
        "message": error and "broken",
        "output": None if output is None else str(output),
        "output_bytes": None if output is None else output.stat().st_size,
        "note": note,
    }
    return pa.Table.from_pylist([row], schema=SCHEMA)


def work_folder(tmp_path, settings=SETTINGS):
    return WorkFolder(tmp_path / ".work", table=tmp_path / "whole.parquet", schema=SCHEMA, settings=settings)


@pytest.fixture
def videos(tmp_path):
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for path in paths:
        path.write_bytes(b"video")
    return pa.table({"video_id": ["a", "b", "c"], "path": [str(path) for path in paths]})


def finished(work, videos):
    return work.finished(videos).tolist()


def test_what_was_kept_is_finished_for_the_next_process(tmp_path, videos):
    with (work := work_folder(tmp_path)).opened():
        assert finished(work, videos) == [False, False, False]
        work.append([result("b", tmp_path / "b.mp4")])
    with (later := work_folder(tmp_path)).opened():
        assert finished(later, videos) == [False, True, False]


def test_a_file_that_was_written_again_is_not_finished(tmp_path, videos):
    with (work := work_folder(tmp_path)).opened():
        work.append([result("a", tmp_path / "a.mp4"), result("b", tmp_path / "b.mp4")])
        (tmp_path / "a.mp4").write_bytes(b"longer video")
        status = (tmp_path / "b.mp4").stat()
        assert finished(work, videos) == [False, True, False]
        os.utime(tmp_path / "b.mp4", (status.st_atime, status.st_mtime + 1))
        assert finished(work, videos) == [False, False, False]


def test_a_missing_file_is_finished_until_it_comes_back(tmp_path, videos):
    (tmp_path / "a.mp4").unlink()
    with (work := work_folder(tmp_path)).opened():
        work.append([result("a", tmp_path / "a.mp4", error="DecodeError")])
        assert finished(work, videos)[0]
        (tmp_path / "a.mp4").write_bytes(b"video")
        assert not finished(work, videos)[0]


def test_a_copy_that_is_gone_or_cut_short_is_made_again(tmp_path, videos):
    outputs = [tmp_path / "x.mp4", tmp_path / "y.mp4", tmp_path / "z.mp4"]
    with (work := work_folder(tmp_path)).opened():
        for name, output in zip("abc", outputs, strict=True):
            output.write_bytes(b"copy")
            work.append([result(name, tmp_path / f"{name}.mp4", output=output)])
        assert finished(work, videos) == [True, True, True]
        outputs[0].unlink()
        outputs[1].write_bytes(b"co")
        assert finished(work, videos) == [False, False, True]


def test_results_of_other_settings_do_not_count(tmp_path, videos):
    with (work := work_folder(tmp_path)).opened():
        work.append([result("a", tmp_path / "a.mp4")])
    with (other := work_folder(tmp_path, {**SETTINGS, "decoder": "decord"})).opened():
        assert finished(other, videos) == [False, False, False]


def test_a_video_at_another_path_is_not_finished(tmp_path, videos):
    with (work := work_folder(tmp_path)).opened():
        work.append([result("a", tmp_path / "b.mp4")])
        assert finished(work, videos) == [False, False, False]


def test_the_newest_result_counts_and_they_come_in_the_asked_order(tmp_path):
    with (work := work_folder(tmp_path)).opened():
        for note in ("first", "second"):
            work.append([result(name, tmp_path / "a.mp4", note=f"{note} {name}") for name in "ab"])
        work.compact()
        work.append([result("a", tmp_path / "a.mp4", note="third a")])
        found = work.results(pa.chunked_array([["b", "a"]]))
        assert found["note"].to_pylist() == ["second b", "third a"]


def test_compacting_leaves_one_part_with_everything(tmp_path, videos):
    with (work := work_folder(tmp_path)).opened():
        for name in "abc":
            work.append([result(name, tmp_path / f"{name}.mp4")])
        assert len(list((tmp_path / ".work").glob("part-*"))) == 3
        work.compact()
        assert len(list((tmp_path / ".work").glob("part-*"))) == 1
        assert finished(work, videos) == [True, True, True]


def test_a_video_without_a_result_is_a_defect(tmp_path):
    with (work := work_folder(tmp_path)).opened(), pytest.raises(RuntimeError, match="1 of 1 videos have no result"):
        work.results(pa.chunked_array([["a"]]))


def test_a_job_that_is_through_leaves_one_table_and_tries_broken_videos_again(tmp_path, videos):
    with (work := work_folder(tmp_path)).opened():
        work.append([result("a", tmp_path / "a.mp4"), result("b", tmp_path / "b.mp4", error="DecodeError")])
        assert finished(work, videos) == [True, True, False]
        work.close(work.results(videos["video_id"].slice(0, 2)))
    assert not (tmp_path / ".work").exists()
    with (later := work_folder(tmp_path)).opened():
        assert finished(later, videos) == [True, False, False]


def test_again_forgets_a_job_that_is_through_but_continues_an_unfinished_one(tmp_path, videos):
    with (work := work_folder(tmp_path)).opened():
        work.append([result("a", tmp_path / "a.mp4")])
        work.close(work.results(videos["video_id"].slice(0, 1)))
    with (work := work_folder(tmp_path)).opened(again=True):
        assert finished(work, videos) == [False, False, False]
        work.append([result("b", tmp_path / "b.mp4")])
    with (work := work_folder(tmp_path)).opened(again=True):
        assert finished(work, videos) == [False, True, False]


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    with (
        work_folder(tmp_path).opened(),
        pytest.raises(ManifestError, match="another process is at work"),
        work_folder(tmp_path).opened(),
    ):
        pass


def test_the_lock_ends_with_its_holder(tmp_path):
    with work_folder(tmp_path).opened():
        pass
    with work_folder(tmp_path).opened():
        pass


def test_half_a_part_of_a_killed_process_is_cleared_away(tmp_path, videos):
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / ".part-00000001-x.parquet.7.unfinished").write_bytes(b"PAR1 half")
    with (work := work_folder(tmp_path)).opened():
        assert finished(work, videos) == [False, False, False]
        assert [path.name for path in (tmp_path / ".work").iterdir()] == ["lock"]


def test_a_folder_of_frames_changes_with_its_frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "00001.jpg").write_bytes(b"123")
    before = file_state(str(folder))
    assert stored_bytes(str(folder)) == 3
    time.sleep(0.02)
    (folder / "00002.jpg").write_bytes(b"4567")
    assert file_state(str(folder)) != before
    assert stored_bytes(str(folder)) == 7
    with_template = f"{folder}/%05d.jpg"
    assert (file_state(with_template), stored_bytes(with_template)) == (file_state(str(folder)), 7)


def test_a_hundred_thousand_finished_videos_are_found_in_seconds(tmp_path):
    # Files that aren't there: the bookkeeping alone.
    ids = [f"v{number:06d}" for number in range(100_000)]
    rows = pa.table({"video_id": ids, "path": ids})
    empty = {"error": "DecodeError", "message": "gone"}
    table = pa.Table.from_pylist([{"video_id": name, "path": name, **empty} for name in ids], schema=SCHEMA)
    with (work := work_folder(tmp_path)).opened():
        work.append([table])
        began = time.monotonic()
        assert work.finished(rows).all()
        assert time.monotonic() - began < 10
