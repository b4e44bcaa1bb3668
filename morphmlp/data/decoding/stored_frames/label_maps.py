"""Label maps: images that hold the number of a class at every pixel, read without a change of any value.

Annotation tools write them as grey PNGs of 1 to 16 bits, or with a palette, whose colours are for people. Pillow
stretches grey levels of fewer than 8 bits to 0..255; they are brought back here.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.stored_frames.image_bytes import Labels
from morphmlp.data.decoding.stored_frames.stills import ImageReader, require_sound_png
from morphmlp.errors import DecodeError

IGNORED = 255
"""Class index of pixels that have none."""
_COLOURED = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_PNG_BITS, _PNG_KIND, _PNG_GREY = 24, 25, 0  # places in the file, of the head's two bytes, and the kind that means grey
_LESS_ONE = np.array([IGNORED, *range(254), IGNORED], dtype=np.uint8)
"""Class index of what stores class k as k + 1, which is mmsegmentation's `reduce_zero_label`."""


class LabelMapReader(ImageReader):
    """A label map as an open video of one frame `[1 h w 3]`, with the class index in each of the three colours."""

    def __init__(self, data: bytes, *, labels: Labels, where: str) -> None:
        """Look at its head.

        Raises:
            DecodeError: It's empty, or no image; `where` begins the message.
        """
        super().__init__(data, shown="as stored", where=where, by="pillow")
        self._labels = labels

    def _decode_into(self, target: Frames) -> bool:
        assert self._image is not None
        labels = class_indices(_values(self._image, self._data), self._labels)
        for colour in range(3):  # a third of the time that it takes by broadcasting
            target[..., colour] = labels
        return False


def class_indices(values: npt.NDArray[np.uint8], labels: Labels) -> npt.NDArray[np.uint8]:
    """The class index, `IGNORED` for none, of each stored value."""
    return values if labels == "as_stored" else _LESS_ONE.take(values, mode="clip")


def _values(image: Image.Image, data: bytes) -> npt.NDArray[np.uint8]:
    """The values of an open image `[h w]`, those that are stored.

    Raises:
        DecodeError: It has colours, an alpha channel, values above 255, or is compressed with loss.
    """
    if image.format in ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"):
        raise DecodeError(f"is a {image.format}, whose compression changes labels; a label map must be a PNG")
    if image.mode in _COLOURED:
        raise DecodeError(
            f"has colours ({image.mode}) where a label map has one number a pixel; the full ADE20K download stores "
            "such maps, ADEChallengeData2016 is the one with class numbers, and colours of one's own must be made "
            "numbers or a palette first"
        )
    if image.format == "PNG":
        require_sound_png(data)
    values = np.asarray(image)
    if values.dtype == np.bool_ or (values.dtype == np.uint8 and image.mode in ("L", "P")):
        return _unstretched(values.astype(np.uint8), data if image.format == "PNG" else b"")
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise DecodeError(f"has pixels of kind {image.mode} where a label map has one whole number a pixel")
    if values.min() < 0 or values.max() > IGNORED:
        raise DecodeError(f"has labels from {values.min()} to {values.max()}; a label map holds 0 to {IGNORED}")
    return values.astype(np.uint8)


def _unstretched(values: npt.NDArray[np.uint8], png: bytes) -> npt.NDArray[np.uint8]:
    """Grey levels of 2 and 4 bits as they are stored; a palette's numbers are never stretched, single bits neither."""
    if not png or png[_PNG_KIND] != _PNG_GREY or png[_PNG_BITS] not in (2, 4):
        return values
    return values // np.uint8(IGNORED // (2 ** png[_PNG_BITS] - 1))
