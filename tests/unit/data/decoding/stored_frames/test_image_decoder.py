"""Images by simplejpeg are Pillow's, bit for bit; what it refuses, Pillow reads, and that is counted."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from morphmlp.data.decoding.stored_frames.stills import ImageReader, Picture
from morphmlp.errors import DecodeError

SIZES = ((96, 128), (97, 131), (17, 13), (8, 64), (1, 1))


def photo(height, width, seed=0):
    """Noise of three sizes, so that every coefficient of a block is there."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for cell in (16, 4, 1):
        coarse = rng.normal(0, 40, (-(-height // cell), -(-width // cell), 3))
        picture += np.kron(coarse, np.ones((cell, cell, 1)))[:height, :width]
    return Image.fromarray(np.clip(128 + picture, 0, 255).astype(np.uint8))


def stored(image, kind="JPEG", **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def in_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def decode_image(data, shown, *, by):
    decoded = ImageReader(data, shown=shown, where="an image", by=by).read([0])
    return Picture(pixels=decoded.frames[0], refused=bool(decoded.refused))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quality", [30, 90, 100])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(size, quality, progressive, subsampling):
    data = stored(photo(*size), quality=quality, progressive=progressive, subsampling=subsampling)
    picture = decode_image(data, "as stored", by="simplejpeg")
    assert np.array_equal(picture.pixels, in_pillow(data))
    assert not picture.refused


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("L", {"progressive": True}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"optimize": True}),
        ("RGB", {"restart_marker_blocks": 1}),
        ("RGB", {"exif": b"Exif\0\0no tags"}),
        ("RGB", {"icc_profile": bytes(3000), "comment": b"a comment"}),
    ],
)
def test_a_jpeg_of_another_coding_has_them_too(size, mode, options):
    data = stored(photo(*size).convert(mode), **options)
    picture = decode_image(data, "as stored", by="simplejpeg")
    assert np.array_equal(picture.pixels, in_pillow(data))
    assert not picture.refused


def sixteen_bits():
    return Image.fromarray((np.arange(24 * 40, dtype=np.uint16) * 60).reshape(24, 40))


def with_stray_bytes(data):
    """Bytes that belong to nothing, before the end mark: decoders pass over them with a warning."""
    return data[:-2] + b"\x11" * 40 + data[-2:]


ODD = {
    "CMYK": (stored(photo(24, 40).convert("CMYK")), True),
    "stray bytes": (with_stray_bytes(stored(photo(24, 40), quality=90)), True),
    "PNG": (stored(photo(24, 40), "PNG"), False),
    "palette": (stored(photo(24, 40).convert("P"), "PNG"), False),
    "GIF": (stored(photo(24, 40).convert("P"), "GIF"), False),
}


@pytest.mark.parametrize("by", ["simplejpeg", "pillow"])
@pytest.mark.parametrize("kind", ODD)
def test_what_the_fast_decoder_refuses_pillow_reads_and_it_is_counted(kind, by):
    data, is_jpeg = ODD[kind]
    picture = decode_image(data, "as stored", by=by)
    assert np.array_equal(picture.pixels, in_pillow(data))
    assert picture.refused == (is_jpeg and by == "simplejpeg")


@pytest.mark.parametrize("by", ["simplejpeg", "pillow"])
def test_of_16_bits_the_high_byte_is_taken(by):
    image = sixteen_bits()
    expected = np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(decode_image(stored(image, "PNG"), "as stored", by=by).pixels, expected)


@pytest.mark.parametrize("by", ["simplejpeg", "pillow"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_that_lies_on_its_side_is_turned_or_left_as_stored(orientation, mode, by):
    image = photo(24, 40).convert(mode)
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    data = stored(image, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert np.array_equal(decode_image(data, "upright", by=by).pixels, upright)
    assert np.array_equal(decode_image(data, "as stored", by=by).pixels, in_pillow(data))


@pytest.mark.parametrize("shown", ["as stored", "upright"])
@pytest.mark.parametrize("by", ["simplejpeg", "pillow"])
def test_half_a_file_is_refused_by_both(by, shown):
    data = stored(photo(96, 128), quality=90)
    with pytest.raises(DecodeError):
        decode_image(data[: len(data) // 2], shown, by=by)


def claiming(data, *, height, width):
    """A JPEG whose head states another size."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + height.to_bytes(2) + width.to_bytes(2) + data[place + 4 :]


@pytest.mark.parametrize("by", ["simplejpeg", "pillow"])
def test_a_picture_of_four_gigapixels_is_refused_by_its_head(by):
    with pytest.raises(DecodeError, match="decompression bomb"):
        decode_image(claiming(stored(photo(24, 40)), height=65_000, width=65_000), "as stored", by=by)
