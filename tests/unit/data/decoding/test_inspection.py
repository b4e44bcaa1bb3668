"""What is found of a video before it's used: frames that are wrong, damaged or not there."""

import pytest
from golden_files import CELLS

from morphmlp.data.decoding.backends import decoder_by_name, decoder_fault
from morphmlp.data.decoding.inspection import SAMPLED, cut_short, inspect_file, is_short
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.protocol import Inspection, heard

HEALTHY = Inspection(damaged=0, compared=SAMPLED, wrong=0, cut_short="")
CUT = [name for name, cell in CELLS.items() if cell.group == "cut short"]
WITHOUT_LENGTH = {"ts", "mpg", "wmv", "ogv"}
"""Containers that state none, or lose it with the cut."""


def inspected(path, reader=None):
    reader = decoder_by_name("pyav").open(str(path)) if reader is None else reader
    return inspect_file(reader, str(path), is_same_library=True)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.group != "cut short"])
def test_nothing_is_found_of_a_healthy_file(name, golden):
    assert inspected(golden.path(CELLS[name])) == HEALTHY


class Wrong:
    """Reads a file with a fault of a decoder that says nothing of it."""

    def __init__(self, path, fault):
        self._reader, self._fault = decoder_by_name("pyav").open(str(path)), fault
        self.info = self._reader.info

    def read(self, indices):
        if self._fault == "alone" and len(indices) > 1:
            return self._reader.read(indices)
        if self._fault == "a row":
            decoded = self._reader.read(indices)
            decoded.frames[:, 5] ^= 8
            return decoded
        return self._reader.read([min(index + 1, self.info.num_frames - 1) for index in indices])

    def scan(self):
        return 0


@pytest.mark.parametrize(("fault", "wrong"), [("every frame", SAMPLED), ("alone", 1), ("a row", SAMPLED)])
def test_frames_that_are_not_those_asked_for_are_found(fault, wrong, golden):
    path = golden.path(CELLS["mp4: h264, B-pyramid"])
    found = inspected(path, Wrong(path, fault))
    assert (found.wrong, found.compared, found.damaged) == (wrong, SAMPLED, 0)


def test_frames_that_only_a_plain_decode_has_are_found(golden):
    class Fewer(Wrong):
        def read(self, indices):
            return self._reader.read(indices)

    path = golden.path(CELLS["ts: h264, two files joined"])
    reader = Fewer(path, "")
    reader.info = decoder_by_name("pyav").open(str(golden.path(CELLS["ts: h264, B-frames"]))).info
    assert inspected(path, reader).wrong == 30


def test_another_librarys_rounding_is_no_fault_and_its_wrong_frames_are(golden):
    if decoder_fault("decord") is not None:
        pytest.skip("decord isn't installed")

    def found(name):
        with IsolatedVideos("decord", Limits(timeout_s=20)) as videos:
            return videos.open(str(golden.path(CELLS[name])), num_frames=None).inspect()

    assert found("mp4: h264, interlaced") == HEALTHY
    assert found("ts: mpeg2, B-frames").wrong == SAMPLED


def test_a_damaged_file_is_not_compared(damaged):
    found = inspected(damaged)
    assert found.damaged == decoder_by_name("pyav").open(str(damaged)).scan() > 0
    assert (found.compared, found.wrong) == (0, 0)


@pytest.mark.parametrize(
    "name", [name for name in CUT if "index in front" in name or CELLS[name].container in ("mkv", "webm", "flv", "avi")]
)
def test_a_file_that_states_its_length_shows_that_it_was_cut(name, golden):
    found = cut_short(str(golden.path(CELLS[name])))
    assert found.startswith("ends ")
    assert " s" in found


@pytest.mark.parametrize(
    ("reached", "stated", "short"),
    [
        (10.0, 10.0, False),
        (9.6, 10.0, False),
        (9.4, 10.0, True),
        (0.9, 1.0, False),
        (0.8, 1.0, True),
        (11.0, 10.0, False),
    ],
)
def test_rounding_is_not_taken_for_a_cut(reached, stated, short):
    assert is_short(reached, stated) == short


def test_a_child_answers_what_the_inspection_finds(golden):
    path = golden.path(CELLS["avi: mpeg4, packed B-frames"])
    with IsolatedVideos("pyav", Limits(timeout_s=20)) as videos:
        assert videos.open(str(path), num_frames=None).inspect() == HEALTHY


@pytest.mark.parametrize("name", ["mp4: h264, B-frames", "avi: h264, B-frames"])
def test_reading_and_decoding_show_progress(name, golden):
    beats = []
    with heard(lambda: beats.append(1)):
        reader = decoder_by_name("pyav").open(str(golden.path(CELLS[name])))
        opened = len(beats)
        reader.read([29])
        read = len(beats)
        inspected(golden.path(CELLS[name]), reader)
    assert opened >= 30  # packets
    assert read >= opened
    assert len(beats) >= read + 60  # packets of the plain decode, and of the sample
