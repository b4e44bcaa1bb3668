"""What a box cuts out of frames is, bit by bit, what it cuts out of whole ones: in every form of pixels."""

from dataclasses import dataclass

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from coded_videos import CODINGS, Coding, moving_pictures, write_video
from golden_files import CELLS

from morphmlp.data.decoding.backends import decoder_by_name, decoder_fault
from morphmlp.data.decoding.protocol import Box, cut, enclosing
from morphmlp.data.decoding.pyav import pictures
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.pyav.orientation import Orientation
from morphmlp.data.decoding.pyav.pictures import Converter, widened

X264 = {"preset": "veryfast", "x264-params": "threads=1:keyint=12"}
TURNED = [cell.name for cell in CELLS.values() if cell.group == "orientation" and cell.container == "mp4"]
GOLDEN = [
    *TURNED,
    "mkv: h264, 10 bit",
    "mp4: h264, RGB",
    "avi: h264, B-frames",
    "mp4: h264, interlaced",
    "mp4: vp9, full range",
]


@dataclass(frozen=True)
class Form:
    """How frames are stored."""

    codec: str
    pixels: str
    name: str = "video.mp4"
    size: tuple[int, int] = (64, 96)
    options: tuple[tuple[str, str], ...] = tuple(X264.items())
    cut_first: bool = False
    """Whether a part can be converted by itself."""


FORMS = {
    "4:2:0": Form("libx264", "yuv420p", cut_first=True),
    "4:2:0, full range": Form("libx264", "yuvj420p", cut_first=True),
    "4:2:0, sides between steps": Form("libx264", "yuv420p", size=(50, 66), cut_first=True),
    "4:2:0, odd sides": Form("libvpx-vp9", "yuv420p", "video.webm", (51, 33), ()),
    "4:2:2": Form("libx264", "yuv422p"),
    "4:4:4": Form("libx264", "yuv444p"),
    "10 bit": Form("libx264", "yuv420p10le"),
    "grey": Form("ffv1", "gray", "video.mkv", options=()),
    "RGB": Form("libx264rgb", "rgb24"),
    "RGB, planes": Form("ffv1", "bgr0", "video.mkv", options=()),
    "alpha": Form("qtrle", "argb", "video.mov", options=()),
    "alpha in planes": Form("ffv1", "yuva420p", "video.mkv", options=()),
    "4:1:1": Form("dvvideo", "yuv411p", "video.avi", (480, 720), ()),
    "two planes": Form("rawvideo", "nv12", "video.avi", options=()),
    "interlaced": Form("libx264", "yuv420p", options=(("x264-params", "threads=1:tff=1"),)),
}


def boxes(height, width, count=12):
    """Some inside a frame, the whole of it, and the last pixel."""
    rng = np.random.default_rng(0)
    yield Box(top=0, left=0, height=height, width=width)
    yield Box(top=height - 1, left=width - 1, height=1, width=1)
    for _ in range(count):
        tall, wide = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        yield Box(top=top, left=left, height=tall, width=wide)


def is_the_same(reader, indices):
    whole = reader.read(indices)
    for box in boxes(reader.info.height, reader.info.width):
        part = reader.read(indices, box)
        assert part.frames.shape[1:3] == (box.height, box.width)
        assert (part.frames == cut(whole.frames, box)).all(), box.describe()
        assert part.concealed == whole.concealed
    return True


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_box_cuts_the_same_pixels_out_of_every_form(form, tmp_path, monkeypatch):
    sources = [np.resize(picture, (*form.size, 3)) for picture in moving_pictures()[:16]]
    rate = 25 if form.codec == "dvvideo" else 30
    path = write_video(
        tmp_path / form.name,
        Coding(file="", codec=form.codec, options=dict(form.options)),
        fps=rate,
        pictures=sources,
        pixel_format=form.pixels,
    )
    converted = []
    can_be_cut = pictures.can_be_cut
    monkeypatch.setattr(pictures, "can_be_cut", lambda frame: (converted.append(can_be_cut(frame)), converted[-1])[1])
    assert is_the_same(PyAVDecoder().open(str(path)), [0, 3, 11, 3])
    assert set(converted) == {form.cut_first}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_box_is_one_of_the_frame_as_it_is_shown(name, golden):
    reader = PyAVDecoder().open(str(golden.path(CELLS[name])))
    assert is_the_same(reader, [2, 17])


