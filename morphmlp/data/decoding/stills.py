"""Videos whose frames are stored one by one as JPEG files: their names, their order, their pixels.

What a folder and an archive of frames have in common. It must not know where the bytes of a frame come from.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from morphmlp.data.decoding.protocol import DecodedFrames, Frames, VideoInfo
from morphmlp.errors import DecodeError

FRAMES_PER_SECOND = 30.0
"""The rate at which frame strides count. Stored frames carry no times: each counts as one frame at this rate, whatever
the rate at which they were extracted (Something-Something V1 comes at 12 a second and is used as it is)."""

_FORMS = {
    "00001.jpg": re.compile(r"(\d{5})\.jpg"),
    "000001.jpg": re.compile(r"(\d{6})\.jpg"),
    "img_00001.jpg": re.compile(r"img_(\d{5})\.jpg"),
}
_Seen = TypeVar("_Seen")
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def ordered_names(names: Iterable[str], *, where: str, num_frames: int | None = None) -> tuple[str, ...]:
    """File names of the frames, first to last.

    Hidden files (with a leading dot) are passed over; every other name must be a frame's.

    Args:
        names: The names, in any order.
        where: Folder or archive, for the messages.
        num_frames: Frames that the list promises; those beyond it are left out. None: all are used.

    Raises:
        DecodeError: No frames, an unknown name, two ways of naming, a gap, or fewer frames than promised.
    """
    found = [name for name in names if not name.startswith(".")]
    if not found:
        raise DecodeError(f"{where} holds no frames; they must be named as {' or '.join(_FORMS)}, from 1 on")
    numbers: dict[str, dict[int, str]] = {form: {} for form in _FORMS}
    for name, times in Counter(found).items():
        form, number = _form_and_number(name, where)
        if times > 1:
            raise DecodeError(f"{where} holds {name} {times} times")
        numbers[form][number] = name
    used = [form for form in _FORMS if numbers[form]]
    if len(used) > 1:
        raise DecodeError(f"{where} holds frames named as {' and as '.join(used)}; all must be named in one way")
    frames = numbers[used[0]]
    last = max(frames)
    if min(frames) == 0 or len(frames) < last:
        missing = next(number for number in range(1, last + 1) if number not in frames) if min(frames) else 0
        reason = f"frame {missing} is missing" if missing else "frames are numbered from 0"
        raise DecodeError(f"{where}: {reason}; they must go from 1 to the last ({last}) without a gap")
    if num_frames is not None and last < num_frames:
        raise DecodeError(f"{where} holds {last} frames, the list promises {num_frames}")
    return tuple(frames[number] for number in range(1, (num_frames or last) + 1))


class StillsReader:
    """An open video whose frames are JPEG files."""

    def __init__(self, names: Sequence[str], load: Callable[[str], bytes], *, where: str) -> None:
        """Look at the first frame for the size.

        Args:
            names: Of the frames, first to last.
            load: Gives the bytes of a named frame; may raise `DecodeError`.
            where: Folder or archive, for the messages.
        """
        self._names, self._load, self._where = names, load, where
        width, height = self._of_frame(0, jpeg_size)
        self.info = VideoInfo(
            num_frames=len(names),
            fps=FRAMES_PER_SECOND,
            pts_s=tuple(index / FRAMES_PER_SECOND for index in range(len(names))),
            width=width,
            height=height,
            codec="jpeg",
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
        if len(reasons) == self.info.num_frames:
            raise reasons[0]
        return len(reasons)

    def _of_one_size(self, index: int) -> Frames:
        frame = self._of_frame(index, decode_jpeg)
        height, width = frame.shape[:2]
        if (width, height) != (self.info.width, self.info.height):
            raise DecodeError(
                f"{self._where}: {self._names[index]} has {width}x{height} pixels, {self._names[0]} has "
                f"{self.info.width}x{self.info.height}; all frames must have one size"
            )
        return frame

    def _of_frame(self, index: int, look: Callable[[bytes], _Seen]) -> _Seen:
        name = self._names[index]
        try:
            return look(self._load(name))
        except DecodeError as error:
            raise DecodeError(f"{self._where}: {name} {error}") from None


def decode_jpeg(data: bytes) -> Frames:
    """RGB pixels of a JPEG file, `[h w c]`. An orientation tag isn't looked at: tools that cut videos write none.

    Raises:
        DecodeError: It's empty, not a JPEG, damaged so that it shows, or cut short.
    """
    with _opened(data) as image:
        pixels = np.asarray(image.convert("RGB"))
    # A file whose tail was never written and reads as zeros decodes without an error: zeros are valid codes. The two
    # marks can't occur in coded pixels, so that the last of each are those of the image itself.
    if data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN):
        raise DecodeError("is cut short: it has no end mark")
    return pixels


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from a JPEG file's head, pixels.

    Raises:
        DecodeError: It's empty or not a JPEG.
    """
    with _opened(data) as image:
        return image.size


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    if not data:
        raise DecodeError("is empty (0 bytes)")
    try:
        with Image.open(BytesIO(data), formats=["JPEG"]) as image:
            yield image
    except UnidentifiedImageError:
        raise DecodeError("isn't a JPEG file") from None
    except Exception as error:  # noqa: BLE001 (Pillow's parser raises a dozen types at damaged files)
        raise DecodeError(f"can't be decoded as JPEG: {' '.join(str(error).split())}") from None


def _form_and_number(name: str, where: str) -> tuple[str, int]:
    for form, pattern in _FORMS.items():
        if match := pattern.fullmatch(name):
            return form, int(match[1])
    raise DecodeError(f"{where} holds {name}, which isn't a frame; they must be named as {' or '.join(_FORMS)}")
