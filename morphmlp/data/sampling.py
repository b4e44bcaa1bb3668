"""Which frames make a clip: pure functions of integers and one random number.

Dense sampling follows the published Kinetics recipe (PySlowFast's decoder as used by MorphMLP): the span
is real-valued and scales with the frame rate, so that 16x4 covers 2.13 s at any rate.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TARGET_FPS = 30.0
"""Frame rate at which `frame_stride` counts."""


@dataclass(frozen=True, kw_only=True)
class DenseWindow:
    """The window that a dense clip covers in one video."""

    num_frames: int
    frame_stride: int
    fps: float
    """Frame rate of the video."""
    video_frames: int
    """Frames of the video."""

    @property
    def span(self) -> float:
        """Source frames that the clip covers."""
        return self.num_frames * self.frame_stride * self.fps / TARGET_FPS

    @property
    def room(self) -> float:
        """Source frames by which the window can move; 0 in a video shorter than the span."""
        return max(self.video_frames - self.span, 0.0)

    def indices(self, start: float) -> npt.NDArray[np.int64]:
        """Truncated `linspace(start, start + span - 1)`, held inside the video.

        A video shorter than the span repeats its last frame. At 30 frames per second and 16x4 the real step
        is 63 / 15 = 4.2 frames, as published.
        """
        wanted = np.linspace(start, start + max(self.span - 1, 0), self.num_frames)
        return np.clip(wanted, 0, self.video_frames - 1).astype(np.int64)

    def train_start(self, fraction: float) -> float:
        """Start of a training clip: `fraction` in [0, 1) of the room."""
        return fraction * self.room

    def view_starts(self, num_clips: int) -> tuple[float, ...]:
        """Starts of the test clips: `k * floor(room / (K - 1))`, and `floor(room / 2)` for a single one.

        The published rule with offset sampling on; the single clip is the centre one, used by validation too.
        """
        if num_clips == 1:
            return (float(math.floor(self.room / 2)),)
        step = math.floor(self.room / (num_clips - 1))
        return tuple(float(k * step) for k in range(num_clips))
