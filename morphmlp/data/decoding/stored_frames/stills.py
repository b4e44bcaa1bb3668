"""Videos whose frames are stored one by one as JPEG or PNG files: their pixels.

What a folder and an archive of frames have in common. It must not know where the bytes of a frame come from.
"""

import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Literal, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from morphmlp.data.decoding.protocol import DecodedFrames, Frames, VideoInfo, beat
from morphmlp.data.decoding.stored_frames.frame_names import shown
from morphmlp.errors import DecodeError

Kind = Literal["JPEG", "PNG"]
Shown = Literal["upright", "as stored"]
"""How an image is shown: turned as its EXIF orientation says (phones store photos lying down), or as its pixels are
stored, which is how data sets of images are read everywhere."""

FRAMES_PER_SECOND = 30.0
"""The rate at which frame strides count. Stored frames carry no times: each counts as one frame at this rate, whatever
the rate at which they were extracted (Something-Something V1 comes at 12 a second and is used as it is)."""

_Seen = TypeVar("_Seen")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_SIGNATURE_BYTES, _CHUNK_HEAD_BYTES, _CRC_BYTES = 8, 8, 4
_EIGHT_BITS = frozenset(("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCCK"))
"""Pillow's modes of pictures that it brings to 8-bit RGB without a change of levels."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture of an EXIF orientation upright; Pillow turns against the clock."""
_ON_A_SIDE = frozenset((5, 6, 7, 8))
_EXTENSIONS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}
_COLOURS = {
    "L": "grey",
    "CMYK": "CMYK",
    "P": "palette",
    "I;16": "16-bit grey",
    "I": "16-bit grey",
    "1": "black or white",
}


class StillsReader:
    """An open video whose frames are files of their own, of the kind that their names say."""

    def __init__(self, names: Sequence[str], load: Callable[[str], bytes], *, where: str) -> None:
        """Look at the first frame for the size; `load` gives the bytes of a named one, or raises `DecodeError`."""
        self._names, self._load, self._where = names, load, where
        width, height = self._of_frame(0, _still_size)
        self.info = VideoInfo(
            num_frames=len(names),
            fps=FRAMES_PER_SECOND,
            pts_s=tuple(index / FRAMES_PER_SECOND for index in range(len(names))),
            width=width,
            height=height,
            codec=_kind_of(names[0]).lower(),
        )

    def read(self, indices: Sequence[int]) -> DecodedFrames:
        """The frames at these indices; each is decoded once, however often it's wanted.

        Nothing is ever concealed: no frame stands in for another one.

        Raises:
            DecodeError: A wanted frame is unreadable, cut short, or of another size than the first.
            IndexError: No index, or one that the video doesn't have.
        """
        if not len(indices) or min(indices) < 0 or max(indices) >= self.info.num_frames:
            raise IndexError(f"frames {list(indices)} of a video with {self.info.num_frames}")
        frames = np.empty((len(indices), self.info.height, self.info.width, 3), dtype=np.uint8)
        place_of: dict[int, int] = {}
        for place, index in enumerate(indices):
            if index in place_of:
                frames[place] = frames[place_of[index]]
            else:
                frames[place] = self._of_one_size(index)
                place_of[index] = place
        return DecodedFrames(frames=frames, concealed=0)

    def scan(self) -> int:
        """Decode every frame; returns how many can't be used.

        Raises:
            DecodeError: None can.
        """
        reasons = []
        for index in range(self.info.num_frames):
            try:
                self._of_one_size(index)
            except DecodeError as error:
                reasons.append(error)
            beat()
        if len(reasons) == self.info.num_frames:
            raise reasons[0]
        return len(reasons)

    def _of_one_size(self, index: int) -> Frames:
        frame = self._of_frame(index, decode_still)
        height, width = frame.shape[:2]
        if (width, height) != (self.info.width, self.info.height):
            raise DecodeError(
                f"{self._where}: {self._names[index]} has {width}x{height} pixels, {self._names[0]} has "
                f"{self.info.width}x{self.info.height}; all frames must have one size"
            )
        return frame

    def _of_frame(self, index: int, look: Callable[[bytes, Kind], _Seen]) -> _Seen:
        name = self._names[index]
        try:
            return look(self._load(name), _kind_of(name))
        except DecodeError as error:
            raise DecodeError(f"{self._where}: {shown(name)} {error}") from None


class ImageReader:
    """An image as an open video of one frame, of the kind that its content says, whatever its name does."""

    def __init__(self, data: bytes, *, shown: Shown, where: str) -> None:
        """Look at its head.

        Raises:
            DecodeError: It's empty, or no image; `where` begins the message.
        """
        self._data, self._shown, self._where = data, shown, where
        with self._named(), _opened(data, None) as image:
            width, height = image.size
            if shown == "upright" and _orientation(image) in _ON_A_SIDE:
                width, height = height, width
            codec = str(image.format).lower()
        self.info = VideoInfo(
            num_frames=1, fps=FRAMES_PER_SECOND, pts_s=(0.0,), width=width, height=height, codec=codec
        )

    def read(self, indices: Sequence[int]) -> DecodedFrames:
        """Its pixels for each of the indices, which must be 0.

        Raises:
            DecodeError: It's damaged.
            IndexError: No index, or another one.
        """
        if set(indices) != {0}:
            raise IndexError(f"frames {list(indices)} of an image, which is frame 0")
        with self._named():
            pixels = decode_image(self._data, self._shown)
        return DecodedFrames(frames=np.repeat(pixels[None], len(indices), axis=0), concealed=0)

    def scan(self) -> int:
        """Decode it; returns 0.

        Raises:
            DecodeError: It's damaged.
        """
        self.read([0])
        return 0

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DecodeError as error:
            raise DecodeError(f"{self._where} {error}") from None


