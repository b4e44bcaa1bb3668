"""Files whose times can't be trusted, whose packets aren't frames, or with several videos: held against FFmpeg."""

from itertools import pairwise

import av
import numpy as np
import pytest
from coded_videos import (
    HEIGHT,
    NUM_FRAMES,
    SAME_PICTURE,
    WIDTH,
    Coding,
    sequential_frames,
    write_video,
)
from field_coded import NUM_PICTURES, write_field_coded
from golden_files import ffmpeg_file, ffmpeg_frames

from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.pyav.display_order import frame_times
from morphmlp.data.decoding.pyav.orientation import Orientation
from morphmlp.data.decoding.pyav.stream_decoder import StreamDecoder

X264 = ["-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-bf", "3", "-x264-params", "threads=1:b-adapt=0"]
XVID = ["-c:v", "libxvid", "-g", "48", "-bf", "2", "-q:v", "4"]


def opened(path, **options):
    return PyAVDecoder(**options).open(str(path))


def check(path, *, stream="0:v:0", fps=30.0):
    """All frames are FFmpeg's in FFmpeg's order, and the same bits however they are asked for; none is damaged."""
    expected = ffmpeg_frames(path, stream)
    reader = opened(path)
    assert reader.info.num_frames == len(expected)
    assert (reader.info.height, reader.info.width) == expected.shape[1:3]
    assert reader.info.fps == pytest.approx(fps, rel=0.01)
    assert all(earlier < later for earlier, later in pairwise(reader.info.pts_s))
    everything = reader.read(range(len(expected)))
    far = np.abs(everything.frames.astype(int) - expected).mean(axis=(1, 2, 3))
    assert far.max() <= SAME_PICTURE, np.flatnonzero(far > SAME_PICTURE)
    assert everything.concealed == reader.scan() == 0
    for other in (opened(path), opened(path, held_bytes=1000)):
        for indices in ([len(expected) - 1], [7, 3], range(1, len(expected), 4), *([index] for index in range(12))):
            decoded = other.read(indices)
            assert (decoded.frames == everything.frames[list(indices)]).all()
            assert decoded.concealed == 0
    return reader


