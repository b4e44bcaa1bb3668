"""Which frames make a clip: pure functions of integers and fractions in [0, 1).

Three named policies, all from the published code (MTLab/MorphMLP, which builds on PySlowFast):

- `dense`: one window, Kinetics. Its span is real-valued and scales with the frame rate, so that 16x4 covers 2.13 s at
  any rate (`datasets/decoder.py`).
- `dense_decord`: the same in the video's own frames, whatever their rate, as with the published decord backend.
- `segments`: one frame from each of equal parts, Something-Something (`datasets/sth.py`; counted from 0 here).

What holds for all: a clip has exactly `num_frames` indices, inside the video, never running backwards. A short video
repeats frames, and a video of one frame is that frame. Frames are counted, not timed: where the rate varies, `dense`
takes the mean rate for its span and then even steps of frames, as published, and the other two never look at the rate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from morphmlp.config.clip import ClipConfig
from morphmlp.data.decoding.protocol import VideoInfo

Indices = npt.NDArray[np.int64]

TARGET_FPS = 30.0
"""Frame rate at which `frame_stride` counts."""


def train_indices(clip: ClipConfig, info: VideoInfo, fractions: Sequence[float] | npt.NDArray[np.float64]) -> Indices:
    """Frames of a training clip, `[t]`.

    Of the `num_frames` fractions in [0, 1), `segments` places each frame by its own, the dense policies their window
    by the first.
    """
    window = _window(clip, info)
    if isinstance(window, Segments):
        return window.train_indices(fractions)
    return window.indices(window.train_start(fractions[0]))


def view_indices(clip: ClipConfig, info: VideoInfo, num_clips: int) -> Indices:
    """Frames of the test clips, `[k t]`; nothing is drawn. A single one is the centre clip that validation scores."""
    window = _window(clip, info)
    if isinstance(window, Segments):
        return np.stack([window.view_indices(k, num_clips) for k in range(num_clips)])
    return np.stack([window.indices(start) for start in window.view_starts(num_clips)])


@dataclass(frozen=True, kw_only=True)
class DenseWindow:
    """The window that a dense clip covers in one video."""

    num_frames: int
    frame_stride: int
    fps: float
    """Frame rate of the video; `TARGET_FPS` where the stride counts the video's own frames."""
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

    def indices(self, start: float) -> Indices:
        """Truncated `linspace(start, start + span - 1)`, held inside the video.

        A video shorter than the span repeats its last frame. At 30 frames per second and 16x4 the real step
        is 63 / 15 = 4.2 frames, as published.
        """
        wanted = np.linspace(start, start + max(self.span - 1, 0), self.num_frames)
        return np.clip(wanted, 0, self.video_frames - 1).astype(np.int64)

    def sliding_starts(self, hop: float, *, to_the_end: bool = False) -> tuple[float, ...]:
        """Starts of windows `hop` source frames apart that lie inside the video, the first one at 0.

        `to_the_end` adds one that ends with the video where frames are left over.
        """
        starts = [number * hop for number in range(math.floor(self.room / hop + 1e-9) + 1)]
        if to_the_end and self.room - starts[-1] >= 1:
            starts.append(self.room)
        return tuple(starts)

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


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The equal parts of a video, each of which gives one frame.

    Part i of N runs from `round(seg * i)` to `round(seg * (i + 1))`, both included, with `seg = (frames - 1) / N` and
    halves rounded to even numbers. Neighbours share their border, so that a short video repeats frames.
    """

    num_frames: int
    """Frames of the clip, N."""
    video_frames: int
    """Frames of the video."""

    @property
    def length(self) -> float:
        """`seg`: frames from one part's start to the next one's."""
        return (self.video_frames - 1) / self.num_frames

    @property
    def borders(self) -> Indices:
        """First frame of each part, and last frame of the last, `[t + 1]`."""
        return np.round(self.length * np.arange(self.num_frames + 1)).astype(np.int64)

    def train_indices(self, fractions: Sequence[float] | npt.NDArray[np.float64]) -> Indices:
        """One frame of each part, all frames of a part equally likely for a `fraction` that is uniform in [0, 1)."""
        first, last = self.borders[:-1], self.borders[1:]
        steps = np.floor(np.asarray(fractions) * (last - first + 1)).astype(np.int64)
        # The product of a fraction next to 1 may be rounded up to the whole.
        indices: Indices = np.minimum(first + steps, last)
        return indices

    def view_indices(self, view: int, num_clips: int) -> Indices:
        """Frames of test clip `view` of `num_clips`: `seg * (view + 1) / (num_clips + 1)` into each part, truncated."""
        return self.borders[:-1] + int(self.length / (num_clips + 1) * (view + 1))


def dense_window(clip: ClipConfig, info: VideoInfo) -> DenseWindow:
    """The window of a dense policy.

    Raises:
        ValueError: The policy is `segments`, whose clips are as long as the video.
    """
    if clip.frame_stride is None:
        raise ValueError("a clip of segments has no window; its frames come from the whole video")
    return DenseWindow(
        num_frames=clip.num_frames,
        frame_stride=clip.frame_stride,
        fps=info.fps if clip.sampling == "dense" else TARGET_FPS,
        video_frames=info.num_frames,
    )


def _window(clip: ClipConfig, info: VideoInfo) -> DenseWindow | Segments:
    if clip.frame_stride is None:  # the schema has made sure that this is `segments`
        return Segments(num_frames=clip.num_frames, video_frames=info.num_frames)
    return dense_window(clip, info)
