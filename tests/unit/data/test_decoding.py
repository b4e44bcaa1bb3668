"""Exact frames against a plain sequential decode, and what broken files become."""

import importlib.util

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphmlp.data.decoding import decoder_by_name
from morphmlp.errors import DecodeError

NUM_FRAMES, HEIGHT, WIDTH = 48, 48, 64
CODINGS = {
    "h264.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "one_group.mp4": ("libx264", {"g": "250", "bf": "3"}),
    "open_groups.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=8:b-adapt=0:scenecut=0"}),
    "h264.ts": ("libx264", {"g": "12", "bf": "3"}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=12:bframes=3:pools=1"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.avi": ("mpeg4", {"g": "12"}),
    "mpeg4_b_frames.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
}
needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="no decord on this platform")


def moving_pictures():
    """Soft noise that drifts two columns a frame, so that no two frames are alike."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, WIDTH // 4 + NUM_FRAMES, 3), dtype=np.uint8)
    wide = noise.repeat(4, axis=0).repeat(4, axis=1)
    return [wide[:, 2 * number : 2 * number + WIDTH] for number in range(NUM_FRAMES)]


def write(path, codec="libx264", options=None, *, rotation=None, fps=30):
    with av.open(str(path), "w") as container:
        try:
            stream = container.add_stream(codec, rate=fps, options=options or {})
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this FFmpeg can't write {codec}")
        stream.pix_fmt, stream.height, stream.width = "yuv420p", HEIGHT, WIDTH
        stream.codec_context.thread_count = 1
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for picture in moving_pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def copy_stream(source, target, *, first=0, options=None):
    """Copy packets without decoding; those before frame `first` get negative times, so an edit list hides them."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        start = sorted(packet.pts for packet in packets)[first]
        for packet in packets:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
            new.mux(packet)
    return target


def sequential(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read(path, indices, decoder="pyav"):
    return decoder_by_name(decoder).open(str(path)).read(indices)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def videos(folder):
    """Paths by name, each written at its first use."""

    def video(name):
        path = folder / name
        if not path.exists():
            if name == "edit_list.mp4":
                copy_stream(video("h264.mp4"), path, first=18)
            elif name == "index_first.mp4":
                copy_stream(video("h264.mp4"), path, options={"movflags": "faststart"})
            else:
                write(path, *CODINGS[name])
        return path

    return video


@pytest.fixture(scope="module")
def reference(videos):
    known = {}

    def frames(name):
        if name not in known:
            known[name] = sequential(videos(name))
        return known[name]

    return frames


ALL_FILES = [*CODINGS, "edit_list.mp4"]


@pytest.mark.parametrize("name", ALL_FILES)
def test_the_whole_file_is_what_a_sequential_decode_gives(name, videos, reference):
    reader = decoder_by_name("pyav").open(str(videos(name)))
    expected = reference(name)
    assert reader.info.num_frames == len(expected)
    decoded = reader.read(range(len(expected)))
    assert decoded.concealed == 0
    assert (decoded.frames == expected).all()


@pytest.mark.parametrize("name", ALL_FILES)
def test_every_single_frame_is_the_one_of_a_sequential_decode(name, videos, reference):
    reader, expected = decoder_by_name("pyav").open(str(videos(name))), reference(name)
    for index in range(len(expected)):
        assert (reader.read([index]).frames[0] == expected[index]).all(), index


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_choice_of_frames_comes_in_its_order_with_its_repeats(data, videos, reference):
    name = data.draw(st.sampled_from(["h264.mp4", "open_groups.mp4", "edit_list.mp4", "mpeg4_b_frames.avi"]))
    expected = reference(name)
    indices = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=8))
    assert (read(videos(name), indices).frames == expected[indices]).all()


def test_a_reader_can_be_asked_again_and_backwards(videos, reference):
    reader = decoder_by_name("pyav").open(str(videos("h264.mp4")))
    for indices in ([40, 41], [0, 3], [47], [13]):
        assert (reader.read(indices).frames == reference("h264.mp4")[indices]).all()


def test_frames_that_an_edit_list_hides_are_not_counted(videos, reference):
    info = decoder_by_name("pyav").open(str(videos("edit_list.mp4"))).info
    assert info.num_frames == NUM_FRAMES - 18
    assert info.pts_s[0] == 0.0
    assert (read(videos("edit_list.mp4"), [0]).frames[0] == reference("h264.mp4")[18]).all()


@pytest.mark.parametrize("fps", [30, 25, 12])
def test_rate_and_times_are_those_of_the_file(fps, tmp_path):
    info = decoder_by_name("pyav").open(str(write(tmp_path / "v.mp4", fps=fps))).info
    assert info.fps == pytest.approx(fps)
    assert info.pts_s == pytest.approx([index / fps for index in range(NUM_FRAMES)])


def test_a_frame_outside_the_video_is_a_defect_of_the_caller(videos):
    for indices in ([NUM_FRAMES], [-1]):
        with pytest.raises(IndexError):
            read(videos("h264.mp4"), indices)


