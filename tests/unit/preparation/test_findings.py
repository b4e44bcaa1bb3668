"""What's reported of a data set: reasons, summary, quarantine, the picture; and the rules of copies."""

import datetime
import io
import json

import numpy as np
import pyarrow as pa
import pytest

from morphmlp.data.manifest import manifest_from_rows, read_manifest, write_manifest
from morphmlp.data.quarantine import Quarantine
from morphmlp.errors import ManifestError
from morphmlp.preparation.copies import COPIED, CopyFiles, claim_folder, copies_manifest, making, remove_unfinished
from morphmlp.preparation.findings import broken_reasons, broken_videos, write_quarantine
from morphmlp.preparation.overview import overview_figure
from morphmlp.preparation.ray_verify import VERIFIED, filled_manifest, summary, without_cut_short

THEN = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
NOW = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
FACTS = {"num_frames": 300, "fps": 30.0, "width": 340, "height": 256, "codec": "h264", "duration_s": 10.0}


def video(number, **cells):
    good = {"stored_bytes": 500_000, **FACTS, "damaged_frames": 0}
    row = {"video_id": f"v{number}", "path": f"/x/v{number}.mp4", "size_bytes": 500_000, "mtime": THEN}
    return {**row, "error": "", "message": "", **({} if "error" in cells else good), **cells}


def found(*rows):
    return pa.Table.from_pylist(list(rows), schema=VERIFIED)


def broken(number, message="the file is empty (0 bytes)", **cells):
    return video(number, error="DecodeError", message=message, **cells)


def manifest_of(count, *, promised=None):
    return manifest_from_rows(
        video_ids=[f"v{number}" for number in range(count)],
        paths=[f"/x/v{number}.mp4" for number in range(count)],
        labels=[0] * count,
        splits=["train"] * count,
        sizes_bytes=[1] * count,
        class_names=["only"],
        num_frames=promised,
    )


def test_reasons_that_differ_in_paths_and_numbers_are_one():
    reasons = broken_reasons(
        found(broken(0, "/x/v0.mp4: frame 7 is bad"), broken(1), broken(2, "/x/v2.mp4: frame 12 is bad"), video(3))
    )
    assert [(reason.text, reason.videos, reason.example) for reason in reasons] == [
        ("DecodeError: …: frame … is bad", 2, "/x/v0.mp4"),
        ("DecodeError: the file is empty (0 bytes)", 1, "/x/v1.mp4"),
    ]


def test_the_summary_counts_every_video_once_and_names_the_worst_damage():
    rows = found(
        *(video(0), video(1, damaged_frames=3), broken(2), video(3, damaged_frames=9)),
        *(
            video(4, wrong_frames=2, compared_frames=4),
            video(5, cut_short="ends at 4.0 s of the 10.0 s that it states"),
        ),
    )
    lines = summary(rows, num_classes=2).splitlines()
    assert [(line[:9].strip(), int(line[9:18])) for line in lines[:6]] == [
        ("videos", 6),
        ("usable", 5),
        ("damaged", 2),
        ("wrong", 1),
        ("cut short", 1),
        ("broken", 1),
    ]
    assert lines[6] == "       1  DecodeError: the file is empty (0 bytes), as /x/v2.mp4"
    assert lines[7:] == [
        "  damaged: 9 of 300 frames of /x/v3.mp4",
        "  damaged: 3 of 300 frames of /x/v1.mp4",
        "  wrong: 2 frames, of 4 compared of /x/v4.mp4",
        "  cut short: /x/v5.mp4 ends at 4.0 s of the 10.0 s that it states",
    ]


def test_videos_that_were_cut_short_are_left_out_with_their_reason_where_that_is_asked_for():
    also_faulty = {"cut_short": "ends at 4.0 s", "duration_s": 400.0, "damaged_frames": 3, "wrong_frames": 2}
    kept = found(video(0), video(1, **also_faulty), broken(2))
    judged = without_cut_short(kept)
    assert judged.schema == VERIFIED
    lines = summary(judged, num_classes=2).splitlines()
    assert [int(line[9:18]) for line in lines[:6]] == [3, 1, 0, 0, 0, 2]  # left out and nothing else
    assert lines[1].endswith("0.2 minutes")
    assert judged["message"].to_pylist() == ["", "ends at 4.0 s", "the file is empty (0 bytes)"]
    assert broken_videos(judged)["video_id"].to_pylist() == ["v1", "v2"]
    manifest = manifest_of(3)
    assert filled_manifest(manifest, judged).table["available"].to_pylist() == [True, False, True]
    assert filled_manifest(manifest, kept).table["available"].to_pylist() == [True, True, True]
    assert filled_manifest(manifest, judged).fingerprint() == manifest.fingerprint()


