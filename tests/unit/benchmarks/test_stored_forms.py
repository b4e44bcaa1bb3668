"""The same videos in other stored forms, opened as ingest opens them."""

import numpy as np
import pytest
from coded_videos import CODINGS, NUM_FRAMES, sequential_frames, write_video

from morphmlp.benchmarks.stored_forms import stored_forms
from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.sources import AnyVideo


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    videos = [str(write_video(folder / f"{name}.mp4", CODINGS["short groups"])) for name in ("a", "b")]
    return stored_forms(folder / "made", videos)


@pytest.mark.parametrize("form", ["frame_folder", "packed", "webm", "prepared"])
def test_every_form_holds_the_frames_of_the_original(forms, form):
    original = sequential_frames(forms["mp4"][0])
    assert len(forms[form]) == 2
    reader = AnyVideo(decoder_by_name("pyav")).open(forms[form][0], num_frames=None)
    assert reader.info.num_frames == NUM_FRAMES
    wanted = [47, 0, 20]
    frames = reader.read(wanted).frames.astype(float)
    for frame, index in zip(frames, wanted, strict=True):
        distances = np.abs(original - frame).mean(axis=(1, 2, 3))
        assert distances.argmin() == index


def test_what_is_there_is_kept_and_what_was_stopped_is_made_again(forms, tmp_path):
    videos = forms["mp4"][:1]
    first = stored_forms(tmp_path, videos)
    (tmp_path / "frames" / "unfinished-a").mkdir()
    (tmp_path / "frames" / "unfinished-a" / "half").touch()
    (tmp_path / "webm" / "a.webm").unlink()
    packed = (tmp_path / "packed" / "a.zip").stat().st_mtime_ns
    (tmp_path / "frames" / "a").rename(tmp_path / "elsewhere")
    assert stored_forms(tmp_path, videos) == first
    assert (tmp_path / "packed" / "a.zip").stat().st_mtime_ns == packed
    assert len(list((tmp_path / "frames" / "a").iterdir())) == NUM_FRAMES
    assert (tmp_path / "webm" / "a.webm").exists()
