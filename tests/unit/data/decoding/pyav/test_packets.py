"""Opening odd files, and files too long for memory."""

import av
import numpy as np
import pytest
from av.stream import Disposition
from coded_videos import CODINGS, HEIGHT, NUM_FRAMES, WIDTH, moving_pictures, write_video

from morphmlp.data.decoding.pyav import packets, stream_decoder
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.pyav.packets import Packets, open_video
from morphmlp.errors import DecodeError


def packet_bytes(path):
    """Bytes of a file's pictures."""
    return sum(packet.size for packet in Packets(str(path), *open_video(str(path)), held_bytes=10**9)._held)


@pytest.mark.parametrize(
    "kind", ["short groups", "edit list", "open groups with 8 B-frames", "MPEG-TS", "VP9", "mpeg4 AVI with B-frames"]
)
def test_a_file_whose_packets_are_not_held_gives_the_same_frames(kind, coded, true_frames):
    reader, expected = PyAVDecoder(held_bytes=1000).open(str(coded(kind))), true_frames(kind)
    assert reader._stream.packets._held is None
    for indices in ([20, 3], [len(expected) - 1], range(len(expected)), [0]):
        assert (reader.read(indices).frames == expected[list(indices)]).all()
    assert reader.scan() == 0


@pytest.mark.parametrize(
    "kind", ["short groups", "edit list", "open groups with 8 B-frames", "MPEG-TS", "VP9", "mpeg4 AVI with B-frames"]
)
@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_long_file_that_is_read_onwards_in_parts_gives_the_same_frames(kind, share, coded, true_frames):
    path, expected = coded(kind), true_frames(kind)
    reader = PyAVDecoder(held_bytes=int(share * packet_bytes(path))).open(str(path))
    assert reader._stream.packets._held is None
    for start in [*range(0, len(expected), 4), 0, 8, 2]:  # neighbours overlap; then back to the start
        indices = range(start, min(start + 9, len(expected)))
        assert (reader.read(indices).frames == expected[list(indices)]).all()


def test_a_long_file_that_is_read_onwards_is_gone_through_once(coded, monkeypatch):
    path = coded("short groups")
    reader, opened = PyAVDecoder(held_bytes=packet_bytes(path) - 1).open(str(path)), []
    monkeypatch.setattr(packets, "open_video", lambda path: (opened.append(path), open_video(path))[1])
    for start in range(0, NUM_FRAMES - 8, 4):
        reader.read(range(start, start + 9))
    assert len(opened) == 1
    reader.read([0])
    assert len(opened) == 2


def test_a_damaged_file_whose_packets_are_not_held_is_concealed_alike(damaged):
    held, not_held = (PyAVDecoder(held_bytes=size).open(str(damaged)) for size in (10**9, 0))
    ours, theirs = (reader.read(range(NUM_FRAMES)) for reader in (held, not_held))
    assert (ours.frames == theirs.frames).all()
    assert ours.concealed == theirs.concealed == not_held.scan()


def test_packets_between_two_places_are_the_same_held_or_not(coded):
    path = str(coded("open groups with 8 B-frames"))
    held, not_held = (Packets(path, *open_video(path), held_bytes=size) for size in (10**9, 0))
    assert (held._held is None, not_held._held is None) == (False, True)
    assert held.pts == not_held.pts
    for start, stop in ((0, 5), (10, 48), (47, 48), (3, 3)):
        ours, theirs = ([bytes(packet) for packet in side.between(start, stop)] for side in (held, not_held))
        assert ours == theirs
        assert len(ours) == stop - start


def with_picture(path, *, sound):
    """A file with a cover picture next to moving pictures, or to sound."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 200, 200, "rgb24"
        cover.disposition = Disposition.attached_pic
        if sound:
            main = container.add_stream("aac", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            frames = [frame]
        else:
            main = container.add_stream("libx264", rate=30)
            main.width, main.height, main.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in moving_pictures()]
        for frame in frames:
            container.mux(main.encode(frame))
        container.mux(main.encode())
        container.mux(cover.encode(av.VideoFrame(200, 200, "rgb24")))
        container.mux(cover.encode())
    return path


def test_a_cover_picture_is_not_taken_for_the_video(tmp_path):
    path = with_picture(tmp_path / "v.mp4", sound=False)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    info = PyAVDecoder().open(str(path)).info
    assert (info.num_frames, info.width, info.height, info.codec) == (NUM_FRAMES, WIDTH, HEIGHT, "h264")


def test_sound_with_a_cover_picture_is_no_video(tmp_path):
    with pytest.raises(DecodeError, match="has no video stream, only a cover picture"):
        PyAVDecoder().open(str(with_picture(tmp_path / "song.mp4", sound=True)))


def test_metadata_in_another_encoding_does_not_keep_a_file_from_being_opened(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "a plain title"
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in moving_pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"plain" in content
    path.write_bytes(content.replace(b"plain", b"\xff\xfe\xfd\xe4\xf6"))
    assert PyAVDecoder().open(str(path)).info.num_frames == NUM_FRAMES


def test_a_name_with_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.mp4", CODINGS["short groups"]).rename(tmp_path / "http:12.mp4")
    assert PyAVDecoder().open("http:12.mp4").info.num_frames == NUM_FRAMES


def test_a_file_that_declares_too_large_frames_is_refused(coded, monkeypatch):
    monkeypatch.setattr(packets, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(DecodeError, match=r"96x64|not a readable video"):
        PyAVDecoder().open(str(coded("short groups")))


@pytest.mark.parametrize("kind", ["short groups", "HEVC", "VP9", "AV1", "MPEG-TS", "mpeg4 AVI"])
def test_frames_that_turn_out_too_large_are_not_decoded(kind, coded, monkeypatch):
    monkeypatch.setattr(stream_decoder, "MAX_PIXELS", 1000)
    reader = PyAVDecoder().open(str(coded(kind)))
    with pytest.raises(DecodeError, match="not one frame"):
        reader.read([0])
