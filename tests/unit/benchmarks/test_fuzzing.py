"""Damaged files through real decoders: each has an outcome, and no one notices but the counts."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.benchmarks.fuzzing import Outcome, clip_indices, fuzz, in_words, outcome, sound_videos
from morphmlp.benchmarks.mutations import MUTATIONS
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.errors import DecodeError

FAULTY = Path(__file__).parents[1] / "data"
DECODERS = ["pyav", *(["decord"] if importlib.util.find_spec("decord") else [])]


class Silent:
    """No progress to be seen."""

    def phase(self, title, *, total, unit):
        self.total = total

    def update(self, done, note=""):
        self.done = done

    def line(self, text):
        raise AssertionError(text)


@pytest.fixture(scope="module", params=DECODERS)
def result(request):
    return fuzz(decoder=request.param, files=60, seed=1, progress=Silent())


def test_every_damaged_file_has_one_outcome(result):
    assert sum(result.outcomes.values()) == result.files == 60
    for table in (result.by_video, result.by_mutation):
        assert {
            ending: sum(counts[ending] for counts in table.values()) for ending in result.outcomes
        } == result.outcomes


def test_no_file_takes_the_decoder_longer_than_its_time(result):
    assert result.outcomes[Outcome.TIMED_OUT] == 0
    assert result.slowest_s < 20


def test_damage_of_packed_frames_never_goes_unnoticed(result):
    assert result.by_video["frames.zip"][Outcome.ALTERED] == 0
    assert result.by_video["frames.zip"][Outcome.CONCEALED] == 0


def test_most_kinds_of_outcome_occur(result):
    assert sum(count > 0 for count in result.outcomes.values()) >= 3


def test_the_result_in_words_holds_each_count(result):
    words = "\n".join(in_words(result))
    assert all(f"{count} {ending.replace('_', ' ')}" in words for ending, count in result.outcomes.items() if count)


def test_the_same_seed_gives_the_same_outcomes():
    one, two = (fuzz(decoder="pyav", files=18, seed=5, progress=Silent()) for _ in range(2))
    assert (one.outcomes, one.by_mutation) == (two.outcomes, two.by_mutation)


def test_pyav_can_be_measured_with_every_sound_video():
    result = fuzz(decoder="pyav", files=6, seed=0, progress=Silent())
    assert result.left_out == {}
    assert len(result.by_video) == 6


def test_a_decoder_that_reads_no_sound_video_is_not_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(FAULTY))
    with pytest.raises(DecodeError, match=r"reads not one sound video file: DecodeError: .* failed: Own"):
        fuzz(decoder="faulty_decoders:raising_its_own", files=6, seed=0, progress=Silent())


def test_undamaged_files_are_right(tmp_path):
    with IsolatedVideos("pyav", Limits(timeout_s=20)) as videos:
        sound, _ = sound_videos(tmp_path, videos)
        assert {outcome(videos, str(tmp_path / f"sound_{video.name}"), video) for video in sound} == {
            (Outcome.RIGHT, "")
        }


def test_another_videos_frames_are_told_as_altered(tmp_path):
    with IsolatedVideos("pyav", Limits(timeout_s=20)) as videos:
        sound = {video.name: video for video in sound_videos(tmp_path, videos)[0]}
        path = str(tmp_path / "sound_mpeg4.avi")
        assert outcome(videos, path, sound["h264.mp4"]) == (Outcome.ALTERED, "")


@pytest.mark.parametrize(("decoder", "ending"), [("crashing", Outcome.CRASHED), ("spinning", Outcome.TIMED_OUT)])
def test_crashes_and_loops_are_counted_with_their_reason(decoder, ending, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FAULTY))
    with IsolatedVideos("pyav", Limits(timeout_s=20)) as videos:
        video = next(video for video in sound_videos(tmp_path, videos)[0] if video.name == "h264.mp4")
    with IsolatedVideos(f"faulty_decoders:{decoder}", Limits(timeout_s=0.3)) as videos:
        found, reason = outcome(videos, "bad.video", video)
    assert found is ending
    assert f"the faulty_decoders:{decoder} decoder" in reason


def test_the_frames_that_are_read_span_the_video():
    assert clip_indices(48)[0] == 0
    assert clip_indices(48)[-1] == 47
    assert clip_indices(1) == [0] * 16


@given(name=st.sampled_from(sorted(MUTATIONS)), size=st.integers(2, 5000), seed=st.integers(0, 2**32))
def test_damage_is_the_same_for_the_same_seed_and_keeps_what_it_promises(name, size, seed):
    data = np.random.default_rng(size).bytes(size)
    one, two = (MUTATIONS[name](np.random.default_rng(seed), data) for _ in range(2))
    assert one == two
    if name == "cut_short":
        assert 0 < len(one) < size
        assert data.startswith(one)
    elif name == "repeated_range":
        assert size < len(one) <= size + size // 8 + 1
    else:
        assert len(one) == size
    if name == "swapped_ranges":
        assert sorted(one) == sorted(data)
