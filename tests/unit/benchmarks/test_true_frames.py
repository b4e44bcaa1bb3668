"""What decoders are held against: FFmpeg's command and a plain decode give the same pictures."""

import imageio_ffmpeg
import numpy as np
import pytest
from coded_videos import NUM_FRAMES, Coding, write_video

from morphmlp.benchmarks.true_frames import has_ffmpeg, true_frames
from morphmlp.errors import DecodeError


@pytest.fixture(autouse=True)
def command(tmp_path, monkeypatch):
    """An `ffmpeg` that is alone on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    assert not has_ffmpeg()
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    assert has_ffmpeg()


@pytest.mark.parametrize(
    ("name", "rotation"), [("b_frames.avi", None), ("turned.mp4", 90)], ids=["AVI with B-frames", "turned"]
)
def test_both_ways_give_the_same_frames(name, rotation, tmp_path):
    options = {"g": "12", "bf": "3"}
    path = str(write_video(tmp_path / name, Coding(file="", codec="libx264", options=options, rotation=rotation)))
    command, plain = (list(true_frames(path, by=by, most=99)) for by in ("FFmpeg's command", "a plain decode"))
    assert len(command) == len(plain) == NUM_FRAMES
    assert np.abs(np.stack(command).astype(int) - np.stack(plain)).mean() < 3
    assert len(list(true_frames(path, by="FFmpeg's command", most=5))) == 5


def test_a_command_that_gives_nothing_is_an_error_with_its_words(tmp_path):
    (tmp_path / "bin" / "ffmpeg").unlink()
    (tmp_path / "bin" / "ffmpeg").write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    path = write_video(tmp_path / "v.mp4", Coding(file="", codec="libx264"))
    with pytest.raises(DecodeError, match="no such option"):
        list(true_frames(str(path), by="FFmpeg's command", most=5))
