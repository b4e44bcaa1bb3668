"""Prepared copies: every frame at its time, and a structure that the decoder can skip in."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.errors import ConfigError, CopyError, DecodeError, DecoderCrashError, DecodeTimeoutError, ManifestError
from morphmlp.preparation.subprocess_call import SubprocessCall
from morphmlp.preparation.transcode_settings import TranscodeSettings
from morphmlp.preparation.transcoding import Pictures, scaled_size, transcode

NUM_FRAMES = 50


def pictures(height, width, count=NUM_FRAMES):
    """Soft noise that drifts two columns a frame."""
    noise = np.random.default_rng(0).integers(0, 256, (-(-height // 8), width // 8 + count, 3), dtype=np.uint8)
    wide = noise.repeat(8, axis=0).repeat(8, axis=1)[:height]
    return [np.ascontiguousarray(wide[:, 2 * number : 2 * number + width]) for number in range(count)]


def write(path, *, height=64, width=96, times=None, rotation=None, codec="libx264", sound=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"crf": "10"} if codec == "libx264" else {})
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        for number, picture in enumerate(pictures(height, width)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts = 44100, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


def opened(path):
    return decoder_by_name("pyav").open(str(path))


def all_frames(path):
    reader = opened(path)
    return reader.read(list(range(reader.info.num_frames))).frames


def psnr(one, other):
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 10 * np.log10(255**2 / error)


def packets(path):
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def is_reference(packet):
    """Whether other frames may refer to an H.264 picture: `nal_ref_idc` of its slices."""
    content, references = bytes(packet), set()
    while content:
        length, head = int.from_bytes(content[:4]), content[4]
        if head & 0x1F in (1, 5):
            references.add(bool(head >> 5 & 3))
        content = content[4 + length :]
    (answer,) = references
    return answer


def test_a_copy_shows_the_same_frames_at_the_same_times(tmp_path):
    source = write(tmp_path / "a.mp4", sound=True)
    copy = transcode(str(source), tmp_path / "b.mp4", TranscodeSettings(crf=15))
    assert copy.info.num_frames == NUM_FRAMES
    assert opened(tmp_path / "b.mp4").info.pts_s == pytest.approx(opened(source).info.pts_s)
    assert psnr(all_frames(source), all_frames(tmp_path / "b.mp4")) > 32
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_what_is_reported_of_a_copy_is_what_the_decoder_finds(tmp_path):
    copy = transcode(str(write(tmp_path / "a.mp4")), tmp_path / "b.mp4", TranscodeSettings(short_edge=32))
    assert copy.info == opened(tmp_path / "b.mp4").info
    assert (copy.info.num_frames, copy.info.width, copy.info.height) == (NUM_FRAMES, 48, 32)
    assert copy.info.fps == pytest.approx(30)
    assert copy.size_bytes == (tmp_path / "b.mp4").stat().st_size
    assert copy.lost == 0


def test_a_variable_frame_rate_stays_variable(tmp_path):
    gaps = np.random.default_rng(0).integers(10, 120, NUM_FRAMES)
    times = [int(time) for time in np.cumsum(gaps) - gaps[0]]
    source = write(tmp_path / "a.mp4", times=times)
    transcode(str(source), tmp_path / "b.mp4", TranscodeSettings())
    assert opened(tmp_path / "b.mp4").info.pts_s == pytest.approx([time / 1000 for time in times], abs=1e-4)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_in_the_pixels(tmp_path, rotation):
    source = write(tmp_path / "a.mp4", rotation=rotation)
    transcode(str(source), tmp_path / "b.mp4", TranscodeSettings(crf=15))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0
    assert psnr(all_frames(source), all_frames(tmp_path / "b.mp4")) > 32


def test_an_odd_row_is_cut_off_and_nothing_is_blurred(tmp_path):
    source = write(tmp_path / "a.mp4", height=63, width=95)
    copy = transcode(str(source), tmp_path / "b.mp4", TranscodeSettings(crf=15))
    assert (copy.info.width, copy.info.height) == (94, 62)
    # Of the brightness: the source is 4:4:4, and 4:2:0 costs colour. A shift by half a pixel would give 25 dB.
    brightness = np.array([0.299, 0.587, 0.114])
    assert psnr(all_frames(source)[:, :62, :94] @ brightness, all_frames(tmp_path / "b.mp4") @ brightness) > 32


@pytest.mark.parametrize("b_frames", [0, 3])
def test_groups_are_closed_short_and_between_references_lie_frames_that_can_be_skipped(tmp_path, b_frames):
    settings = TranscodeSettings(gop=16, b_frames=b_frames)
    transcode(str(write(tmp_path / "a.mp4")), tmp_path / "b.mp4", settings)
    found = packets(tmp_path / "b.mp4")
    in_order = sorted(found, key=lambda packet: packet.pts)
    assert [place for place, packet in enumerate(in_order) if packet.is_keyframe] == [0, 16, 32, 48]
    if b_frames:
        # I b b b P b b b P ...: the last frame of a group is a reference, as the next group gives it none.
        references = [is_reference(packet) for packet in in_order[:16]]
        assert references == [*([True, False, False, False] * 4)[:15], True]
    else:
        assert all(is_reference(packet) for packet in found)


def test_a_scene_cut_starts_no_group_of_its_own(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(32):
            picture = np.full((64, 64, 3), 20 if number < 7 else 230, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    transcode(str(tmp_path / "a.mp4"), tmp_path / "b.mp4", TranscodeSettings())
    in_order = sorted(packets(tmp_path / "b.mp4"), key=lambda packet: packet.pts)
    assert [place for place, packet in enumerate(in_order) if packet.is_keyframe] == [0, 16]


def test_frames_without_times_are_counted(tmp_path):
    source = write(tmp_path / "a.avi", codec="mpeg4")
    copy = transcode(str(source), tmp_path / "b.mp4", TranscodeSettings())
    assert copy.info.num_frames == opened(source).info.num_frames
    assert copy.info.fps == pytest.approx(30)


def test_damage_is_counted_and_the_rest_copied(tmp_path):
    source = write(tmp_path / "a.mp4")
    content = bytearray(source.read_bytes())
    place = packets(source)[20].pos
    content[place + 8 : place + 60] = bytes(52)
    source.write_bytes(content)
    copy = transcode(str(source), tmp_path / "b.mp4", TranscodeSettings())
    assert copy.lost > 0
    assert copy.info.num_frames > NUM_FRAMES // 2


def test_a_source_that_was_cut_short_is_reported(tmp_path):
    source = write(tmp_path / "a.mkv")
    assert not transcode(str(source), tmp_path / "b.mp4", TranscodeSettings()).cut_short
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    copy = transcode(str(source), tmp_path / "b.mp4", TranscodeSettings())
    assert "ends at" in copy.cut_short
    assert copy.info.num_frames < NUM_FRAMES


@pytest.mark.parametrize("content", [b"", b"not a video" * 100])
def test_what_is_no_video_leaves_nothing_behind(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError):
        transcode(str(tmp_path / "a.mp4"), tmp_path / "b.mp4", TranscodeSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "picture", [lambda pixels: pixels[::-1].copy(), lambda pixels: (pixels * 0.85 + 16).astype(np.uint8)]
)
def test_a_copy_that_shows_something_else_is_refused_and_leaves_nothing_behind(tmp_path, monkeypatch, picture):
    def wrong(_, frame):
        made = av.VideoFrame.from_ndarray(picture(frame.to_ndarray(format="rgb24")), format="rgb24")
        return made.reformat(format="yuv420p")

    monkeypatch.setattr(Pictures, "picture", wrong)
    source = write(tmp_path / "a.mp4")
    with pytest.raises(CopyError, match=r"pixels of frame 0 differ from the source's: PSNR [0-9.]+ dB, at least 34"):
        transcode(str(source), tmp_path / "b.mp4", TranscodeSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_target_that_cannot_be_written_is_no_fault_of_the_video(tmp_path):
    source = write(tmp_path / "a.mp4")
    with pytest.raises(ManifestError, match="can't be written"):
        transcode(str(source), tmp_path / "gone" / "b.mp4", TranscodeSettings())


@given(st.integers(2, 5000), st.integers(2, 5000), st.integers(16, 1000).map(lambda half: 2 * half))
def test_sizes_are_even_never_larger_and_keep_their_shape(width, height, short_edge):
    new_width, new_height = scaled_size(width, height, short_edge=short_edge)
    assert new_width % 2 == new_height % 2 == 0
    assert new_width <= width
    assert new_height <= height
    assert min(new_width, new_height) <= short_edge
    if min(width, height) > short_edge:
        assert min(new_width, new_height) == short_edge
        assert abs(new_width * height / width - new_height) <= 2 + 2 * height / width
    else:
        assert (width - new_width, height - new_height) == (width % 2, height % 2)


def test_all_faults_of_settings_are_reported_at_once():
    with pytest.raises(ConfigError) as raised:
        TranscodeSettings(short_edge=33, crf=52, preset="fastest")
    assert [fault.split(":")[0] for fault in raised.value.faults] == ["--crf", "--short-edge", "--preset"]


@pytest.fixture
def isolated(tmp_path, monkeypatch):
    module = tmp_path / "functions_isolated.py"
    module.write_text("import ctypes, time\nfrom morphmlp.data.decoding.protocol import beat\n" + ECHO)
    monkeypatch.syspath_prepend(str(tmp_path))
    called = SubprocessCall("functions_isolated:echo")
    yield called
    called.close()


ECHO = """
def echo(value):
    if value == "crash":
        ctypes.string_at(0)
    while value == "hang":
        pass
    for _ in range(value if isinstance(value, int) else 0):
        time.sleep(0.1)
        beat()
    if isinstance(value, Exception):
        raise value
    print("on standard output, as libraries do")
    return value
"""


def test_isolated_calls_survive_crashes_endless_loops_and_errors(isolated):
    assert isolated([1, "two"], timeout_s=30) == [1, "two"]
    with pytest.raises(DecoderCrashError, match="SIGSEGV"):
        isolated("crash", timeout_s=30)
    with pytest.raises(DecodeTimeoutError, match=r"nothing moved for 0\.5 s"):
        isolated("hang", timeout_s=0.5)
    with pytest.raises(DecodeError, match="ValueError: what"):
        isolated(ValueError("what"), timeout_s=30)
    with pytest.raises(ManifestError, match="full"):
        isolated(ManifestError("full"), timeout_s=30)
    assert isolated("well", timeout_s=30) == "well"


def test_a_call_that_is_at_work_may_take_longer(isolated):
    assert isolated("well", timeout_s=30) == "well"  # started
    assert isolated(20, timeout_s=1) == 20
