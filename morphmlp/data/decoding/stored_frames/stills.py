"""Videos whose frames are stored one by one as JPEG or PNG files: their pixels.

What a folder and an archive of frames have in common. It must not know where the bytes of a frame come from.

Pillow reads every head. The pixels of a JPEG come from simplejpeg where it gives Pillow's, bit for bit, and from Pillow
where it refuses the file.
"""

import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, TypeVar

import numpy as np
import PIL
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from morphmlp.data.decoding.protocol import Box, DecodedFrames, Frames, VideoInfo, beat, cut, frames_of_image
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
_SAME_PIXELS = frozenset(("RGB", "L"))
"""Pillow's modes of JPEGs of which simplejpeg gives the same pixels; in those of CMYK it is a level off."""
_EXTENSIONS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}
_COLOURS = {
    "L": "grey",
    "CMYK": "CMYK",
    "P": "palette",
    "I;16": "16-bit grey",
    "I": "16-bit grey",
    "1": "black or white",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What was decoded."""

    pixels: Frames
    """RGB, `[h w c]`."""
    refused: bool
    """Whether it's a JPEG that the fast decoder refused, so that Pillow read it."""


def image_decoder_version(name: str) -> str:
    """The versions of the libraries behind a decoder of images."""
    return f"Pillow {PIL.__version__}" + (f", simplejpeg {simplejpeg.__version__}" if name == "simplejpeg" else "")


class StillsReader:
    """An open video whose frames are files of their own, of the kind that their names say."""

    def __init__(
        self, names: Sequence[str], load: Callable[[str], bytes], *, where: str, by: str = "simplejpeg"
    ) -> None:
        """Look at the first frame for the size; `load` gives the bytes of a named one, or raises `DecodeError`."""
        self._names, self._load, self._where, self._by = names, load, where, by
        width, height = self._of_frame(0, _still_size)
        self.info = VideoInfo(
            num_frames=len(names),
            fps=FRAMES_PER_SECOND,
            pts_s=tuple(index / FRAMES_PER_SECOND for index in range(len(names))),
            width=width,
            height=height,
            codec=_kind_of(names[0]).lower(),
        )

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The frames at these indices, or what a box cuts out of them; each is decoded once, however often it's wanted.

        Nothing is ever concealed: no frame stands in for another one.

        Raises:
            DecodeError: A wanted frame is unreadable, cut short, or of another size than the first.
            IndexError: No index, or one that the video doesn't have.
        """
        if not len(indices) or min(indices) < 0 or max(indices) >= self.info.num_frames:
            raise IndexError(f"frames {list(indices)} of a video with {self.info.num_frames}")
        frames = np.empty((len(indices), self.info.height, self.info.width, 3), dtype=np.uint8)
        place_of: dict[int, int] = {}
        refused = 0
        for place, index in enumerate(indices):
            if index in place_of:
                frames[place] = frames[place_of[index]]
            else:
                picture = self._of_one_size(index)
                frames[place], place_of[index] = picture.pixels, place
                refused += picture.refused
        return DecodedFrames(frames=cut(frames, box), concealed=0, refused=refused)

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

    def _of_one_size(self, index: int) -> Picture:
        picture = self._of_frame(index, lambda data, kind: decode_still(data, kind, by=self._by))
        height, width = picture.pixels.shape[:2]
        if (width, height) != (self.info.width, self.info.height):
            raise DecodeError(
                f"{self._where}: {self._names[index]} has {width}x{height} pixels, {self._names[0]} has "
                f"{self.info.width}x{self.info.height}; all frames must have one size"
            )
        return picture

    def _of_frame(self, index: int, look: Callable[[bytes, Kind], _Seen]) -> _Seen:
        name = self._names[index]
        try:
            return look(self._load(name), _kind_of(name))
        except DecodeError as error:
            raise DecodeError(f"{self._where}: {shown(name)} {error}") from None


class ImageReader:
    """An image as an open video of one frame, of the kind that its content says, whatever its name does."""

    def __init__(self, data: bytes, *, shown: Shown, where: str, by: str = "simplejpeg") -> None:
        """Look at its head.

        Raises:
            DecodeError: It's empty, or no image; `where` begins the message.
        """
        self._data, self._shown, self._where, self._by = data, shown, where, by
        self._image: Image.Image | None = None
        if by == "simplejpeg" and shown == "as stored" and (size := _size_for_simplejpeg(data)) is not None:
            self.info = image_info(width=size[0], height=size[1], codec="jpeg")
            return
        with self._named(), _in_words(None):
            self._image = _open(data, None)
            width, height = self._image.size
            if shown == "upright" and _orientation(self._image) in _ON_A_SIDE:
                width, height = height, width
            self.info = image_info(width=width, height=height, codec=str(self._image.format).lower())

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """Its pixels, or those in a box, for each of the indices, which must be 0.

        Raises:
            DecodeError: It's damaged.
            IndexError: No index, or another one.
        """
        frame = np.empty((self.info.height, self.info.width, 3), dtype=np.uint8)
        refused = self.read_into(frame)
        return DecodedFrames(frames=cut(frames_of_image(frame, indices), box), concealed=0, refused=int(refused))

    def read_into(self, target: Frames) -> bool:
        """Write its pixels `[h w c]` where they are wanted; returns whether the fast decoder refused it.

        Raises:
            DecodeError: It's damaged.
        """
        with self._named(), _in_words(None):
            return self._decode_into(target)

    def _decode_into(self, target: Frames) -> bool:
        if self._image is None:
            try:
                simplejpeg.decode_jpeg(self._data, buffer=target)
            except ValueError:
                self._image = _open(self._data, None)
            else:
                return False
        picture = _decode_image(self._image, self._data, self._shown, by=self._by, into=target)
        if not np.shares_memory(picture.pixels, target):
            target[...] = picture.pixels
        return picture.refused

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


def _size_for_simplejpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG from its head, a tenth of the time that Pillow takes; None: Pillow must look at it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    is_like_pillow = colours in ("YCbCr", "RGB", "Gray") and height * width <= (Image.MAX_IMAGE_PIXELS or 0)
    return (width, height) if is_like_pillow else None


def image_info(*, width: int, height: int, codec: str) -> VideoInfo:
    """What is to be known of an image as a video."""
    return VideoInfo(num_frames=1, fps=FRAMES_PER_SECOND, pts_s=(0.0,), width=width, height=height, codec=codec)


def _decode_image(image: Image.Image, data: bytes, shown: Shown, *, by: str, into: Frames | None = None) -> Picture:
    """An open image as Pillow reads it; of 16-bit grey the high byte, which Pillow would clip.

    What is shown upright comes from people's own cameras and copies, and must be complete; what is shown as stored is
    a published data set's, of which every image counts that Pillow can read. The pixels may be written to `into`, which
    has their shape.
    """
    if image.format == "PNG" and shown == "upright":
        require_sound_png(data)
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        picture = Picture(pixels=np.repeat(grey[..., None], 3, axis=2), refused=False)
    else:
        turn = _TURNS.get(_orientation(image)) if shown == "upright" else None
        picture = _rgb(image, turn, data, by=by, into=into)
    if image.format == "JPEG" and shown == "upright":
        _require_end(data)
    return picture


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


def decode_still(data: bytes, kind: Kind, *, by: str = "simplejpeg") -> Picture:
    """A picture, turned as a JPEG's EXIF orientation says: phones store photos lying down.

    Raises:
        DecodeError: It's empty, of another kind, damaged so that it shows, cut short, or has more than 8 bits a colour.
    """
    if kind == "PNG":
        require_sound_png(data)
    with _opened(data, kind) as image:
        if image.mode not in _EIGHT_BITS:
            raise DecodeError(f"has pixels of kind {image.mode}; they must have 8 bits a colour")
        picture = _rgb(image, _TURNS.get(_orientation(image)), data, by=by)
    if kind == "JPEG":
        _require_end(data)
    return picture


def _rgb(
    image: Image.Image,
    turn: Image.Transpose | None,
    data: bytes,
    *,
    by: str,
    into: Frames | None = None,
) -> Picture:
    """The pixels of the open image that these bytes are."""
    is_asked = by == "simplejpeg" and image.format == "JPEG"
    if is_asked and image.mode in _SAME_PIXELS:
        try:
            pixels: Frames = simplejpeg.decode_jpeg(data, buffer=into if turn is None else None)
        except ValueError:  # whatever it complains of, Pillow decides whether the image can be used
            pass
        else:
            if turn is not None:
                pixels = np.asarray(Image.fromarray(pixels).transpose(turn))
            return Picture(pixels=pixels, refused=False)
    opaque = (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
    return Picture(pixels=np.asarray(opaque if turn is None else opaque.transpose(turn)), refused=is_asked)


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


def require_sound_png(data: bytes) -> None:
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
    with _in_words(kind), _open(data, kind) as image:
        yield image


def _open(data: bytes, kind: Kind | None) -> Image.Image:
    if not data:
        raise DecodeError("is empty (0 bytes)")
    image = Image.open(BytesIO(data), formats=None if kind is None else [kind])
    if image.format == "EPS":  # Pillow would run Ghostscript on it
        raise DecodeError("is PostScript, which is a program and no picture")
    return image


@contextmanager
def _in_words(kind: Kind | None) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise DecodeError("isn't an image" if kind is None else f"isn't a {kind} file") from None
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (Pillow's parser raises a dozen types at damaged files)
        raise DecodeError(f"can't be decoded as {kind or 'an image'}: {' '.join(str(error).split())}") from None
