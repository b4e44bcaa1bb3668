"""Videos stored as single JPEG or PNG frames: what is taken, what is refused, and that a pack is its folder."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.frame_names import ordered_names, printf_template, split_template
from morphmlp.data.decoding.stored_frames.frame_stores import (
    open_frame_folder,
    open_image,
    open_packed_frames,
    pack_frames,
)
from morphmlp.data.decoding.stored_frames.stills import decode_still
from morphmlp.errors import DecodeError

HEIGHT, WIDTH = 24, 40
FORMS = ("{:05}.jpg", "{:06}.jpg", "img_{:05}.jpg")
OTHER_FORMS = (
    *("image_{:05}.jpg", "{}.jpg", "frame{}.png", "{:04}.PNG", "46GP8-{:06}.jpeg", "frame_{:010}.JPG"),
    *("bild {:03}.Jpg", "v1_{:02}.png", "b\u00fcgeln_{:05}.jpg"),
)


def picture(number, *, height=HEIGHT, width=WIDTH):
    soft = np.random.default_rng(number).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(soft).resize((width, height), Image.Resampling.BILINEAR))


def jpeg(number, **options):
    target = io.BytesIO()
    Image.fromarray(picture(number)).save(target, "JPEG", **options)
    return target.getvalue()


def still(number, name):
    target = io.BytesIO()
    Image.fromarray(picture(number)).save(target, "PNG" if name.lower().endswith("png") else "JPEG")
    return target.getvalue()


def write_folder(folder, count=6, form=FORMS[0], start=1):
    folder.mkdir()
    for number in range(start, count + start):
        (folder / form.format(number)).write_bytes(still(number, form))
    return folder


def in_pillow(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(params=["folder", "pack"])
def opened(request, tmp_path):
    """Opens a folder as it is, or packed (with whatever files it holds)."""

    def open_it(folder, **options):
        if request.param == "folder":
            return open_frame_folder(str(folder), **options)
        target = tmp_path / "as_it_is.zip"
        with zipfile.ZipFile(target, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)
        return open_packed_frames(str(target), **options)

    return open_it


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("form", [*FORMS, *OTHER_FORMS])
def test_frames_are_those_of_the_files_in_order_of_their_numbers(form, start, tmp_path, opened):
    folder = write_folder(tmp_path / "video", 12, form, start)
    reader = opened(folder)
    expected = np.stack([in_pillow(folder / form.format(number)) for number in range(start, start + 12)])
    assert (reader.read(range(12)).frames == expected).all()
    assert (reader.info.num_frames, reader.info.width, reader.info.height) == (12, WIDTH, HEIGHT)
    assert (reader.info.codec, reader.info.fps) == ("png" if form.lower().endswith("png") else "jpeg", 30.0)
    assert reader.info.pts_s == tuple(index / 30 for index in range(12))


def test_frames_come_as_asked_for_with_their_repeats(tmp_path, opened):
    reader = opened(write_folder(tmp_path / "video"))
    everything = reader.read(range(6)).frames
    decoded = reader.read([5, 0, 0, 5, 2])
    assert (decoded.frames == everything[[5, 0, 0, 5, 2]]).all()
    assert decoded.concealed == 0


@pytest.mark.parametrize("indices", [[6], [-1, 0], []])
def test_an_index_that_is_not_there_is_the_callers_fault(indices, tmp_path, opened):
    with pytest.raises(IndexError, match="video with 6"):
        opened(write_folder(tmp_path / "video")).read(indices)


def test_each_wanted_frame_is_read_once_however_often_it_is_wanted(tmp_path):
    folder = write_folder(tmp_path / "video")
    reader = open_frame_folder(str(folder))
    for number in (1, 3, 4, 5, 6):
        (folder / FORMS[0].format(number)).unlink()
    assert len(reader.read([1] * 16).frames) == 16


def test_frames_beyond_the_promised_ones_are_not_used(tmp_path, opened):
    assert opened(write_folder(tmp_path / "video"), num_frames=4).info.num_frames == 4


def test_fewer_frames_than_promised_are_reported_with_both_numbers(tmp_path, opened):
    with pytest.raises(DecodeError, match="holds 6 frames, the list promises 9"):
        opened(write_folder(tmp_path / "video"), num_frames=9)


def test_a_missing_frame_is_named(tmp_path, opened):
    folder = write_folder(tmp_path / "video")
    (folder / "00003.jpg").unlink()
    with pytest.raises(DecodeError, match=r"frame 3 is missing; they must go from 1 to the last \(6\)"):
        opened(folder)


def test_frames_that_begin_behind_1_lack_their_first(tmp_path, opened):
    folder = write_folder(tmp_path / "video", start=2)
    with pytest.raises(DecodeError, match=r"frame 1 is missing; they must go from 1 to the last \(7\)"):
        opened(folder)


def test_frames_that_are_numbered_from_0_lack_none_of_those_promised(tmp_path, opened):
    folder = write_folder(tmp_path / "video", 7, start=0)
    reader = opened(folder, num_frames=6)
    assert (reader.read([5]).frames[0] == in_pillow(folder / FORMS[0].format(5))).all()
    (folder / FORMS[0].format(3)).unlink()
    with pytest.raises(DecodeError, match=r"frame 3 is missing; they must go from 0 to the last \(6\)"):
        opened(folder)


@pytest.mark.parametrize(
    ("other", "ways"),
    [
        ("img_00007.jpg", r"named as 00001\.jpg and as img_00001\.jpg"),
        ("00007.png", r"named as 00001\.jpg and as 00001\.png"),
        ("000007.jpg", r"named as 00001\.jpg and as 000001\.jpg"),
        ("1.jpg", r"named as 1\.jpg and as 00001\.jpg"),
    ],
)
def test_two_ways_of_naming_are_refused(other, ways, tmp_path, opened):
    folder = write_folder(tmp_path / "video")
    (folder / other).write_bytes(still(7, other))
    with pytest.raises(DecodeError, match=ways):
        opened(folder)


def test_two_frames_of_one_number_are_refused(tmp_path, opened):
    folder = write_folder(tmp_path / "video")
    (folder / "00002.JPG").write_bytes(jpeg(7))
    with pytest.raises(DecodeError, match=r"holds 00002.* and 00002.*, both frame 2"):
        opened(folder)


LEFT_OVER = (
    *(".DS_Store", "._00001.jpg", "Thumbs.db", "thumbs.DB", "desktop.ini", "n_frames"),
    *("flow_x_00001.jpg", "flow_y_00001.jpg"),
)


def test_what_systems_and_tools_leave_is_passed_over_and_any_other_name_refused(tmp_path, opened):
    folder = write_folder(tmp_path / "video")
    for name in LEFT_OVER:
        (folder / name).write_text("x")
    assert opened(folder).info.num_frames == 6
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DecodeError, match=r"notes\.txt, which isn't a frame"):
        opened(folder)


def test_a_name_that_is_not_text_is_refused_in_a_message_that_a_table_takes(tmp_path):
    folder = write_folder(tmp_path / "video")
    (folder / os.fsdecode(b"\xfcbrig.jpg")).write_text("x")
    with pytest.raises(DecodeError, match=r"holds \\xfcbrig\.jpg, which isn't a frame") as caught:
        open_frame_folder(str(folder))
    str(caught.value).encode()


def test_an_archive_may_hold_the_folder_itself_and_what_systems_put_next_to_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "video.zip", "w") as archive:
        archive.writestr("4711/", b"")
        for number in (1, 2):
            archive.writestr(f"4711/0000{number}.jpg", jpeg(number))
            archive.writestr(f"__MACOSX/4711/._0000{number}.jpg", b"x")
        archive.writestr("4711/Thumbs.db", b"x", zipfile.ZIP_DEFLATED)
    assert open_packed_frames(str(tmp_path / "video.zip")).info.num_frames == 2


TEMPLATES = {
    "left_%05d.png": "left_%05d.png",
    "left_{:05}.png": "left_%05d.png",
    "left_{:05d}.png": "left_%05d.png",
    "%d_rgb.JPG": "%d_rgb.JPG",
    "{}.jpeg": "%d.jpeg",
    "img2024%03d.jpg": "img2024%03d.jpg",
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("start", [0, 1])
def test_a_template_says_which_of_several_pictures_are_the_frames(template, start, tmp_path):
    printf = TEMPLATES[template]
    assert printf_template(template) == printf
    folder = tmp_path / "video"
    folder.mkdir()
    for number in range(start, start + 12):
        (folder / (printf % number)).write_bytes(still(number, printf))
        (folder / f"depth_{number:05}.png").write_bytes(still(99, ".png"))
    (folder / "notes.txt").write_text("x")
    path = f"{folder}/{printf}"
    assert split_template(path) == (str(folder), printf)
    expected = np.stack([in_pillow(folder / (printf % number)) for number in range(start, start + 12)])
    assert (AnyVideo(OnlyNames()).open(path, num_frames=12).read(range(12)).frames == expected).all()

    assert pack_frames(path, tmp_path / "video.zip") == 12
    assert (open_packed_frames(str(tmp_path / "video.zip")).read(range(12)).frames == expected).all()


@pytest.mark.parametrize("text", ["img.jpg", "img_%05d.gif", "a/%d.jpg", "%d_%d.jpg", "%s.jpg", "%05d", "img_{x}.jpg"])
def test_what_is_no_template_is_reported(text):
    assert printf_template(text) is None


@pytest.mark.parametrize("path", ["/v/100%/a.mp4", "/v/img_%05d.mp4", "/v/%d/00001", "/v/50%d.jpg/x", "img_00001.jpg"])
def test_a_path_without_a_template_stays_whole(path):
    assert split_template(path) == (path, None)


def test_a_folder_without_frames_and_one_that_is_not_there_are_distinguished(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecodeError, match="holds no frames"):
        open_frame_folder(str(tmp_path / "empty"))
    with pytest.raises(DecodeError, match="no such file"):
        open_frame_folder(str(tmp_path / "absent"))


def test_frames_of_another_size_are_refused(tmp_path, opened):
    folder = write_folder(tmp_path / "video")
    Image.fromarray(picture(4, width=WIDTH + 8)).save(folder / "00004.jpg")
    reader = opened(folder)
    with pytest.raises(DecodeError, match=r"00004\.jpg has 48x24 pixels, 00001\.jpg has 40x24"):
        reader.read([0, 3])
    assert reader.scan() == 1


def test_a_broken_frame_is_named_and_counted_and_leaves_the_others(tmp_path, opened):
    folder = write_folder(tmp_path / "video")
    frame = folder / "00002.jpg"
    frame.write_bytes(frame.read_bytes()[:-40])
    reader = opened(folder)
    with pytest.raises(DecodeError, match=r"00002\.jpg"):
        reader.read([0, 1])
    assert len(reader.read([0, 2]).frames) == 2
    assert reader.scan() == 1


def test_a_video_without_one_good_frame_does_not_pass_the_scan(tmp_path, opened):
    folder = write_folder(tmp_path / "video", 3)
    reader_of_good = opened(folder)
    assert reader_of_good.scan() == 0
    for number in (1, 2, 3):
        frame = folder / FORMS[0].format(number)
        frame.write_bytes(frame.read_bytes()[:-40])
    with pytest.raises(DecodeError, match=r"00001\.jpg"):
        opened(folder).scan()


@pytest.mark.parametrize(("name", "kind", "said"), [("00001.jpg", "PNG", "JPEG"), ("00001.png", "JPEG", "PNG")])
def test_a_picture_under_the_name_of_another_kind_is_refused(name, kind, said, tmp_path, opened):
    folder = tmp_path / "video"
    folder.mkdir()
    Image.fromarray(picture(1)).save(folder / name, kind)
    with pytest.raises(DecodeError, match=rf"{name} isn't a {said} file"):
        opened(folder)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"quality": 30}),
        ("JPEG", {"subsampling": 0}),
        ("PNG", {}),
    ],
)
def test_a_file_cut_anywhere_gives_an_error_or_the_whole_picture(kind, options):
    target = io.BytesIO()
    Image.fromarray(picture(1)).save(target, kind, **options)
    data = target.getvalue()
    whole = decode_still(data, kind).pixels
    for end in range(len(data)):
        for cut in (data[:end], data[:end] + bytes(len(data) - end)):
            try:
                pixels = decode_still(cut, kind).pixels
            except DecodeError:
                continue
            assert (pixels == whole).all(), end


def test_every_damaged_byte_of_a_png_is_noticed():
    data = still(1, ".png")
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 16
        with pytest.raises(DecodeError):
            decode_still(bytes(changed), "PNG")


def test_grey_and_cmyk_pictures_come_as_rgb():
    for mode in ("L", "CMYK"):
        target = io.BytesIO()
        Image.fromarray(picture(1)).convert(mode).save(target, "JPEG")
        assert decode_still(target.getvalue(), "JPEG").pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_png_pictures_of_every_kind_with_8_bits_come_as_their_colours(mode):
    target = io.BytesIO()
    image = Image.fromarray(picture(1)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.new("L", image.size, 7))
    image.save(target, "PNG", **({"transparency": bytes(range(256))} if mode == "P" else {}))
    colours = image.convert("RGB") if mode != "P" else image.convert("RGBA").convert("RGB")
    assert (decode_still(target.getvalue(), "PNG").pixels == np.asarray(colours)).all()


def test_a_png_with_16_bits_of_grey_is_refused():
    target = io.BytesIO()
    Image.fromarray(np.full((HEIGHT, WIDTH), 40000, dtype=np.uint16)).save(target, "PNG")
    with pytest.raises(DecodeError, match="8 bits a colour"):
        decode_still(target.getvalue(), "PNG")


@given(
    count=st.integers(1, 400),
    form=st.sampled_from([*FORMS, *OTHER_FORMS]),
    start=st.sampled_from([0, 1]),
    seed=st.integers(0, 99),
)
def test_names_are_ordered_by_number_whatever_the_order_of_the_listing(count, form, start, seed):
    names = [form.format(number) for number in range(start, count + start)]
    shuffled = [names[place] for place in np.random.default_rng(seed).permutation(count)]
    assert ordered_names(shuffled, where="video") == tuple(names)


def test_unpacking_gives_the_folder_back_bit_for_bit(tmp_path):
    folder = write_folder(tmp_path / "video", form=FORMS[1])
    assert pack_frames(folder, tmp_path / "video.zip") == 6
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", tmp_path / "video.zip", tmp_path / "unpacked"], check=True, timeout=60
    )
    files = {file.name: file.read_bytes() for file in (tmp_path / "unpacked").iterdir()}
    assert files == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_pack_gives_the_frames_of_its_folder(tmp_path):
    folder = write_folder(tmp_path / "video")
    pack_frames(folder, tmp_path / "video.zip")
    packed, loose = open_packed_frames(str(tmp_path / "video.zip")), open_frame_folder(str(folder))
    assert packed.info == loose.info
    assert (packed.read(range(6)).frames == loose.read(range(6)).frames).all()


def test_the_same_frames_make_the_same_pack(tmp_path):
    folder = write_folder(tmp_path / "video")
    pack_frames(folder, tmp_path / "one.zip")
    for file in folder.iterdir():
        file.touch()
    pack_frames(folder, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_folder_that_makes_no_video_leaves_no_pack_and_no_rest_of_one(tmp_path):
    folder = write_folder(tmp_path / "video")
    (folder / "00003.jpg").unlink()
    with pytest.raises(DecodeError, match="frame 3 is missing"):
        pack_frames(folder, tmp_path / "packs.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["video"]


@pytest.mark.parametrize("change", [lambda data: data[:200] + b"?" + data[201:], lambda data: data[:-40]])
def test_what_a_disk_gives_back_otherwise_is_no_pack(tmp_path, monkeypatch, change):
    close = zipfile.ZipFile.close

    def close_and_change(archive):
        path, is_new = Path(archive.filename), archive.mode == "w" and archive.fp is not None
        close(archive)
        if is_new:
            path.write_bytes(change(path.read_bytes()))

    monkeypatch.setattr(zipfile.ZipFile, "close", close_and_change)
    folder = write_folder(tmp_path / "video")
    with pytest.raises(OSError, match="reads back differently"):
        pack_frames(folder, tmp_path / "video.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["video"]


def test_every_damaged_byte_of_a_packed_frame_is_noticed(tmp_path):
    """What JPEG alone doesn't show: the archive's checksum does."""
    pack_frames(write_folder(tmp_path / "video", 1), tmp_path / "video.zip")
    data = bytearray((tmp_path / "video.zip").read_bytes())
    picture_start = data.index(b"\xff\xd8")
    picture_end = data.index(b"PK\x01\x02")
    damaged = tmp_path / "damaged.zip"
    for place in range(picture_start, picture_end, 7):
        changed = bytearray(data)
        changed[place] ^= 16
        damaged.write_bytes(changed)
        with pytest.raises(DecodeError):
            open_packed_frames(str(damaged)).read([0])


def test_a_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "video.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00001.jpg", jpeg(1))
    with pytest.raises(DecodeError, match=r"00001\.jpg is compressed"):
        open_packed_frames(str(tmp_path / "video.zip"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_frame_that_an_archive_holds_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "video.zip", "w") as archive:
        archive.writestr("00001.jpg", jpeg(1))
        archive.writestr("00001.jpg", jpeg(2))
    with pytest.raises(DecodeError, match=r"00001\.jpg 2 times"):
        open_packed_frames(str(tmp_path / "video.zip"))


def test_an_archive_cut_short_is_reported(tmp_path):
    pack_frames(write_folder(tmp_path / "video"), tmp_path / "video.zip")
    cut = tmp_path / "cut.zip"
    cut.write_bytes((tmp_path / "video.zip").read_bytes()[:-30])
    with pytest.raises(DecodeError, match="not a readable archive"):
        open_packed_frames(str(cut))


class OnlyNames:
    """A decoder that records what it was asked to open."""

    name, version = "only names", "1"

    def open(self, path):
        raise DecodeError(f"asked for {Path(path).name}")


def test_what_a_path_is_decides_who_opens_it(tmp_path):
    folder = write_folder(tmp_path / "video")
    pack_frames(folder, tmp_path / "video.zip")
    videos = AnyVideo(OnlyNames())
    assert videos.open(str(folder), num_frames=4).info.num_frames == 4
    assert videos.open(str(tmp_path / "video.zip"), num_frames=5).info.num_frames == 5
    (tmp_path / "video.zip").rename(tmp_path / "VIDEO.ZIP")
    assert videos.open(str(tmp_path / "VIDEO.ZIP"), num_frames=6).info.num_frames == 6
    with pytest.raises(DecodeError, match=r"asked for video\.mp4"):
        videos.open(str(tmp_path / "video.mp4"), num_frames=None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_orientation_says(orientation, tmp_path):
    photo = Image.fromarray(picture(0))
    exif = photo.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    photo.save(tmp_path / "photo.jpg", exif=exif)
    with Image.open(tmp_path / "photo.jpg") as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    opened = open_image(str(tmp_path / "photo.jpg"))
    assert (opened.info.height, opened.info.width) == upright.shape[:2]
    assert np.array_equal(opened.read([0]).frames[0], upright)


def test_a_photo_whose_exif_is_damaged_is_taken_as_it_is():
    data = jpeg(0, exif=b"Exif\0\0no tags")
    assert np.array_equal(decode_still(data, "JPEG").pixels, decode_still(jpeg(0), "JPEG").pixels)