@pytest.mark.parametrize(("degrees", "quarter_turns"), [(90, 1), (-90, 3), (180, 2), (0, 0)])
def test_frames_are_turned_the_way_that_a_player_shows_them(degrees, quarter_turns, tmp_path):
    path = write(tmp_path / "turned.mp4", rotation=degrees)
    expected = np.rot90(sequential(path)[:3], quarter_turns, axes=(1, 2))
    assert (read(path, [0, 1, 2]).frames == expected).all()


@needs_decord
def test_decord_turns_frames_the_same_way(tmp_path):
    # Half a turn only: of frames turned by a quarter, decord can't read those whose width isn't a multiple of 32.
    path = write(tmp_path / "turned.mp4", rotation=180)
    ours, theirs = (read(path, [0, 1, 2], decoder).frames.astype(int) for decoder in ("pyav", "decord"))
    assert np.abs(ours - theirs).mean() < 6  # decord turns before it converts the colours


@needs_decord
def test_decord_agrees_on_an_ordinary_file(videos, reference):
    reader = decoder_by_name("decord").open(str(videos("h264.mp4")))
    assert (reader.info.num_frames, reader.info.fps) == (NUM_FRAMES, pytest.approx(30))
    assert reader.info.pts_s == pytest.approx([index / 30 for index in range(NUM_FRAMES)], abs=1e-6)
    indices = [0, 5, 5, 13, 47]
    decoded = reader.read(indices)
    assert decoded.concealed == 0
    assert (decoded.frames == reference("h264.mp4")[indices]).all()


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def broken(folder, videos):
    content = videos("h264.mp4").read_bytes()
    indexed = videos("index_first.mp4").read_bytes()
    start = indexed.index(b"mdat") + 4
    (folder / "text.mp4").write_text("not a video\n" * 20)
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])  # the index stood at its end
    (folder / "zeros.mp4").write_bytes(indexed[:start] + bytes(len(indexed) - start))
    sound_only(folder / "sound.mp4")
    return folder


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "no such file"),
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "not a readable video"),
        ("cut.mp4", "not a readable video"),
        ("sound.mp4", "video stream"),
        ("zeros.mp4", "decoded|not a readable video"),
        ("", "not a readable video"),
    ],
)
def test_a_file_without_a_frame_is_a_decode_error(decoder, name, reason, broken):
    with pytest.raises(DecodeError, match=reason):
        read(broken / name, [0], decoder)


def test_a_file_without_pictures_is_told_apart(broken):
    with pytest.raises(DecodeError, match="has no video stream"):
        read(broken / "sound.mp4", [0])


def test_of_a_file_cut_short_the_frames_before_the_cut_are_good(videos, reference, tmp_path):
    content = videos("index_first.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 6 // 10])
    reader = decoder_by_name("pyav").open(str(tmp_path / "cut.mp4"))
    assert 0 < reader.info.num_frames < NUM_FRAMES
    decoded = reader.read(range(reader.info.num_frames - 2))
    assert decoded.concealed == 0
    assert (decoded.frames == reference("h264.mp4")[: reader.info.num_frames - 2]).all()


@pytest.fixture(scope="module")
def damaged(folder, videos):
    """Zeros over a tenth of the pictures' bytes, in the middle."""
    content = bytearray(videos("index_first.mp4").read_bytes())
    start = content.index(b"mdat") + 4
    size = len(content) - start
    content[start + size * 4 // 10 : start + size * 5 // 10] = bytes(size * 5 // 10 - size * 4 // 10)
    (folder / "damaged.mp4").write_bytes(content)
    return folder / "damaged.mp4"


def test_frames_that_a_damaged_stream_does_not_give_are_concealed_and_counted(damaged, reference):
    reader, expected = decoder_by_name("pyav").open(str(damaged)), reference("h264.mp4")
    assert reader.info.num_frames == NUM_FRAMES
    decoded = reader.read(range(NUM_FRAMES))
    assert 0 < decoded.concealed < 12
    wrong = [index for index in range(NUM_FRAMES) if (decoded.frames[index] != expected[index]).any()]
    assert decoded.concealed <= len(wrong) <= 24  # the damage ends at the next key frame


def test_a_concealed_frame_is_the_nearest_good_one(damaged):
    reader = decoder_by_name("pyav").open(str(damaged))
    whole = reader.read(range(NUM_FRAMES)).frames
    single = [reader.read([index]) for index in range(NUM_FRAMES)]
    concealed = [index for index in range(NUM_FRAMES) if single[index].concealed]
    assert concealed
    for index in concealed:
        assert (single[index].frames[0] == whole[index]).all()
        good = [other for other in range(NUM_FRAMES) if other not in concealed]
        distance = min(abs(other - index) for other in good)
        around = [other for other in (index - distance, index + distance) if other in good]
        assert any((whole[index] == whole[other]).all() for other in around)


def test_frames_away_from_the_damage_are_untouched(damaged, reference):
    indices = [0, 5, 10, 40, 47]
    decoded = read(damaged, indices)
    assert decoded.concealed == 0
    assert (decoded.frames == reference("h264.mp4")[indices]).all()


def test_decoders_say_their_names_and_versions():
    assert (decoder_by_name("pyav").name, decoder_by_name("pyav").version) == ("pyav", av.__version__)