def avi(source, target, *encoder):
    return ffmpeg_file(target, "-i", source, *encoder, "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def plain(coded, tmp_path_factory):
    """AVI files with H.264, with packed B-frames, and with a chunk of one byte that the index calls a key frame."""
    folder = tmp_path_factory.mktemp("avi")
    paths = {
        "H.264": avi(coded("short groups"), folder / "h264.avi", *X264),
        "packed": avi(coded("short groups"), folder / "packed.avi", *XVID),
        "one byte": folder / "one_byte.avi",
    }
    with av.open(str(paths["packed"])) as old, av.open(str(paths["one byte"]), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        contents = [(bytes(packet), packet.is_keyframe) for packet in old.demux(video=0) if packet.size]
        contents.insert(1, (b"\x7f", True))
        for number, (content, is_key) in enumerate(contents):
            packet = av.Packet(content)
            packet.stream, packet.is_keyframe = stream, is_key
            packet.pts = packet.dts = number
            new.mux(packet)
    return paths


@pytest.mark.parametrize("kind", ["H.264", "packed", "one byte"])
def test_an_avi_gives_its_frames_in_the_order_of_a_sequential_decode(kind, plain):
    check(plain[kind])


@pytest.mark.parametrize("kind", ["H.264", "packed", "one byte"])
@pytest.mark.parametrize(
    ("guess", "name"), [((), "v.mp4"), (("-fflags", "+genpts"), "v.mp4"), (("-fflags", "+genpts"), "v.mkv")]
)
def test_a_file_with_times_guessed_from_an_avi_is_not_trusted(kind, guess, name, plain, tmp_path):
    check(ffmpeg_file(tmp_path / name, *guess, "-i", plain[kind], "-c", "copy"))


def test_where_a_decoder_shows_another_order_than_the_times_the_decoder_is_right(coded, tmp_path):
    path = tmp_path / "v.mkv"
    with av.open(str(coded("short groups"))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        one, two = (sorted(packet.pts for packet in packets)[index] for index in (5, 6))
        for packet in packets:
            packet.pts = {one: two, two: one}.get(packet.pts, packet.pts)
            packet.stream = stream
            new.mux(packet)
    expected, reader = ffmpeg_frames(path), opened(path)
    decoded = reader.read(range(NUM_FRAMES))
    assert (np.abs(decoded.frames.astype(int) - expected).mean(axis=(1, 2, 3)) <= SAME_PICTURE).all()
    assert decoded.concealed == reader.scan() == 0
    for index in (5, 6):
        assert (reader.read([index]).frames[0] == decoded.frames[index]).all()


@pytest.mark.parametrize("kind", ["mpeg4 AVI", "mpeg4 AVI with B-frames"])
def test_an_avi_whose_pictures_state_their_order_is_not_decoded_from_its_start(kind, coded):
    reader = check(coded(kind))
    assert reader._stretches([40])[0].start > 24


def test_a_long_avi_that_is_read_in_parts_is_decoded_on_from_part_to_part(plain, monkeypatch):
    starts, decode = [], StreamDecoder.decode

    def counted(self, *place):
        starts.append(place)
        yield from decode(self, *place)

    expected = opened(plain["H.264"]).read(range(NUM_FRAMES)).frames
    reader = opened(plain["H.264"], held_bytes=1000)
    monkeypatch.setattr(StreamDecoder, "decode", counted)
    for indices in ([3, 5], [6], [20, 7], [40], [2, 47], [47]):
        assert (reader.read(indices).frames == expected[indices]).all(), indices
    reads = len(starts)
    assert [index for index, _ in reader.in_order()] == list(range(NUM_FRAMES))
    assert (reader.read([9]).frames == expected[[9]]).all()
    assert reads == 2  # frames 2 and the last one again lie before the place that was reached


def test_a_damaged_avi_is_counted(plain, tmp_path):
    content = bytearray(plain["H.264"].read_bytes())
    start, stop = len(content) // 2, len(content) // 2 + len(content) // 10
    content[start:stop] = bytes(stop - start)
    (tmp_path / "damaged.avi").write_bytes(content)
    assert opened(tmp_path / "damaged.avi").scan() > 0


@pytest.mark.parametrize(("name", "is_per_field"), [("v.ts", True), ("v.ts", False), ("v.mkv", False)])
def test_two_fields_are_one_frame(name, is_per_field, tmp_path):
    path = write_field_coded(tmp_path / name, is_per_field=is_per_field)
    assert check(path, fps=25).info.num_frames == NUM_PICTURES


def test_two_fields_are_one_frame_in_a_copy_that_stores_each_for_itself(tmp_path):
    fields = write_field_coded(tmp_path / "v.ts", is_per_field=True)
    path = ffmpeg_file(tmp_path / "v.mp4", "-i", fields, "-c", "copy")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > NUM_PICTURES
    assert check(path, fps=25).info.num_frames == NUM_PICTURES


@pytest.mark.parametrize("seconds", [0, 0.1, 20_000])
@pytest.mark.parametrize("kind", ["MPEG-TS", "MPEG-2"])
def test_of_joined_files_all_frames_come_whatever_their_times(kind, seconds, coded, tmp_path):
    first = coded(kind)
    second = ffmpeg_file(tmp_path / f"second{first.suffix}", "-i", first, "-c", "copy", "-output_ts_offset", seconds)
    path = tmp_path / f"joined{first.suffix}"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert check(path).info.num_frames == 2 * NUM_FRAMES


def test_a_stream_captured_from_the_middle_of_a_group_begins_at_its_first_key_frame(coded, tmp_path):
    content = coded("MPEG-TS").read_bytes()
    (tmp_path / "captured.ts").write_bytes(content[188 * 9 :])
    assert check(tmp_path / "captured.ts").info.num_frames < NUM_FRAMES


@pytest.mark.parametrize(
    "encoder",
    [
        "-c:v libx264 -x264-params open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0:threads=1",
        "-c:v libx265 -x265-params log-level=none:open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0:pools=1",
        "-c:v mpeg2video -g 12 -bf 2 -q:v 3",
    ],
    ids=["H.264", "HEVC", "MPEG-2"],
)
def test_frames_that_lead_to_a_group_cut_off_are_not_counted(encoder, coded, tmp_path):
    options = ("-i", coded("short groups"), *encoder.split(), "-pix_fmt", "yuv420p")
    whole, path = ffmpeg_file(tmp_path / "whole.mkv", *options), tmp_path / "v.mkv"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        start = [place for place, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[start:]:
            packet.stream = stream
            new.mux(packet)
    assert check(path).info.num_frames < len(packets) - start


def test_of_two_videos_the_larger_one_is_decoded(coded, tmp_path):
    large = coded("short groups")
    small = ffmpeg_file(tmp_path / "small.mp4", "-i", large, "-vf", f"scale={WIDTH // 2}:{HEIGHT // 2}", *X264)
    for first, second, stream in ((small, large, "0:v:1"), (large, small, "0:v:0")):
        options = ("-i", first, "-i", second, "-map", "0:v", "-map", "1:v", "-c", "copy")
        check(ffmpeg_file(tmp_path / "both.mkv", *options), stream=stream)


def test_of_two_videos_of_one_size_the_default_one_is_decoded(coded, tmp_path):
    mirrored = ffmpeg_file(tmp_path / "mirrored.mp4", "-i", coded("short groups"), "-vf", "hflip", *X264)
    options = ("-i", coded("short groups"), "-i", mirrored, "-map", "0:v", "-map", "1:v", "-c", "copy")
    path = ffmpeg_file(tmp_path / "both.mkv", *options, "-disposition:v:0", "0", "-disposition:v:1", "default")
    check(path, stream="0:v:1")


# Where a pixel at (x, y) is shown: (a x + c y, b x + d y), as the container writes it.
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("matrix", MATRICES)
def test_frames_are_laid_as_the_container_says(matrix, coded, tmp_path):
    path = tmp_path / "v.mp4"
    a, b, c, d = (number << 16 for number in matrix)
    with av.open(str(coded("short groups"))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    check(path)


@pytest.mark.parametrize("stored", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("mirrors_columns", [False, True])
@pytest.mark.parametrize("mirrors_rows", [False, True])
def test_an_orientation_moves_each_pixel(stored, is_transposed, mirrors_columns, mirrors_rows):
    picture = np.arange(np.prod(stored), dtype=np.uint8).reshape(stored)
    orientation = Orientation(is_transposed=is_transposed, mirrors_columns=mirrors_columns, mirrors_rows=mirrors_rows)
    shown = orientation.shown(picture)
    width, height = orientation.shown_size(7, 5)
    assert shown.shape[:2] == (height, width)
    for y in range(height):
        for x in range(width):
            row, column = height - 1 - y if mirrors_rows else y, width - 1 - x if mirrors_columns else x
            expected = picture[column, row] if is_transposed else picture[row, column]
            assert (shown[y, x] == expected).all()


@pytest.mark.parametrize(
    ("candidates", "can_be_joined", "expected"),
    [
        ([[10, 20, 40]], False, [1, 2, 4]),
        ([[10, 20, 30, 10, 20, 30]], True, [1, 2, 3, 4, 5, 6]),
        ([[10, 20, 30, 25, 35]], True, [1, 2, 3, 4, 5]),
        ([[10, 20, 30, 1_000_000, 1_000_010]], True, [1, 2, 3, 4, 5]),
        ([[10, 20, 30, 1_000_000, 1_000_010]], False, [1, 2, 3, 4, 5]),
        ([[10, 20, 30, 530, 540]], True, [1, 2, 3, 4, 5]),
        ([[10, 20, 30, 530, 540]], False, [1, 2, 3, 53, 54]),
        ([[0, 40, 20, 10, 30], [0, 10, 20, 30, 40]], False, [0, 1, 2, 3, 4]),
        ([[None, None, None]], False, [0, 0.5, 1]),
        ([[10, 20, None, None]], False, [1, 2, 3, 4]),
        ([[7]], False, [0.7]),
    ],
)
def test_times_ascend_at_the_usual_distance_where_the_files_do_not(candidates, can_be_joined, expected):
    times = frame_times(*candidates, per_s=10, declared_fps=2, can_be_joined=can_be_joined)
    assert times == pytest.approx(expected)


@pytest.mark.parametrize(
    "kind", ["short groups", "long group with B-frames", "open groups with 8 B-frames", "HEVC", "VP9"]
)
def test_an_ordinary_file_is_decoded_from_the_key_frames(kind, coded):
    assert hasattr(opened(coded(kind)), "_stretches")


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_interlaced_frames_in_one_piece_are_decoded_from_the_key_frames(name, tmp_path):
    coding = Coding(file="", codec="libx264", options={"x264-params": "tff=1:keyint=12:bframes=2"})
    assert hasattr(check(write_video(tmp_path / name, coding)), "_stretches")


def test_b_pictures_that_depend_on_where_decoding_began_are_decoded_from_the_start(tmp_path):
    coding = Coding(file="", codec="mpeg4", options={"g": "12", "bf": "2", "flags": "+ildct+ilme"})
    path = write_video(tmp_path / "v.avi", coding)
    reader = opened(path)
    assert not hasattr(reader, "_stretches")
    assert (reader.read(range(NUM_FRAMES)).frames == sequential_frames(path)).all()
    assert (opened(path).read([20]).frames == reader.read([20]).frames).all()