def test_a_broken_video_keeps_its_first_run_while_its_file_is_what_it_was(tmp_path):
    path = tmp_path / "train.quarantine.parquet"
    known = {"stage": "verify", "decoder": "pyav", "version": "1"}
    write_quarantine(path, found(broken(0), broken(1), broken(2)), now=THEN, **known)
    assert {video.first_run for video in Quarantine.read(path).videos()} == {"verify 2024-01-01 00:00:00 UTC"}
    changed = broken(1, mtime=NOW)
    write_quarantine(path, found(broken(0), changed, video(2), broken(3)), now=NOW, **known)
    assert {video.video_id: video.first_run for video in Quarantine.read(path).videos()} == {
        "v0": "verify 2024-01-01 00:00:00 UTC",
        "v1": "verify 2024-05-06 07:08:09 UTC",
        "v3": "verify 2024-05-06 07:08:09 UTC",
    }


def test_what_another_stage_found_stays_in_the_quarantine(tmp_path):
    path = tmp_path / "train.quarantine.parquet"
    for stage, row, now in (("transcode", broken(0), THEN), ("verify", broken(1), NOW)):
        write_quarantine(path, found(row), stage=stage, decoder="pyav", version="1", now=now)
    assert [(video.video_id, video.stage) for video in Quarantine.read(path).videos()] == [
        ("v0", "transcode"),
        ("v1", "verify"),
    ]


def test_a_quarantine_that_is_no_table_is_written_anew(tmp_path):
    path = tmp_path / "train.quarantine.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    write_quarantine(path, found(broken(0)), stage="verify", decoder="pyav", version="1", now=NOW)
    assert [video.video_id for video in Quarantine.read(path).videos()] == ["v0"]


