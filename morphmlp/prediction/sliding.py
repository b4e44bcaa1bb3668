"""Windows that slide over a video: which there are, and their clips, a part of the video at a time.

However long a video is, only the frames of some windows are in memory.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from torch import Tensor, from_numpy

from morphmlp.config.clip import ClipConfig
from morphmlp.config.schema import TestConfig
from morphmlp.data.clips.extract import WindowClips
from morphmlp.data.clips.sampling import DenseWindow, dense_window
from morphmlp.data.decoding.protocol import FrameReader, VideoInfo
from morphmlp.errors import ConfigError

_GROUP_BYTES = 256 * 2**20
"""Decoded frames of the windows that are read at a time."""
_MOST_WINDOWS = 64
_WINDOW = re.compile(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?")
_HOP = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(s?)")


@dataclass(frozen=True, kw_only=True)
class Hop:
    """How far it is from one window's start to the next one's."""

    amount: float
    in_seconds: bool
    """Else source frames."""

    @classmethod
    def parsed(cls, text: str) -> Self:
        """`2s` are seconds, `8` frames.

        Raises:
            ConfigError: It's neither, or 0.
        """
        match = _HOP.fullmatch(text.strip())
        if match is None or not (amount := float(match[1])):
            raise ConfigError([f"--hop: {text!r} must be a number of seconds, as in 2s, or of source frames, as in 8"])
        return cls(amount=amount, in_seconds=match[2] == "s")

    def frames(self, fps: float) -> float:
        """In source frames."""
        return self.amount * fps if self.in_seconds else self.amount

    def __str__(self) -> str:
        unit = "s" if self.in_seconds else "frame" if self.amount == 1 else "frames"
        return f"{self.amount:g} {unit}"


@dataclass(frozen=True, kw_only=True)
class Sliding:
    """Windows of one form, one hop apart."""

    clip: ClipConfig
    """How a window's frames are chosen and scaled."""
    hop: Hop
    to_the_end: bool
    """Whether one more window ends with the video where the hops leave frames over."""

    @property
    def in_words(self) -> str:
        """As in `16x4 every 2 s`."""
        return f"{self.clip.num_frames}x{self.clip.frame_stride} every {self.hop}"

    def of(self, info: VideoInfo) -> tuple[DenseWindow, tuple[float, ...]]:
        """The window in a video, and where windows start, source frames."""
        window = dense_window(self.clip, info)
        return window, window.sliding_starts(self.hop.frames(info.fps), to_the_end=self.to_the_end)

    def times(self, info: VideoInfo, starts: Sequence[float]) -> list[tuple[float, float]]:
        """When windows begin and end, seconds from the video's first frame on: by its frames' own times."""
        span = dense_window(self.clip, info).span
        first, places = info.pts_s[0], np.arange(info.num_frames + 1)
        times = np.append(np.array(info.pts_s), info.pts_s[-1] + 1 / info.fps) - first
        begin = np.array(starts)
        ends = np.interp(np.minimum(begin + span, info.num_frames), places, times)
        return list(zip(np.interp(begin, places, times).tolist(), ends.tolist(), strict=True))


def sliding(clip: ClipConfig, *, window: str | None, hop: str | None, to_the_end: bool) -> Sliding:
    """The windows that `--window` and `--hop` ask for, of a network that takes such clips.

    Without a window it is the clip's own, of a network for images a frame; without a hop windows lie one behind the
    other.

    Raises:
        ConfigError: The network can't take such windows, or there is no default.
    """
    if window is None:
        own_stride = 1 if clip.num_frames == 1 else clip.frame_stride
        if own_stride is None:
            raise ConfigError(
                [
                    f"--window: is missing, as in --window {clip.num_frames}x4: this network takes frames from equal "
                    "parts of the whole video, so that its clips have no length of their own"
                ]
            )
        frames, stride = clip.num_frames, own_stride
    else:
        if (match := _WINDOW.fullmatch(window.strip())) is None:
            raise ConfigError([f"--window: {window!r} must be frames x stride, as in {clip.num_frames}x4"])
        frames, stride = int(match[1]), int(match[2] or 1)
    if frames != clip.num_frames:
        raise ConfigError(
            [f"--window: {frames} frames; this network takes {clip.num_frames}, as in {clip.num_frames}x4"]
        )
    sampling = "dense" if clip.sampling == "segments" else clip.sampling
    return Sliding(
        clip=replace(clip, sampling=sampling, frame_stride=stride),
        hop=Hop.parsed(str(frames * stride) if hop is None else hop),
        to_the_end=to_the_end,
    )


def window_clips(
    reader: FrameReader, windows: Sliding, views: TestConfig
) -> Iterator[tuple[tuple[float, ...], Tensor]]:
    """Starts of some windows after another, and their clips, uint8 `[n crops t h w c]`.

    Raises:
        DecodeError: The video can't be used.
    """
    _, starts = windows.of(reader.info)
    frame_bytes = reader.info.height * reader.info.width * 3
    at_once = min(max(_GROUP_BYTES // (frame_bytes * windows.clip.num_frames), 1), _MOST_WINDOWS)
    for first in range(0, len(starts), at_once):
        group = starts[first : first + at_once]
        clips = WindowClips(clip=windows.clip, views=views, starts=group).extract(reader).clips
        yield group, from_numpy(clips).view(len(group), -1, *clips.shape[1:])
