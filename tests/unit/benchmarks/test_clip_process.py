"""A process that extracts clips on request: its answers, its death, and the kinds of clips."""

import os
import signal

import numpy as np
import pytest
from coded_videos import CODINGS, sequential_frames, write_video

from morphmlp.benchmarks.clip_process import ClipProcess, FailedError
from morphmlp.benchmarks.thumbnails import thumbnails


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", CODINGS["short groups"])


@pytest.fixture(scope="module")
def process():
    with ClipProcess("isolated pyav") as started:
        yield started


def test_it_gives_the_pictures_of_wanted_frames_and_of_all(process, path):
    video = thumbnails(sequential_frames(path))
    assert np.allclose(process.watch(str(path), most_frames=1000), video, atol=0.1)
    assert process.watch(str(path), most_frames=7).shape == (7, 32, 32)
    assert np.allclose(process.look(str(path), [40, 3]), video[[40, 3]], atol=0.1)


@pytest.mark.parametrize("kind", ["train", "train twice", "four views"])
def test_every_kind_of_clip_can_be_cut_and_has_its_cost(process, path, kind):
    cost = process.extract(str(path), kind=kind, video_id="v", epoch=0)
    assert cost.cpu_s > 1e-3
    assert cost.wall_s > 1e-3


def test_an_error_keeps_its_class_and_text(process, tmp_path):
    with pytest.raises(FailedError, match="no such file") as caught:
        process.extract(str(tmp_path / "gone.mp4"), kind="train", video_id="v", epoch=0)
    assert caught.value.name == "DecodeError"


def test_a_process_that_dies_is_an_answer_and_is_started_again(process, path):
    process.look(str(path), [0])
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(FailedError) as caught:
        process.look(str(path), [0])
    assert caught.value.name == "DecoderCrashError"
    assert len(process.look(str(path), [0])) == 1


def test_a_process_that_hangs_is_an_answer(path):
    with ClipProcess("pyav", timeout_s=0.1, patience_s=0.5) as process:
        process.look(str(path), [0])
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(FailedError) as caught:
            process.watch(str(path), most_frames=1)
        assert caught.value.name == "DecodeTimeoutError"
        assert not process.running
