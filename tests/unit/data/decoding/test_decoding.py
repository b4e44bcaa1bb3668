"""Exact frames against a plain sequential decode."""

import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from coded_videos import (
    CODINGS,
    HEIGHT,
    HIDDEN_FRAMES,
    NUM_FRAMES,
    UNEVEN_TIMES_MS,
    WIDTH,
    Coding,
    moving_pictures,
    sequential_frames,
    write_video,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder

KINDS = [*CODINGS, "edit list"]


def opened(path):
    return PyAVDecoder().open(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_file_is_what_a_sequential_decode_gives(kind, coded, true_frames):
    reader, expected = opened(coded(kind)), true_frames(kind)
    assert reader.info.num_frames == len(expected)
    decoded = reader.read(range(len(expected)))
    assert decoded.concealed == 0
    assert (decoded.frames == expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_single_frame_is_the_one_of_a_sequential_decode(kind, coded, true_frames):
    reader, expected = opened(coded(kind)), true_frames(kind)
    for index in range(len(expected)):
        decoded = reader.read([index])
        assert (decoded.frames[0] == expected[index]).all(), index
        assert decoded.concealed == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_finds_nothing_in_an_undamaged_file(kind, coded):
    assert opened(coded(kind)).scan() == 0


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_choice_of_frames_comes_in_its_order_with_its_repeats(data, coded, true_frames):
    kinds = ["short groups", "open groups with 8 B-frames", "edit list", "HEVC", "mpeg4 AVI with B-frames"]
    kind = data.draw(st.sampled_from(kinds))
    expected = true_frames(kind)
    indices = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=8))
    assert (opened(coded(kind)).read(indices).frames == expected[indices]).all()


def test_a_reader_can_be_asked_again_and_backwards(coded, true_frames):
    reader = opened(coded("short groups"))
    for indices in ([40, 41], [0, 3], [47], [13]):
        assert (reader.read(indices).frames == true_frames("short groups")[indices]).all()


def test_groups_of_which_no_frame_is_wanted_are_not_decoded(coded, true_frames):
    reader = opened(coded("short groups"))
    stretches = [(stretch.start, list(stretch.wanted.values())) for stretch in reader._stretches([0, 1, 40])]
    assert stretches == [(0, [0, 1]), (36, [40])]
    assert (reader.read([0, 1, 40]).frames == true_frames("short groups")[[0, 1, 40]]).all()


def test_frames_that_an_edit_list_hides_are_not_counted(coded, true_frames):
    reader = opened(coded("edit list"))
    assert reader.info.num_frames == NUM_FRAMES - HIDDEN_FRAMES
    assert reader.info.pts_s[0] == 0.0
    assert (reader.read([0]).frames[0] == true_frames("short groups")[HIDDEN_FRAMES]).all()


@pytest.mark.parametrize("fps", [30, 25, 12])
def test_rate_and_times_are_those_of_the_file(fps, tmp_path):
    info = opened(write_video(tmp_path / "v.mp4", CODINGS["short groups"], fps=fps)).info
    assert info.fps == pytest.approx(fps)
    assert info.pts_s == pytest.approx([index / fps for index in range(NUM_FRAMES)])


def test_frames_at_uneven_times_keep_them(coded):
    info = opened(coded("variable frame rate")).info
    assert info.pts_s == pytest.approx([time / 1000 for time in UNEVEN_TIMES_MS], abs=1e-4)
    assert info.fps == pytest.approx((NUM_FRAMES - 1) / (UNEVEN_TIMES_MS[-1] / 1000), rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("short groups", "h264"), ("HEVC", "hevc"), ("VP9", "vp9"), ("AV1", "av1"), ("MPEG-2", "mpeg2video")],
)
def test_size_and_codec_are_those_of_the_file(kind, codec, coded):
    info = opened(coded(kind)).info
    assert (info.width, info.height, info.codec) == (WIDTH, HEIGHT, codec)


def test_a_frame_outside_the_video_is_a_defect_of_the_caller(coded):
    for indices in ([NUM_FRAMES], [-1], [0, NUM_FRAMES]):
        with pytest.raises(IndexError):
            opened(coded("short groups")).read(indices)


@pytest.mark.parametrize(("degrees", "quarter_turns"), [(90, 1), (-90, 3), (180, 2), (0, 0)])
def test_frames_are_turned_the_way_that_a_player_shows_them(degrees, quarter_turns, tmp_path):
    path = write_video(tmp_path / "turned.mp4", Coding(file="", codec="libx264", rotation=degrees))
    with av.open(str(path)) as container:
        plain = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])[:3]
    reader = opened(path)
    assert (reader.read([0, 1, 2]).frames == np.rot90(plain, quarter_turns, axes=(1, 2))).all()
    assert (reader.info.height, reader.info.width) == np.rot90(plain[0], quarter_turns).shape[:2]


def test_pictures_of_an_odd_size_keep_it(tmp_path):
    pictures = [picture[:33, :51] for picture in moving_pictures()]
    coding = Coding(file="", codec="libvpx-vp9", options=CODINGS["VP9"].options)
    path = write_video(tmp_path / "odd.webm", coding, pictures=pictures)
    reader = opened(path)
    assert (reader.info.width, reader.info.height) == (51, 33)
    assert (reader.read(range(NUM_FRAMES)).frames == sequential_frames(path)).all()


def test_a_stream_that_changes_its_size_comes_in_the_size_of_its_first_frames(tmp_path):
    small = [picture[:32, :48] for picture in moving_pictures()]
    later = replace(CODINGS["MPEG-TS"], times_ms=range(5000, 5000 + 40 * NUM_FRAMES, 40))
    parts = [
        write_video(tmp_path / "large.ts", CODINGS["MPEG-TS"]),
        write_video(tmp_path / "small.ts", later, pictures=small),
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = opened(tmp_path / "both.ts")
    frames = reader.read(range(reader.info.num_frames)).frames
    assert frames.shape[1:] == (HEIGHT, WIDTH, 3)
    assert len(frames) == 2 * NUM_FRAMES
    assert (frames[:NUM_FRAMES] == sequential_frames(parts[0])).all()


def test_decoders_say_their_names_and_versions():
    assert (decoder_by_name("pyav").name, decoder_by_name("pyav").version) == ("pyav", av.__version__)


def test_decoding_with_pyav_starts_without_torch_ray_and_the_other_decoders():
    program = (
        "import sys, morphmlp.data.decoding.backends as decoding; decoding.decoder_by_name('pyav'); "
        "print(*sorted({'torch', 'ray', 'decord', 'torchcodec'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""
