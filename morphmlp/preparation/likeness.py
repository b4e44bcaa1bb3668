"""Whether a prepared copy shows what its source does: as many frames, at the same times, in the same order, alike.

The source's side comes from the decode that made the copy, one frame after the other; the copy is read back as a
training reads it. Pixels are compared in a sample of frames, and as means over blocks: what coding and 4:2:0 cost
averages out there, and other levels, another turn or another frame don't.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from morphmlp.data.decoding.protocol import Frames, VideoInfo, VideoReader
from morphmlp.errors import CopyError

_FRAMES = 8
"""Frames of the sample, spread over the video."""
_BLOCKS = 32
"""Blocks along the shorter side, about."""
_SMALLEST_BLOCK = 4
"""Pixels: what 4:2:0 and coding cost averages out in no smaller ones."""
_LUMA = np.array([0.299, 0.587, 0.114])
_COLOURS_LESS_DB = 14.0
"""Sharp edges between saturated colours lose so much more in 4:2:0 than brightness does."""


def least_psnr_db(crf: int) -> float:
    """Peak signal-to-noise ratio of brightness, over block means, that a frame of a copy must reach.

    Good copies of clean videos reach 40 and more, of noise 36; full range taken for limited gives 31. Coarse coding
    is allowed more.
    """
    return 34.0 - max(crf - 22, 0) / 2


def require_same_times(copy: VideoInfo, source_s: Sequence[float]) -> None:
    """Compare frame count and times, counted from the first frame on.

    `source_s` are the presentation times of the source's frames that the copy should hold, ascending, seconds.

    Raises:
        CopyError: They differ by half the shortest time between two frames or more.
    """
    if copy.num_frames != len(source_s):
        raise CopyError(f"the copy has {copy.num_frames} frames, {len(source_s)} of its source were put in")
    shortest = min((later - earlier for earlier, later in pairwise(source_s)), default=1.0)
    off = np.abs((np.array(copy.pts_s) - copy.pts_s[0]) - (np.array(source_s) - source_s[0]))
    worst = int(off.argmax())
    if off[worst] >= shortest / 2:
        raise CopyError(f"frame {worst} of the copy is {off[worst]:.4f} s off its time")


class Sample:
    """Block means of some of a source's frames."""

    def __init__(self, num_frames: int, *, width: int, height: int) -> None:
        """Choose the frames, of so many of the source; the copy has this width and height, pixels."""
        block = max(min(width, height) / _BLOCKS, _SMALLEST_BLOCK)
        self._grid = max(round(width / block), 1), max(round(height / block), 1)
        self._wanted = set(np.linspace(0, num_frames - 1, _FRAMES).round().astype(int).tolist())
        self._means: dict[int, npt.NDArray[np.float64]] = {}

    def needs(self, place: int) -> bool:
        """Whether the frame at this place of the copy is one of the sample."""
        return place in self._wanted

    def take(self, place: int, shown: Frames) -> None:
        """Keep a frame of the source, RGB as it is shown, `[h w c]`."""
        self._means[place] = self._block_means(shown)

    def require_alike(self, copy: VideoReader, *, least_db: float) -> None:
        """Compare the sample with the copy's frames.

        Raises:
            CopyError: One of them is another picture.
        """
        places = sorted(self._means)
        read = copy.read(places)
        if read.concealed:
            raise CopyError(f"{read.concealed} of {len(places)} frames of the copy can't be decoded")
        for place, shown in zip(places, read.frames, strict=True):
            source, found = self._means[place], self._block_means(shown)
            for what, psnr_db, least in (
                ("pixels", _psnr_db(source @ _LUMA, found @ _LUMA), least_db),
                ("colours", _psnr_db(source, found), least_db - _COLOURS_LESS_DB),
            ):
                if psnr_db < least:
                    raise CopyError(
                        f"{what} of frame {place} differ from the source's: PSNR {psnr_db:.1f} dB, "
                        f"at least {least:g} are needed"
                    )

    def _block_means(self, shown: Frames) -> npt.NDArray[np.float64]:
        small = Image.fromarray(np.ascontiguousarray(shown)).resize(self._grid, Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float64)


def _psnr_db(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    error = float(((one - other) ** 2).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
