"""The other decoders: where they agree with PyAV, and what is said where they can't be used."""

import importlib.util

import numpy as np
import pytest
from coded_videos import CODINGS, HEIGHT, NUM_FRAMES, WIDTH, Coding, write_video

from morphmlp.data.decoding import torchcodec_decoder
from morphmlp.data.decoding.backends import DECODER_NAMES, decoder_by_name, decoder_fault
from morphmlp.errors import DecodeError


def usable(name):
    fault = decoder_fault(name)
    return pytest.param(name, marks=pytest.mark.skipif(fault is not None, reason=str(fault)))


@pytest.mark.parametrize("decoder", [usable("decord"), usable("torchcodec")])
def test_another_decoder_agrees_on_an_ordinary_file(decoder, coded, true_frames):
    reader = decoder_by_name(decoder).open(str(coded("short groups")))
    assert (reader.info.num_frames, reader.info.fps) == (NUM_FRAMES, pytest.approx(30))
    assert reader.info.pts_s == pytest.approx([index / 30 for index in range(NUM_FRAMES)], abs=1e-6)
    assert (reader.info.width, reader.info.height, reader.info.codec) == (WIDTH, HEIGHT, "h264")
    indices = [0, 5, 5, 13, 47]
    decoded = reader.read(indices)
    assert decoded.concealed == reader.scan() == 0
    assert decoded.frames.dtype == np.uint8
    assert (decoded.frames == true_frames("short groups")[indices]).all()


@pytest.mark.parametrize("decoder", [usable("decord"), usable("torchcodec")])
def test_another_decoder_gives_uneven_times(decoder, coded):
    ours, theirs = (decoder_by_name(name).open(str(coded("variable frame rate"))).info for name in ("pyav", decoder))
    assert theirs.pts_s == pytest.approx(ours.pts_s, abs=1e-3)


@pytest.mark.parametrize("decoder", [usable("decord"), usable("torchcodec")])
@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_another_decoder_turns_frames_the_same_way(decoder, degrees, tmp_path):
    path = write_video(tmp_path / "turned.mp4", Coding(file="", codec="libx264", rotation=degrees))
    readers = [decoder_by_name(name).open(str(path)) for name in ("pyav", decoder)]
    ours, theirs = (reader.read([0, 1, 2]).frames.astype(int) for reader in readers)
    assert (readers[0].info.width, readers[0].info.height) == (readers[1].info.width, readers[1].info.height)
    assert np.abs(ours - theirs).mean() < 6  # decord turns before it converts the colours


@pytest.mark.parametrize("decoder", [usable("torchcodec")])
@pytest.mark.parametrize("kind", ["edit list", "open groups with 8 B-frames", "variable frame rate", "VP9", "AV1"])
def test_torchcodec_gives_every_single_frame_of_these_kinds(decoder, kind, coded, true_frames):
    reader, expected = decoder_by_name(decoder).open(str(coded(kind))), true_frames(kind)
    assert reader.info.num_frames == len(expected)
    for index in range(len(expected)):
        assert (reader.read([index]).frames[0] == expected[index]).all(), index


@pytest.mark.parametrize("decoder", [usable("torchcodec")])
def test_a_frame_outside_the_video_is_a_defect_of_the_caller(decoder, coded):
    for indices in ([NUM_FRAMES], [-1]):
        with pytest.raises(IndexError):
            decoder_by_name(decoder).open(str(coded("short groups"))).read(indices)


def test_pyav_can_always_be_used():
    assert DECODER_NAMES[0] == "pyav"
    assert decoder_fault("pyav") is None


@pytest.mark.parametrize("decoder", DECODER_NAMES)
def test_a_decoder_without_a_fault_opens_a_video_and_one_with_a_fault_says_it(decoder, coded):
    fault, path = decoder_fault(decoder), str(coded("short groups"))
    if fault is None:
        assert decoder_by_name(decoder).open(path).info.num_frames == NUM_FRAMES
        assert decoder_by_name(decoder).version[0].isdigit()
    else:
        with pytest.raises(DecodeError) as caught:
            decoder_by_name(decoder).open(path)
        assert str(caught.value) == fault


@pytest.mark.parametrize(("decoder", "remedy"), [("decord", "name pyav"), ("torchcodec", "pip install torchcodec")])
def test_a_decoder_that_is_not_installed_is_named_with_a_remedy(decoder, remedy, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == decoder else find_spec(name))
    torchcodec_decoder.torchcodec_fault.cache_clear()
    try:
        fault = decoder_fault(decoder)
    finally:
        torchcodec_decoder.torchcodec_fault.cache_clear()
    assert fault.startswith(f"{decoder} isn't installed")
    assert remedy in fault
    assert "\n" not in fault


def test_codings_are_of_different_files():
    assert len({coding.file for coding in CODINGS.values()}) == len(CODINGS)
