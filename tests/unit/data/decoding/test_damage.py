"""What broken files become: frames that stand in, counted, or one clear error."""

import random

import av
import numpy as np
import pytest
from coded_videos import NUM_FRAMES, copy_stream

from morphmlp.data.decoding.backends import DECODER_NAMES, decoder_by_name, decoder_fault
from morphmlp.data.decoding.pyav.pictures import Pictures
from morphmlp.errors import DecodeError

USABLE = [
    pytest.param(name, marks=pytest.mark.skipif(decoder_fault(name) is not None, reason=str(decoder_fault(name))))
    for name in DECODER_NAMES
]


def opened(path, decoder="pyav"):
    return decoder_by_name(decoder).open(str(path))


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def broken(coded, index_first, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    content, indexed = coded("short groups").read_bytes(), index_first.read_bytes()
    start = indexed.index(b"mdat") + 4
    (folder / "text.mp4").write_text("not a video\n" * 20)
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])  # the index stood at its end
    (folder / "zeros.mp4").write_bytes(indexed[:start] + bytes(len(indexed) - start))
    sound_only(folder / "sound.mp4")
    return folder


@pytest.mark.parametrize("decoder", USABLE)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "no such file"),
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "not a readable video"),
        ("cut.mp4", "not a readable video"),
        ("sound.mp4", "video stream|not a readable video"),
        ("zeros.mp4", "decoded|not a readable video"),
        ("", "not a readable video"),
    ],
)
def test_a_file_without_a_frame_is_a_decode_error(decoder, name, reason, broken):
    with pytest.raises(DecodeError, match=reason) as caught:
        opened(broken / name, decoder).read([0])
    assert "\n" not in str(caught.value)


def test_a_file_without_pictures_is_distinguished(broken):
    with pytest.raises(DecodeError, match="has no video stream"):
        opened(broken / "sound.mp4")


def test_a_scan_of_a_file_without_a_good_frame_is_a_decode_error(broken):
    with pytest.raises(DecodeError, match="not one frame"):
        opened(broken / "zeros.mp4").scan()


def test_of_a_file_cut_short_the_frames_before_the_cut_are_good(index_first, true_frames, tmp_path):
    content = index_first.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 6 // 10])
    reader = opened(tmp_path / "cut.mp4")
    assert 0 < reader.info.num_frames < NUM_FRAMES
    decoded = reader.read(range(reader.info.num_frames - 2))
    assert decoded.concealed == 0
    assert (decoded.frames == true_frames("short groups")[: reader.info.num_frames - 2]).all()


@pytest.mark.parametrize("decoder", USABLE)
def test_frames_that_a_damaged_stream_does_not_give_are_concealed_and_counted(decoder, damaged, true_frames):
    reader, expected = opened(damaged, decoder), true_frames("short groups")
    assert reader.info.num_frames == NUM_FRAMES
    decoded = reader.read(range(NUM_FRAMES))
    wrong = [index for index in range(NUM_FRAMES) if (decoded.frames[index] != expected[index]).any()]
    assert 0 < decoded.concealed <= len(wrong) <= 24  # the damage ends at the next key frame


def test_a_concealed_frame_is_patched_or_the_nearest_good_one(damaged):
    reader = opened(damaged)
    patched = {index: is_damaged for index, is_damaged in reader._damage_by_index().items() if is_damaged}
    whole = reader.read(range(NUM_FRAMES)).frames
    single = [reader.read([index]) for index in range(NUM_FRAMES)]
    concealed = [index for index in range(NUM_FRAMES) if single[index].concealed]
    assert patched
    assert set(patched) < set(concealed)
    good = [index for index in range(NUM_FRAMES) if index not in concealed]
    for index in sorted(set(concealed) - set(patched)):
        distance = min(abs(other - index) for other in good)
        around = [other for other in (index - distance, index + distance) if other in good]
        assert any((whole[index] == whole[other]).all() for other in around)


@pytest.mark.parametrize("decoder", [decoder for decoder in USABLE if decoder.values != ("decord",)])
def test_a_frame_is_the_same_whichever_others_are_asked_for(decoder, damaged):
    reader = opened(damaged, decoder)
    whole = reader.read(range(NUM_FRAMES))
    single = [reader.read([index]) for index in range(NUM_FRAMES)]
    assert all((decoded.frames[0] == frame).all() for decoded, frame in zip(single, whole.frames, strict=True))
    assert sum(decoded.concealed for decoded in single) == whole.concealed


# Not decord: its own thread decodes ahead, and which frames a failure takes along differs from read to read.
@pytest.mark.parametrize("decoder", [decoder for decoder in USABLE if decoder.values != ("decord",)])
def test_a_scan_counts_what_a_read_of_everything_conceals(decoder, damaged):
    assert opened(damaged, decoder).scan() == opened(damaged, decoder).read(range(NUM_FRAMES)).concealed


@pytest.mark.parametrize("decoder", USABLE)
def test_frames_away_from_the_damage_are_untouched(decoder, damaged, true_frames):
    indices = [0, 5, 10, 40, 47]
    decoded = opened(damaged, decoder).read(indices)
    assert decoded.concealed == 0
    assert (decoded.frames == true_frames("short groups")[indices]).all()


def flipped(source, target, *, seed):
    """One bit of a picture turned."""
    content, draw = bytearray(source.read_bytes()), random.Random(seed)
    content[draw.randrange(content.index(b"mdat") + 4, len(content))] ^= 1 << draw.randrange(8)
    target.write_bytes(content)
    return target


def test_flipped_bits_are_counted_only_where_frames_are_wrong(index_first, true_frames, tmp_path):
    expected, counted, wrong_files = true_frames("short groups"), 0, 0
    for seed in range(30):
        reader = opened(flipped(index_first, tmp_path / "flipped.mp4", seed=seed))
        decoded = reader.read(range(NUM_FRAMES))
        wrong = (decoded.frames != expected).any(axis=(1, 2, 3)).sum()
        assert decoded.concealed <= wrong, seed
        counted, wrong_files = counted + (decoded.concealed > 0), wrong_files + (wrong > 0)
    assert wrong_files > counted > wrong_files // 4  # a flip may also turn one valid stream into another


def test_a_damaged_hevc_file_is_counted(coded, true_frames, damage, tmp_path):
    copy = copy_stream(coded("HEVC"), tmp_path / "v.mp4", options={"movflags": "faststart"})
    decoded = opened(damage(copy, tmp_path / "damaged.mp4")).read(range(NUM_FRAMES))
    assert 0 < decoded.concealed <= (decoded.frames != true_frames("HEVC")).any(axis=(1, 2, 3)).sum()


@pytest.fixture
def conversions(monkeypatch):
    """Places of the frames that are converted to RGB."""
    converted = []
    add = Pictures.add

    def counted(self, number, frame):
        converted.append(frame.pts)
        add(self, number, frame)

    monkeypatch.setattr(Pictures, "add", counted)
    return converted


def test_of_a_damaged_file_only_the_wanted_frames_are_converted(damaged, conversions):
    reader = opened(damaged)
    missing = sorted(set(range(NUM_FRAMES)) - set(reader._damage_by_index()))
    wanted = [0, missing[0], missing[-1]]
    reader.read(wanted)
    assert 3 <= len(conversions) <= 2 * len(wanted)


def test_a_scan_converts_nothing(damaged, conversions):
    opened(damaged).scan()
    assert conversions == []