def test_a_filled_manifest_knows_good_videos_and_forgets_broken_ones():
    gone = broken(2, "no such file or directory", size_bytes=None, mtime=None)
    filled = filled_manifest(manifest_of(3, promised=[None, 40, 40]), found(video(0), broken(1), gone))
    rows = filled.table.to_pylist()
    assert {name: rows[0][name] for name in FACTS} == FACTS
    assert [row["available"] for row in rows] == [True, True, False]
    assert [row["num_frames"] for row in rows] == [300, 40, 40]
    assert [row["width"] for row in rows] == [340, None, None]
    assert [row["size_bytes"] for row in rows] == [500_000, 500_000, None]
    assert filled.fingerprint() == manifest_of(3).fingerprint()


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (20, 4), (3000, 400)])
def test_the_picture_can_be_drawn_of_few_videos_and_of_many(count, classes):
    rng = np.random.default_rng(0)
    rows = [
        broken(number, f"reason {'abcdefgh'[number % 8]}")
        if number % 10 == 9
        else video(number, width=int(rng.integers(10, 999)), fps=rng.uniform(10, 60), duration_s=rng.uniform(0.1, 300))
        for number in range(count)
    ]
    labels = rng.integers(0, classes, count)
    names = [f"class {number} with a name that is rather long" for number in range(classes)]
    figure = overview_figure(found(*rows), labels, names, title="train")
    figure.savefig(buffer := io.BytesIO(), format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[5].startswith(f"Can't be used: {count // 10}")
    drawn = sum(bar.get_width() for bar in figure.axes[3].patches)
    assert drawn == count - count // 10  # the last bar holds the others


def test_the_picture_can_be_drawn_when_nothing_can_be_used():
    figure = overview_figure(found(broken(0, size_bytes=None)), np.zeros(1, dtype=int), ["only"], title="train")
    figure.savefig(io.BytesIO(), format="png", dpi=40)


@pytest.fixture
def files(tmp_path):
    return CopyFiles(folder=tmp_path / "small", name="train")


def claim(files, tmp_path, settings, *, prepared=None, again=False, videos=2):
    made = making("transcode", settings, manifest_of(videos))
    claim_folder(files, made, source=tmp_path / "train.parquet", prepared=prepared, again=again)


def test_a_folder_takes_the_same_copies_again_and_no_others(files, tmp_path):
    claim(files, tmp_path, {"crf": 22})
    claim(files, tmp_path, {"crf": 22})
    with pytest.raises(ManifestError, match=r"copies of another making \(crf 22, asked for 20\)"):
        claim(files, tmp_path, {"crf": 20})
    with pytest.raises(ManifestError, match="source 2:"):
        claim(files, tmp_path, {"crf": 22}, videos=3)


def test_other_splits_lie_there_in_the_same_making(files, tmp_path):
    claim(files, tmp_path, {"crf": 22})
    sibling = CopyFiles(folder=files.folder, name="val")
    claim(sibling, tmp_path, {"crf": 22}, videos=3)
    with pytest.raises(ManifestError, match="another making"):
        claim(CopyFiles(folder=files.folder, name="test"), tmp_path, {"crf": 30})


def test_copies_of_copies_must_be_asked_for(files, tmp_path):
    prepared = json.dumps(making("transcode", {"crf": 22}, manifest_of(2)))
    with pytest.raises(ManifestError, match="say --again"):
        claim(files, tmp_path, {"crf": 22}, prepared=prepared)
    assert not files.folder.exists()
    claim(files, tmp_path, {"crf": 22}, prepared=prepared, again=True)


def test_a_folder_with_something_else_is_refused(files, tmp_path):
    files.videos.mkdir(parents=True)
    (files.videos / "holiday.mp4").touch()
    with pytest.raises(ManifestError, match="holds something else"):
        claim(files, tmp_path, {"crf": 22})


def test_the_manifest_of_the_originals_is_never_overwritten(tmp_path):
    with pytest.raises(ManifestError, match="itself"):
        claim(CopyFiles(folder=tmp_path, name="train"), tmp_path, {"crf": 22})


def test_every_video_has_a_place_of_its_own_whatever_its_id(files):
    ids = ["a", "A", "../a", "a/b", "a%2Fb", ".hidden", "é" * 100, "é" * 101, "x" * 300]
    places = [files.copy_of(video_id, ".mp4") for video_id in ids]
    assert len(set(places)) == len(ids)
    for place in places:
        assert place.resolve().is_relative_to(files.videos.resolve())
        assert len(place.name.encode()) < 255 - len("..1234567.unfinished")
        assert not place.name.startswith(".")


def test_the_manifest_of_copies_says_what_they_are_and_keeps_the_rows_of_those_that_failed(tmp_path):
    copied = {"output": "/y/v0.mp4", "output_bytes": 7, "output_mtime": NOW, "stored_bytes": 1, **FACTS}
    rows = [{**video(0, error=""), **copied}, broken(1)]
    rows = [{name: row.get(name) for name in COPIED.names} for row in rows]
    made = making("transcode", {"crf": 22}, manifest_of(2))
    copies = copies_manifest(manifest_of(2), pa.Table.from_pylist(rows, schema=COPIED), made)
    assert copies.fingerprint() == manifest_of(2).fingerprint()
    write_manifest(copies, tmp_path / "copies.parquet")
    again = read_manifest(tmp_path / "copies.parquet")
    assert json.loads(str(again.prepared)) == made
    assert again.available().prepared == again.prepared
    assert again.table["path"].to_pylist() == ["/y/v0.mp4", "/x/v1.mp4"]
    assert again.table["available"].to_pylist() == [True, False]
    assert again.table["size_bytes"].to_pylist() == [7, None]


def test_what_a_killed_job_was_writing_is_cleared_away(files):
    place = files.copy_of("a", ".mp4")
    place.parent.mkdir(parents=True)
    place.touch()
    place.with_name(f".{place.name}.17.unfinished").touch()
    remove_unfinished(files)
    assert [path.name for path in place.parent.iterdir()] == [place.name]
