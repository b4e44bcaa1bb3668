"""Label maps come as the numbers that were stored, whatever kind of file they are; what can't be one is refused."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from morphmlp.data import columns
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.manifest import manifest_from_rows, read_manifest, write_manifest
from morphmlp.errors import DecodeError

AS_STORED = StoredImage(labels="as_stored")
GREY, PALETTE = 0, 3


def png(values, *, bits, kind):
    """A PNG by the specification's own words (ISO 15948): chunks, no filter, samples of few bits packed from the left.

    Written here since every library has its own idea of what grey levels of few bits mean.
    """
    height, width = values.shape
    if bits == 16:
        rows = [line.astype(">u2").tobytes() for line in values]
    else:
        per_sample = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = [np.packbits(line.reshape(-1).astype(np.uint8)).tobytes() for line in per_sample]

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    palette = np.random.default_rng(0).integers(0, 256, (2 ** min(bits, 8), 3), dtype=np.uint8).tobytes()
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)),
            chunk(b"PLTE", palette) + chunk(b"tRNS", b"\0") if kind == PALETTE else b"",
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
            chunk(b"IEND", b""),
        )
    )


def values_of(bits, *, most=255):
    values = np.random.default_rng(bits).integers(0, min(2**bits - 1, most) + 1, (21, 33))
    values[0, :2] = 0, min(2**bits - 1, most)
    return values


def read(path, image=AS_STORED):
    reader = AnyVideo(None).open(str(path), num_frames=None, image=image)
    return reader.read([0]).frames


@pytest.mark.parametrize("labels", ["as_stored", "zero_is_ignored"])
@pytest.mark.parametrize(
    ("kind", "bits"), [(GREY, 1), (GREY, 2), (GREY, 4), (GREY, 8), (GREY, 16), *((PALETTE, n) for n in (1, 2, 4, 8))]
)
def test_values_of_every_kind_and_depth_come_as_they_are_stored(kind, bits, labels, tmp_path):
    values = values_of(bits)
    path = tmp_path / "map.png"
    path.write_bytes(png(values, bits=bits, kind=kind))
    # OpenCV agrees that it's such a file: it stretches few bits, and turns palettes into colours.
    seen = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert seen.shape[:2] == values.shape
    if kind == GREY:
        assert np.array_equal(seen, values * (1 if bits > 4 else 255 // (2**bits - 1)))
    # mmsegmentation's `reduce_zero_label`, word for word, on a type that doesn't wrap
    expected = values.copy()
    if labels == "zero_is_ignored":
        expected[expected == 0] = 255
        expected = expected - 1
        expected[expected == 254] = 255
    found = read(path, StoredImage(labels=labels))
    assert found.dtype == np.uint8
    assert found.shape == (1, *values.shape, 3)
    assert np.array_equal(found[0], np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize(("form", "mode"), [("PNG", "L"), ("PNG", "P"), ("BMP", "L"), ("TIFF", "L"), ("TIFF", "I")])
def test_other_forms_without_loss_come_as_opencv_or_the_array_has_them(form, mode, tmp_path):
    values = values_of(8).astype(np.uint8)
    image = Image.fromarray(values if mode != "I" else values.astype(np.int32))
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "map", form)
    assert np.array_equal(read(tmp_path / "map")[0, ..., 0], values)


@pytest.mark.parametrize(
    ("mode", "form", "message"),
    [
        ("RGB", "PNG", r"has colours \(RGB\) where a label map has one number a pixel; the full ADE20K"),
        ("RGBA", "PNG", r"has colours \(RGBA\)"),
        ("LA", "PNG", "has pixels of kind LA"),
        ("F", "TIFF", "has pixels of kind F"),
        ("L", "JPEG", "is a JPEG, whose compression changes labels; a label map must be a PNG"),
        ("RGB", "WEBP", "is a WEBP, whose compression"),
    ],
)
def test_what_has_no_class_numbers_is_refused(mode, form, message, tmp_path):
    Image.fromarray(values_of(8).astype(np.uint8)).convert(mode).save(tmp_path / "map.png", form)
    with pytest.raises(DecodeError, match=rf": map\.png {message}"):
        read(tmp_path / "map.png")


GOOD = png(values_of(8), bits=8, kind=GREY)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>not here</html>", "isn't an image"),
        (GOOD[:-12], "is damaged or cut short"),
        (GOOD[:200], "is damaged or cut short"),
        (GOOD[:100] + bytes([GOOD[100] ^ 1]) + GOOD[101:], "is damaged or cut short"),
        (GOOD[:20], "isn't an image|can't be decoded"),
        (png(values_of(16, most=4000), bits=16, kind=GREY), "has labels from 0 to 4000; a label map holds 0 to 255"),
    ],
    ids=["empty", "words", "no end", "half", "a bit", "no head", "too large"],
)
def test_what_is_damaged_is_refused_in_one_line(data, message, tmp_path):
    (tmp_path / "map.png").write_bytes(data)
    with pytest.raises(DecodeError, match=message) as raised:
        read(tmp_path / "map.png")
    assert "\n" not in str(raised.value)


def test_an_isolated_decoder_reads_an_image_and_its_map_and_sees_that_the_map_changed(tmp_path):
    values = values_of(8)
    Image.fromarray(np.full((21, 33, 3), 9, dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "map.png").write_bytes(GOOD)
    source = {"path": str(tmp_path / "map.png"), "num_frames": None, "image": StoredImage(labels="zero_is_ignored")}
    with IsolatedVideos("pyav", Limits(timeout_s=20)) as videos:
        picture, one = videos.read_images(
            [
                OpenVideo(path=str(tmp_path / "a.png"), num_frames=None, crc32=None),
                OpenVideo(crc32=zlib.crc32(GOOD), **source),
            ]
        )
        assert np.unique(picture.frame).tolist() == [9]
        assert np.array_equal(one.frame[..., 1], (values - 1) % 256 + (values == 255))
        assert np.array_equal(videos.open(**source).read([0]).frames[0], one.frame)
        (tmp_path / "map.png").write_bytes(png(values[::-1], bits=8, kind=GREY))
        (changed,) = videos.read_images([OpenVideo(crc32=zlib.crc32(GOOD), **source)])
        assert "has changed since it was verified" in str(changed)


def scenes(**changed):
    maps = {"map_path": ["x.png", "y.png"], "map_crc32": [1, 2], "map_zero_is_ignored": [True, True]}
    return manifest_from_rows(
        video_ids=["a", "b"],
        paths=["x.jpg", "y.jpg"],
        labels=[0, 0],
        splits=["train"] * 2,
        sizes_bytes=[3, 4],
        class_names=["one", "two"],
        items="images",
        task="segmentation",
        images={**maps, **changed},
    )


def test_maps_travel_with_a_manifest(tmp_path):
    write_manifest(scenes(), tmp_path / "m")
    found = read_manifest(tmp_path / "m", only=["path", *columns.SCENE.names])
    assert (found.task, found.items, found.class_names) == ("segmentation", "images", ("one", "two"))
    rows = found.table.to_pylist()
    assert [StoredImage.of_map(row) for row in rows] == [StoredImage(labels="zero_is_ignored")] * 2
    assert [StoredImage.of(row) for row in rows] == [None, None]
    assert StoredImage.of_map({"path": "x"}) is None
    assert StoredImage.of_map({"map_path": "x", "map_zero_is_ignored": False}) == AS_STORED


def test_the_fingerprint_covers_the_maps_and_what_their_zero_means(tmp_path):
    write_manifest(scenes(), tmp_path / "m")
    assert read_manifest(tmp_path / "m", only=["path"]).fingerprint() == scenes().fingerprint()
    assert scenes(map_path=["elsewhere.png"] * 2).fingerprint() == scenes().fingerprint()
    others = [
        scenes(map_crc32=[1, 3]),
        scenes(map_crc32=[None, 2]),
        scenes(map_zero_is_ignored=[True, False]),
        scenes(map_crc32=[2, 1]),
    ]
    assert len({each.fingerprint() for each in [*others, scenes()]}) == 5