def test_pixels_that_are_no_squares_stay_as_they_are_stored(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=X264)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for picture in moving_pictures()[:6]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    reader = PyAVDecoder().open(str(path))
    assert (reader.info.width, reader.info.height) == (96, 64)
    assert is_the_same(reader, [0, 5])


def test_frames_of_another_size_than_the_first_are_scaled_before_they_are_cut(tmp_path):
    small = [picture[:32, :48] for picture in moving_pictures()]
    later = Coding(file="", codec="libx264", options=CODINGS["MPEG-TS"].options, times_ms=range(5000, 6920, 40))
    parts = [
        write_video(tmp_path / "large.ts", CODINGS["MPEG-TS"]),
        write_video(tmp_path / "small.ts", later, pictures=small),
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = PyAVDecoder().open(str(tmp_path / "both.ts"))
    assert is_the_same(reader, [0, reader.info.num_frames - 1])


@pytest.mark.parametrize("most_bytes", [1, 10_000, 2**22])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_any_number_of_frames_is_cut_at_one_go(count, most_bytes, coded, monkeypatch):
    monkeypatch.setattr(pictures, "_TOGETHER_BYTES", most_bytes)
    reader = PyAVDecoder().open(str(coded("short groups")))
    box, indices = Box(top=3, left=7, height=31, width=42), list(range(count))[::-1]
    part = reader.read(indices, box).frames
    assert (part == cut(reader.read(indices).frames, box)).all()
    assert len(part) == count


def test_frames_whose_colours_are_coded_in_other_ways_are_converted_by_their_own():
    rng = np.random.default_rng(0)
    ranges, spaces = [1, 1, 2, 1, 2, 2], [Colorspace.ITU709, Colorspace.ITU709, Colorspace.ITU601] * 2
    frames = []
    for color_range, colorspace in zip(ranges, spaces, strict=True):
        frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (96, 64), dtype=np.uint8), format="yuv420p")
        frame.color_range, frame.colorspace = color_range, colorspace
        frames.append(frame)
    converter, box = Converter(width=64, height=64, orientation=Orientation()), Box(top=5, left=9, height=30, width=20)
    found = []
    for one_box in (box, None):
        pictures = converter.pictures(one_box, count=len(frames))
        for number, frame in enumerate(frames):
            pictures.add(number, frame)
        found.append(np.stack([picture for _, picture in sorted(pictures.all().items())]))
    assert (found[0] == cut(found[1], box)).all()
    assert len({picture.tobytes() for picture in found[0]}) == len(frames)


def test_a_box_of_a_damaged_file_is_one_of_what_stands_in(damaged):
    assert is_the_same(PyAVDecoder().open(str(damaged)), range(0, 48, 5))


@pytest.mark.parametrize("held", [0, 10**9])
def test_a_box_of_a_file_that_is_read_from_its_start(held, coded):
    assert is_the_same(PyAVDecoder(held_bytes=held).open(str(coded("mpeg4 AVI with B-frames"))), [3, 20, 4])


@pytest.mark.parametrize("decoder", ["decord", pytest.param("torchcodec", marks=pytest.mark.slow)])
def test_other_decoders_cut_whole_frames(decoder, coded):
    if fault := decoder_fault(decoder):
        pytest.skip(fault)
    assert is_the_same(decoder_by_name(decoder).open(str(coded("short groups"))), [3, 20])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("rows", [False, True])
def test_a_box_as_shown_is_found_in_the_picture_as_stored(transposed, columns, rows):
    stored = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    orientation = Orientation(is_transposed=transposed, mirrors_columns=columns, mirrors_rows=rows)
    shown = orientation.shown(stored)
    for box in boxes(*shown.shape[:2], count=30):
        inside = orientation.stored_box(box, width=7, height=5)
        part = stored[inside.top : inside.top + inside.height, inside.left : inside.left + inside.width]
        assert (orientation.shown(part) == cut(shown[None], box)[0]).all()


def test_a_box_is_widened_to_whole_steps_and_not_beyond_the_frame():
    for box in boxes(62, 90, count=200):
        wide = widened(box, width=90, height=62)
        assert enclosing([wide, box]) == wide
        assert wide.top % 2 == wide.height % 2 == wide.left % 16 == wide.width % 2 == 0
        assert wide.top + wide.height <= 62
        assert wide.left + wide.width <= 90
        assert min(wide.height, wide.width) >= 16
