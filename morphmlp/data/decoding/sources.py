"""Whatever a manifest names, opened in this process: a video file, a folder of frames, packed frames, or an image."""

import zlib
from pathlib import Path

from morphmlp.data.decoding.protocol import Decoder, VideoReader, require_content
from morphmlp.data.decoding.stored_frames.frame_names import PICTURES, stored_path
from morphmlp.data.decoding.stored_frames.frame_stores import (
    is_pack,
    open_frame_folder,
    open_image,
    open_packed_frames,
)
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import DecodeError


def holds_frame_files(path: str) -> bool:
    """Whether a manifest's path is a folder of frames, with a template of their names or without."""
    return Path(stored_path(path)).is_dir()


def holds_frames(path: str) -> bool:
    """Whether frames are stored one by one: in a folder, in an archive, or a single one as an image."""
    return is_pack(path) or is_image(path) or holds_frame_files(path)


def is_image(path: str) -> bool:
    """Whether a manifest's path is that of an image, which is a video of one frame."""
    return stored_path(path).lower().endswith(PICTURES)


class AnyVideo:
    """Opens videos with a decoder, and those stored as frames without one. A `VideoOpener`."""

    def __init__(self, decoder: Decoder, image_decoder: str = "simplejpeg") -> None:
        self._decoder, self._by = decoder, image_decoder

    def open(
        self, path: str, *, num_frames: int | None, crc32: int | None = None, image: StoredImage | None = None
    ) -> VideoReader:
        """Open what a path names: a folder of frames, `.zip` packed frames, a picture an image, all else a video file.

        Raises:
            DecodeError: It can't be used, with the reason.
        """
        if image is not None:
            return open_image(path, image, crc32=crc32, by=self._by)
        if holds_frame_files(path):
            return open_frame_folder(path, num_frames=num_frames, by=self._by)
        if is_pack(path):
            return open_packed_frames(path, num_frames=num_frames, by=self._by)
        if is_image(path):
            return open_image(path, by=self._by)
        if crc32 is not None:
            _require_bytes(path, crc32)
        return self._decoder.open(path)


def _require_bytes(path: str, expected: int) -> None:
    require_content(path)
    found = file_crc32(path)
    if found != expected:
        raise DecodeError(
            f"its bytes have changed since it was verified (CRC-32 {found:08x}, was {expected:08x}); "
            "get it again, or verify the manifest again"
        )


_PIECE = 2**20


def file_crc32(path: str) -> int:
    """The CRC-32 of a file's bytes.

    Raises:
        OSError: It can't be read.
    """
    crc = 0
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc
