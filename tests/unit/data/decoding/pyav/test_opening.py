"""Files that are opened without a trial decode, and a decode that goes on where the look at the first frame ended."""

import av
import pytest
from coded_videos import CODINGS, NUM_FRAMES, Coding, write_video
from golden_files import CELLS

from morphmlp.data.decoding.pyav import packets
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.pyav.picture_headers import DeclaredFrames, declared_frames

ORDERS = {
    "no B-frames": (0, "bframes=0"),
    "B-frames": (1, "bframes=2:b-pyramid=none"),
    "B-pyramid": (2, "bframes=3:b-pyramid=normal"),
}
QUICK = [name for name, cell in CELLS.items() if "x264" in cell.encode and cell.container in ("mp4", "mov", "3gp")]
"""Files of the golden set that may be opened without a trial decode."""
PROFILES = {
    "4:2:0": "yuv420p",
    "4:2:2": "yuv422p",
    "4:4:4": "yuv444p",
    "full range": "yuvj420p",
    "10 bit": "yuv420p10le",
    "grey": "gray",
}


def facts(path):
    """All that follows from opening a file."""
    reader = PyAVDecoder().open(str(path))
    held = reader._stream.packets
    return (
        reader.info,
        reader._stream.order,
        reader._stream.converter.orientation,
        held.pts,
        held.dts,
        held.keys,
        held.is_shown,
    )


def is_opened_twice(path, monkeypatch):
    """Whether what the first opening shows isn't enough."""
    options, opened = [], packets._opened
    with monkeypatch.context() as patch:
        patch.setattr(packets, "_opened", lambda path, more: (options.append(more), opened(path, more))[1])
        packets.open_video(str(path))
    return len(options) == 2


def with_a_trial(path, monkeypatch):
    """What follows from opening a file as FFmpeg does by default."""
    with monkeypatch.context() as patch:
        patch.setattr(packets, "_WITHOUT_A_TRIAL", {})
        return facts(path)


@pytest.mark.parametrize("name", QUICK)
def test_what_is_known_of_a_file_is_the_same_without_a_trial_decode(name, golden, monkeypatch):
    path = golden.path(CELLS[name])
    try:
        expected = with_a_trial(path, monkeypatch)
    except packets.DecodeError:
        with pytest.raises(packets.DecodeError):
            facts(path)
    else:
        assert facts(path) == expected


@pytest.mark.parametrize("kind", [*CODINGS, "edit list"])
def test_what_is_known_of_a_coded_file_is_the_same_without_a_trial_decode(kind, coded, monkeypatch):
    assert facts(coded(kind)) == with_a_trial(coded(kind), monkeypatch)


@pytest.mark.parametrize("pixels", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize(("depth", "order"), ORDERS.values(), ids=ORDERS)
def test_h264_headers_declare_size_and_order(depth, order, pixels, tmp_path):
    coding = Coding(file="", codec="libx264", options={"x264-params": f"{order}:b-adapt=0"})
    path = write_video(tmp_path / "video.mp4", coding, pixel_format=pixels)
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        declared = declared_frames(codec.extradata)
        assert declared == DeclaredFrames(width=codec.width, height=codec.height, reorder_depth=codec.reorder_depth)
    assert declared.reorder_depth == depth


@pytest.mark.parametrize("headers", [b"", b"\1", b"\1\x64\0\x1f\xff\xe1\0\x04\x67\x64\0\x1f", b"\0\0\1\x67\x64"])
def test_headers_that_end_too_early_declare_nothing(headers):
    assert declared_frames(headers) is None


@pytest.mark.parametrize(("kind", "twice"), [("short groups", False), ("HEVC", True), ("VP9", True), ("MPEG-TS", True)])
def test_only_a_file_that_says_all_is_opened_once(kind, twice, coded, monkeypatch):
    assert is_opened_twice(coded(kind), monkeypatch) == twice


@pytest.mark.parametrize("first", [0, 1, 5, 20, NUM_FRAMES - 1])
def test_the_first_read_is_that_of_a_reader_that_has_read_before(first, coded):
    path = coded("short groups")
    fresh, used = PyAVDecoder().open(str(path)), PyAVDecoder().open(str(path))
    used.read([NUM_FRAMES - 1])
    indices = [first, min(first + 3, NUM_FRAMES - 1)]
    assert (fresh.read(indices).frames == used.read(indices).frames).all()


def test_the_key_packet_at_the_start_is_decoded_once(coded):
    reader = PyAVDecoder().open(str(coded("short groups")))
    fed = []
    frames_of = reader._stream._frames
    reader._stream._frames = lambda packet: (fed.append(packet and packet.pts), frames_of(packet))[1]
    reader.read([3])
    assert 0 not in fed
    reader.read([3])
    assert 0 in fed
