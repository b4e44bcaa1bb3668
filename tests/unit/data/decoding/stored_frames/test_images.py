"""Images of data sets: found in the file that holds them, and read as Pillow reads them, whatever their name says."""

import io
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import ExifTags, Image

from morphmlp.data import columns
from morphmlp.data.clips.augment import resize
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.frame_stores import open_image
from morphmlp.data.decoding.stored_frames.image_bytes import IMAGE_CELLS, StoredImage, image_bytes, unpacked
from morphmlp.data.decoding.stored_frames.stills import oddities
from morphmlp.data.manifest import manifest_from_rows, read_manifest, write_manifest
from morphmlp.errors import DecodeError, ManifestError

AS_STORED = StoredImage(as_stored=True)
PIXELS = np.asarray(
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((33, 21))
)


def encoded(mode="RGB", form="JPEG", **options):
    target = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(target, form, **options)
    return target.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def grey16():
    target = io.BytesIO()
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(target, "PNG")
    return target.getvalue()


IMAGES = {
    "plain": (encoded(), ()),
    "a PNG": (encoded(form="PNG"), ("PNG named .jpeg",)),
    "CMYK": (encoded("CMYK"), ("CMYK",)),
    "grey": (encoded("L"), ("grey",)),
    "palette": (encoded("P", "PNG"), ("PNG named .jpeg", "palette")),
    "turned": (encoded(exif=exif(6)), ("EXIF orientation 6",)),
    "damaged EXIF": (encoded(exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"), ("damaged EXIF",)),
    "no end mark": (encoded()[:-2] + bytes(4000), ()),
    "a GIF": (encoded("P", "GIF"), ("GIF named .jpeg", "palette")),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_image_of_a_data_set_is_what_pillow_makes_of_it(name, tmp_path):
    data, odd = IMAGES[name]
    path = tmp_path / "image.JPEG"
    path.write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    opened = AnyVideo(None).open(str(path), num_frames=None, image=AS_STORED)
    assert (opened.info.height, opened.info.width) == expected.shape[:2] == PIXELS.shape[:2]
    assert (opened.read([0, 0]).frames == expected).all()
    assert oddities(data, "image.JPEG") == odd


def test_of_16_bits_of_grey_the_high_byte_counts(tmp_path):
    (tmp_path / "image.png").write_bytes(grey16())
    frame = open_image(str(tmp_path / "image.png")).read([0]).frames[0]
    assert (frame == PIXELS[..., :1]).all()
    assert oddities(grey16(), "image.png") == ("16-bit grey",)


def test_an_image_is_resized_with_its_colours_next_to_each_other(tmp_path):
    (tmp_path / "image.jpg").write_bytes(encoded())
    frames = open_image(str(tmp_path / "image.jpg")).read([0]).frames
    # torch's slower way for planes of colours would give another order in memory.
    assert resize(torch.from_numpy(frames)[:, 1:, 1:], height=8, width=8).is_contiguous()


def test_an_own_image_of_another_kind_than_its_name_is_read_too(tmp_path):
    (tmp_path / "image.jpg").write_bytes(encoded(form="PNG"))
    reader = open_image(str(tmp_path / "image.jpg"))
    assert reader.info.codec == "png"
    assert (reader.read([0]).frames[0] == PIXELS).all()


@pytest.mark.parametrize(
    "data", [encoded()[:-2] + bytes(4000), encoded(form="PNG")[:-3] + b"???", b"text", b"", encoded(form="EPS")]
)
def test_an_own_image_that_is_not_complete_or_no_picture_is_refused(data, tmp_path):
    (tmp_path / "image.jpg").write_bytes(data)
    with pytest.raises(
        DecodeError, match=r"image\.jpg (is cut short|is damaged|isn't an image|is empty|is PostScript)"
    ):
        open_image(str(tmp_path / "image.jpg")).read([0])


@pytest.fixture
def tar(tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for number, mode in enumerate(["RGB", "L", "CMYK"]):
            data = encoded(mode)
            member = tarfile.TarInfo(f"n{number}.JPEG")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return tmp_path / "images.tar"


def places(tar):
    with tarfile.open(tar) as archive:
        return [StoredImage(member=each.name, offset=each.offset_data, length=each.size) for each in archive]


def test_an_image_in_a_tar_is_read_where_it_lies_by_an_isolated_decoder_too(tar):
    with IsolatedVideos("pyav", Limits(timeout_s=30)) as videos:
        for image, mode in zip(places(tar), ["RGB", "L", "CMYK"], strict=True):
            data = encoded(mode)
            expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            reader = videos.open(str(tar), num_frames=None, image=image, crc32=zlib.crc32(data))
            assert (reader.read([0]).frames[0] == expected).all()
            assert reader.inspect().damaged == 0
        with pytest.raises(DecodeError, match=r"images\.tar: n2\.JPEG has changed since it was verified"):
            videos.open(str(tar), num_frames=None, image=image, crc32=1)


def test_a_tar_that_was_cut_short_since_says_so(tar):
    *_, last = places(tar)
    tar.write_bytes(tar.read_bytes()[: last.offset + 10])
    with pytest.raises(DecodeError, match=rf"n2\.JPEG lies at bytes {last.offset} to .* cut short or replaced"):
        open_image(str(tar), last)
    tar.unlink()
    with pytest.raises(DecodeError, match="no such file"):
        open_image(str(tar), last)


@pytest.mark.parametrize("sizes", [(0, 1), (100, 65_536), (1, 65_537), (70_000, 200_000)])
def test_snappy_blocks_out_of_a_stream_unpack_to_their_part_of_it(sizes, tmp_path):
    """Oracle: Arrow's own coding of the parts, each a stream with the size before it."""
    skip, length = sizes
    content = np.random.default_rng(0).bytes(skip) + b"an image" * (length // 8 + 1)
    stream = pa.compress(content, codec="snappy", asbytes=True)
    head = next(place for place, byte in enumerate(stream) if byte < 128) + 1
    (tmp_path / "shard").write_bytes(b"before" + stream)
    image = StoredImage(
        offset=skip,
        length=length,
        blocks_offset=6 + head,
        blocks_length=len(stream) - head,
        blocks_unpacked=len(content),
    )
    assert image_bytes(str(tmp_path / "shard"), image) == content[skip : skip + length]
    with pytest.raises(DecodeError, match="Snappy blocks are damaged"):
        unpacked(b"\xff" + stream[head:], len(content))


def manifest(**images):
    return manifest_from_rows(
        video_ids=["a", "b"],
        paths=["x.tar", "x.tar"],
        labels=[0, 1],
        splits=["train"] * 2,
        sizes_bytes=[3, 4],
        class_names=["one", "two"],
        items="images",
        images=images,
    )


def test_places_in_a_file_travel_with_a_manifest_and_absent_columns_stay_absent(tmp_path):
    assert tuple(columns.IMAGE.names) == IMAGE_CELLS
    write_manifest(
        manifest(member=["m", "n"], offset=[512, 2048], length=[3, 4], as_stored=[True, True]), tmp_path / "m"
    )
    read = read_manifest(tmp_path / "m", only=["path", *IMAGE_CELLS]).table
    assert [StoredImage.of(row) for row in read.to_pylist()] == [
        StoredImage(member="m", offset=512, length=3, as_stored=True),
        StoredImage(member="n", offset=2048, length=4, as_stored=True),
    ]
    write_manifest(manifest(), tmp_path / "plain")
    plain = read_manifest(tmp_path / "plain").table
    assert plain.column_names == columns.MANIFEST.names
    assert [StoredImage.of(row) for row in plain.to_pylist()] == [None, None]


def test_a_column_of_another_type_is_refused(tmp_path):
    table = manifest(offset=[1, 2])
    write_manifest(table, tmp_path / "m")
    wrong = pq.read_table(tmp_path / "m")
    place = wrong.schema.get_field_index("offset")
    pq.write_table(wrong.set_column(place, "offset", pc.cast(wrong["offset"], pa.string())), tmp_path / "m")
    with pytest.raises(ManifestError, match="column offset is string, not int64"):
        read_manifest(tmp_path / "m")
