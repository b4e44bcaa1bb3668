"""The small coded videos, and the count of wrong frames."""

from dataclasses import replace

import numpy as np
import pytest
from coded_videos import (
    CODINGS,
    HIDDEN_FRAMES,
    NUM_FRAMES,
    SAME_PICTURE,
    can_encode,
    count_wrong_frames,
    sequential_frames,
    write_coded_videos,
)

from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.errors import DecodeError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_coded_videos(tmp_path_factory.mktemp("coded"))


def test_there_is_a_file_of_each_kind_that_can_be_encoded(videos):
    kinds = [kind for kind, coding in CODINGS.items() if can_encode(coding.codec)]
    assert list(videos) == [*kinds, "edit list"]
    assert not can_encode("no such codec")


def test_no_two_frames_of_a_file_are_alike(videos):
    for kind, path in videos.items():
        frames = sequential_frames(path).astype(int)
        assert len(frames) == NUM_FRAMES - (HIDDEN_FRAMES if kind == "edit list" else 0)
        assert np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)).min() > 2 * SAME_PICTURE, kind


def test_pyav_gives_no_wrong_frame(videos):
    assert {kind: count_wrong_frames(PyAVDecoder(), path)[0] for kind, path in videos.items()} == dict.fromkeys(
        videos, 0
    )


class LateDecoder(PyAVDecoder):
    """From the tenth frame on it gives the one before, and of the last five it gives none."""

    def open(self, path):
        return LateReader(super().open(path))


class LateReader:
    def __init__(self, reader):
        self.reader = reader
        self.info = replace(reader.info, num_frames=reader.info.num_frames - 3)

    def read(self, indices):
        if max(indices) >= NUM_FRAMES - 5:
            raise DecodeError("no frame")
        return self.reader.read([index - (index >= 10) for index in indices])

    def scan(self):
        return self.reader.scan()


def test_late_frames_and_missing_ones_are_wrong(videos):
    assert count_wrong_frames(LateDecoder(), videos["short groups"]) == (NUM_FRAMES - 10, NUM_FRAMES)


def test_of_a_file_that_a_decoder_refuses_every_frame_is_wrong(videos):
    class Refusing(PyAVDecoder):
        def open(self, path):
            raise DecodeError("not this one")

    assert count_wrong_frames(Refusing(), videos["short groups"]) == (NUM_FRAMES, NUM_FRAMES)
