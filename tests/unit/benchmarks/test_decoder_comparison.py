"""Which decoder is advised, and in which words."""

import imageio_ffmpeg
import pytest
from coded_videos import Coding, write_video

from morphmlp.benchmarks.decoder_comparison import (
    DecoderComparison,
    DecoderResult,
    WrongFrames,
    advice,
    compare_decoders,
    comparison_table,
    some_videos,
)
from morphmlp.errors import ManifestError


def result(name, *, cpu_ms=40.0, wrong=0, failed=0, errors=None, example=""):
    return DecoderResult(
        name=name,
        version="1.0",
        cpu_ms=cpu_ms,
        clips=4,
        wrong=wrong,
        checked=256,
        worst=WrongFrames(path="/videos/a.mp4", wrong=min(wrong, 128), checked=128) if wrong else None,
        failed=failed,
        errors=errors or {},
        example=example,
    )


def test_the_exact_and_cheap_one_is_advised_with_what_speaks_against_the_other():
    text = advice([result("pyav"), result("decord", cpu_ms=60, wrong=103)])
    assert text == (
        "pyav: no wrong frames and the cheapest; "
        "decord returned 103 wrong frames of 128 in a.mp4, and must not be used on these files"
    )


def test_right_frames_count_more_than_time():
    text = advice([result("fast", cpu_ms=20, wrong=1), result("right", cpu_ms=50)])
    assert text.startswith("right: no wrong frames at 50 ms a clip; fast returned 1 wrong frames of 128")


def test_a_decoder_that_is_not_right_is_never_advised_not_even_the_best_of_them():
    text = advice([result("pyav", wrong=90), result("decord", wrong=3), result("none", cpu_ms=None, failed=4)])
    assert text == (
        "no decoder may be used on these files, since none is right; pyav returned 90 wrong frames of 128 in a.mp4; "
        "decord returned 3 wrong frames of 128 in a.mp4; none could read none of the files"
    )


def test_files_that_can_be_read_count_more_than_time():
    text = advice([result("fast", cpu_ms=20, failed=3), result("able", cpu_ms=50, failed=1)])
    assert text == "able: no wrong frames at 50 ms a clip; fast failed on 3 files (0.40 times its CPU time)"


def test_an_advised_decoder_that_fails_on_more_files_says_so():
    text = advice([result("able", failed=0, wrong=5), result("right", failed=2)])
    assert text.startswith("right: no wrong frames and the cheapest, though it failed on 2 files; able returned")


def test_between_equals_time_decides():
    text = advice([result("slow", cpu_ms=44), result("fast", cpu_ms=40)])
    assert text == "fast: no wrong frames and the cheapest; slow takes 1.10 times its CPU time"


def test_a_decoder_that_reads_nothing_is_never_advised():
    text = advice([result("none", cpu_ms=None, failed=4), result("some", failed=3)])
    assert text == "some: no wrong frames and the cheapest; none could read none of the files"
    assert advice([result("none", cpu_ms=None)]) == "no decoder could extract a clip from any of these files"


def test_the_table_names_versions_errors_and_what_cannot_be_used():
    comparison = DecoderComparison(
        videos=4,
        unreadable=1,
        decoders=(result("pyav"), result("decord", failed=2, errors={"DecodeError": 2}, example="b.mp4: broken")),
        unusable={"torchcodec": "torchcodec isn't installed"},
        truths={"FFmpeg's command": 3},
        advice="",
    )
    text = comparison_table(comparison)
    assert "pyav 1.0" in text
    assert "frames of 3 files are held against FFmpeg's command" in text
    assert "2 DecodeError" in text
    assert "torchcodec can't be used here: torchcodec isn't installed" in text
    assert "1 of 4 files can't be read at all" in text
    assert "decord's first error: b.mp4: broken" in text


@pytest.mark.slow  # several processes that import torch
def test_on_a_folder_of_avis_only_a_right_decoder_is_advised(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    coding = Coding(file="", codec="libx264", options={"g": "12", "bf": "3"})
    videos = [str(write_video(tmp_path / f"{number}.avi", coding)) for number in range(2)]
    found = compare_decoders(videos, rounds=1)
    assert found.truths == {"FFmpeg's command": 2}
    results = {result.name: result for result in found.decoders}
    assert (results["pyav"].wrong, results["pyav"].checked) == (0, 256)
    assert found.advice.startswith("pyav: no wrong frames")
    if "decord" in results:
        assert results["decord"].wrong > 0
        assert "decord returned" in found.advice
        assert "must not be used on these files" in found.advice


def test_videos_are_taken_evenly_over_all_folders_and_nothing_else_is(tmp_path):
    for number in range(10):
        (tmp_path / f"class {number // 5}").mkdir(exist_ok=True)
        (tmp_path / f"class {number // 5}" / f"{number}.MP4").touch()
    (tmp_path / "notes.txt").touch()
    assert [path[-5:] for path in some_videos(tmp_path, limit=3)] == ["0.MP4", "3.MP4", "6.MP4"]
    assert len(some_videos(tmp_path, limit=50)) == 10
    (tmp_path / "class 0" / "still.JPG").touch()
    assert [path[-9:] for path in some_videos(tmp_path, limit=3, images=True)] == ["still.JPG"]


@pytest.mark.parametrize(("folder", "limit", "fault"), [("gone", 5, "no such"), (".", 5, "no videos"), (".", 0, "one")])
def test_a_folder_without_videos_is_refused(tmp_path, folder, limit, fault):
    with pytest.raises(ManifestError, match=fault):
        some_videos(tmp_path / folder, limit=limit)
