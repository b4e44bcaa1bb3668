"""A file whose bytes are not those that were verified is refused, whatever the decoder would make of it."""

import zlib

import pytest

from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.sources import AnyVideo, file_crc32
from morphmlp.errors import DecodeError


def test_the_checksum_is_that_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "video").write_bytes(content)
    assert file_crc32(str(tmp_path / "video")) == zlib.crc32(content)


@pytest.fixture
def flipped(coded, tmp_path):
    """A copy with one bit of a picture flipped, and the checksum of the sound file."""
    content = bytearray(coded("short groups").read_bytes())
    crc32 = zlib.crc32(content)
    content[content.index(b"mdat") + 2000] ^= 1
    (tmp_path / "flipped.mp4").write_bytes(content)
    return str(tmp_path / "flipped.mp4"), crc32


def test_a_flipped_bit_is_reported_where_the_checksum_is_known(flipped):
    path, crc32 = flipped
    videos = AnyVideo(decoder_by_name("pyav"))
    assert videos.open(path, num_frames=None).info.num_frames
    with pytest.raises(DecodeError, match=f"bytes have changed since it was verified .*was {crc32:08x}"):
        videos.open(path, num_frames=None, crc32=crc32)


def test_an_isolated_decoder_checks_it_too(coded, flipped):
    path, crc32 = flipped
    with IsolatedVideos("pyav", Limits(timeout_s=30)) as videos:
        assert videos.open(str(coded("short groups")), num_frames=None, crc32=crc32).info.num_frames
        with pytest.raises(DecodeError, match="bytes have changed"):
            videos.open(path, num_frames=None, crc32=crc32)


def test_a_missing_file_is_missing_first(tmp_path):
    with pytest.raises(DecodeError, match="no such file"):
        AnyVideo(decoder_by_name("pyav")).open(str(tmp_path / "gone.mp4"), num_frames=None, crc32=1)