def decode_image(data: bytes, shown: Shown) -> Frames:
    """RGB pixels of an image as Pillow reads it, `[h w c]`; of 16-bit grey the high byte, which Pillow would clip.

    What is shown upright comes from people's own cameras and copies, and must be complete; what is shown as stored is
    a published data set's, of which every image counts that Pillow can read.

    Raises:
        DecodeError: It's empty, no image, or damaged so that it shows.
    """
    with _opened(data, None) as image:
        if image.format == "PNG" and shown == "upright":
            _require_sound_png(data)
        if image.mode.startswith("I;16"):
            pixels = np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        else:
            pixels = _rgb(image, _TURNS.get(_orientation(image)) if shown == "upright" else None)
        if image.format == "JPEG" and shown == "upright":
            _require_end(data)
    return pixels


def oddities(data: bytes, name: str) -> tuple[str, ...]:
    """What is unusual about an image that can be read, in words to count: its kind, its colours, its EXIF."""
    found = []
    with warnings.catch_warnings(record=True, action="always") as said, _opened(data, None) as image:
        extension = name.rpartition(".")[2].lower()
        if extension in _EXTENSIONS and image.format != _EXTENSIONS[extension]:
            found.append(f"{image.format} named .{extension}")
        if image.mode != "RGB":
            found.append(_COLOURS.get(image.mode, f"pixels of kind {image.mode}"))
        if (orientation := _orientation(image)) != 1:
            found.append(f"EXIF orientation {orientation}")
    if any("EXIF" in str(warning.message) for warning in said):
        found.append("damaged EXIF")
    return tuple(found)


def _kind_of(name: str) -> Kind:
    """What a frame's name says that it is."""
    return "PNG" if name.lower().endswith(".png") else "JPEG"


def decode_still(data: bytes, kind: Kind) -> Frames:
    """RGB pixels of a picture, `[h w c]`, turned as a JPEG's EXIF orientation says: phones store photos lying down.

    Raises:
        DecodeError: It's empty, of another kind, damaged so that it shows, cut short, or has more than 8 bits a colour.
    """
    if kind == "PNG":
        _require_sound_png(data)
    with _opened(data, kind) as image:
        if image.mode not in _EIGHT_BITS:
            raise DecodeError(f"has pixels of kind {image.mode}; they must have 8 bits a colour")
        pixels = _rgb(image, _TURNS.get(_orientation(image)))
    if kind == "JPEG":
        _require_end(data)
    return pixels


def _rgb(image: Image.Image, turn: Image.Transpose | None) -> Frames:
    opaque = image.convert("RGBA") if "transparency" in image.info else image
    return np.asarray(opaque.convert("RGB") if turn is None else opaque.convert("RGB").transpose(turn))


def _require_end(data: bytes) -> None:
    """Refuse a JPEG whose tail was never written and reads as zeros: zeros are valid codes, and it decodes.

    The two marks can't occur in coded pixels, so that the last of each are those of the image itself.
    """
    if data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN):
        raise DecodeError("is cut short: it has no end mark")


def _still_size(data: bytes, kind: Kind) -> tuple[int, int]:
    """Width and height of the upright picture from its head, pixels.

    Raises:
        DecodeError: It's empty or of another kind.
    """
    with _opened(data, kind) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in _ON_A_SIDE else (width, height)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a JPEG, 1 (upright) where there is none that can be read; a PNG's isn't looked at.

    Pillow would decode a whole PNG to find it, and cameras write none.
    """
    if image.format == "PNG" or "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 (a damaged tag raises several types, and the pixels are sound)
        return 1


def _require_sound_png(data: bytes) -> None:
    """Check the chunks' checksums and that the last one is there: Pillow passes over those of pixels.

    Raises:
        DecodeError: It's damaged or cut short.
    """
    place = _SIGNATURE_BYTES
    while place + _CHUNK_HEAD_BYTES + _CRC_BYTES <= len(data):
        name = data[place + 4 : place + _CHUNK_HEAD_BYTES]
        end = place + _CHUNK_HEAD_BYTES + int.from_bytes(data[place : place + 4])
        if zlib.crc32(memoryview(data)[place + 4 : end]).to_bytes(_CRC_BYTES) != data[end : end + _CRC_BYTES]:
            break
        if name == b"IEND":
            return
        place = end + _CRC_BYTES
    if data.startswith(b"\x89PNG"):
        raise DecodeError("is damaged or cut short: a checksum is wrong, or the end is missing")


@contextmanager
def _opened(data: bytes, kind: Kind | None) -> Iterator[Image.Image]:
    """The picture of a kind, or None: of any that Pillow knows."""
    if not data:
        raise DecodeError("is empty (0 bytes)")
    try:
        with Image.open(BytesIO(data), formats=None if kind is None else [kind]) as image:
            yield image
    except UnidentifiedImageError:
        raise DecodeError("isn't an image" if kind is None else f"isn't a {kind} file") from None
    except DecodeError:
        raise
    except Exception as error:  # noqa: BLE001 (Pillow's parser raises a dozen types at damaged files)
        raise DecodeError(f"can't be decoded as {kind or 'an image'}: {' '.join(str(error).split())}") from None
