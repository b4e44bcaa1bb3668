"""What a verification finds of one video, by the decoder's process and the manifest's own statements."""

import pytest
from coded_videos import CODINGS, NUM_FRAMES, write_video

from morphmlp.data.decoding.isolation.isolated import isolated_videos
from morphmlp.preparation.ray_verify import VerifyTask

TASK = VerifyTask(decoder="pyav", timeout_s=20.0)


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left():
    yield
    isolated_videos(TASK.decoder, TASK.limits()).close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("whole") / "whole.webm", CODINGS["VP9"])


def found(path, **listed):
    return TASK({"path": str(path), "num_frames": None, "duration_s": None, **listed})


def test_a_healthy_video_is_compared_and_nothing_is_found(whole):
    row = found(whole)
    assert (row["num_frames"], row["damaged_frames"], row["wrong_frames"]) == (NUM_FRAMES, 0, 0)
    assert row["compared_frames"] > 0
    assert row["cut_short"] == ""


def test_forty_percent_of_a_webm_are_found_to_be_cut_short(whole, tmp_path):
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 5])
    row = found(cut)
    assert 0 < row["num_frames"] < NUM_FRAMES
    assert row["damaged_frames"] == 0
    assert row["cut_short"] == f"ends at {row['num_frames'] / 30:.1f} s of the 1.6 s that its container states"


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({"duration_s": 2.0}, "ends at 1.6 s of the 2.0 s that the manifest states"),
        ({"num_frames": 60}, f"ends after {NUM_FRAMES} of the 60 frames that the manifest states"),
        ({"duration_s": 1.6, "num_frames": NUM_FRAMES}, ""),
        ({"duration_s": 1.0, "num_frames": 20}, ""),
    ],
)
def test_a_video_is_held_against_what_its_list_says(listed, words, whole):
    assert found(whole, **listed)["cut_short"] == words


def test_limits_go_by_the_names_of_the_commands_options():
    limits = TASK.limits()
    assert (limits.timeout_name, limits.memory_name) == ("--decode-timeout-s", "--decoder-memory-mb")
    assert limits.follow_work
