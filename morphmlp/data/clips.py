"""From one file to its clips: decode once, sample, cut.

Runs inside decode tasks; knows neither Ray nor tables.
"""

from dataclasses import dataclass

import numpy as np

from morphmlp.config.schema import AugmentConfig, ClipConfig, TestConfig
from morphmlp.data.augment import crop_and_resize, evaluation_crops, random_resized_box
from morphmlp.data.decoding import Decoder, Frames, VideoInfo
from morphmlp.data.plan import random_generator
from morphmlp.data.sampling import DenseWindow

SINGLE_VIEW = TestConfig(num_clips=1, num_crops=1)
"""Validation: the centre clip and the centre crop."""


@dataclass(frozen=True, kw_only=True)
class CutClips:
    """The clips of one video."""

    clips: Frames
    """`[r t h w c]`, one per repeat or view."""
    concealed: int
    """Decoded frames that stand in for damaged ones."""


@dataclass(frozen=True, kw_only=True)
class TrainClips:
    """Augmented training clips of a video."""

    clip: ClipConfig
    augment: AugmentConfig
    seed: int

    @property
    def clips_per_video(self) -> int:
        """Clips that each video gives."""
        return self.augment.repeats

    def cut(self, decoder: Decoder, *, path: str, video_id: str, epoch: int) -> CutClips:
        """One clip per repeat; the repeats share their frames and differ in crop and flip."""
        reader = decoder.open(path)
        fraction = random_generator(self.seed, epoch, video_id, "start").random()
        window = _window(self.clip, reader.info)
        decoded = reader.read(window.indices(window.train_start(fraction)).tolist())
        clips = [self._augmented(decoded.frames, (epoch, video_id, repeat)) for repeat in range(self.augment.repeats)]
        return CutClips(clips=np.stack(clips), concealed=decoded.concealed)

    def _augmented(self, frames: Frames, key: tuple[int, str, int]) -> Frames:
        rng = random_generator(self.seed, *key)
        height, width = frames.shape[1:3]
        box = random_resized_box(rng, height=height, width=width, scale=self.augment.scale, aspect=self.augment.aspect)
        flip = bool(rng.random() < self.augment.flip)
        return crop_and_resize(frames, box, size=self.clip.crop_size, flip=flip)


@dataclass(frozen=True, kw_only=True)
class ViewClips:
    """The views of a video, the same at every call: clip-major, crop fastest."""

    clip: ClipConfig
    views: TestConfig

    @property
    def clips_per_video(self) -> int:
        """Views that each video gives."""
        return self.views.num_clips * self.views.num_crops

    def cut(self, decoder: Decoder, *, path: str, video_id: str, epoch: int) -> CutClips:
        """All views from one decode."""
        del video_id, epoch  # nothing is drawn
        reader = decoder.open(path)
        window = _window(self.clip, reader.info)
        starts = window.view_starts(self.views.num_clips)
        indices = np.concatenate([window.indices(start) for start in starts])
        decoded = reader.read(indices.tolist())
        crops = evaluation_crops(
            decoded.frames,
            short_edge=self.clip.short_edge,
            crop_size=self.clip.crop_size,
            num_crops=self.views.num_crops,
        )
        length = self.clip.num_frames
        clips = [crop[k * length : (k + 1) * length] for k in range(len(starts)) for crop in crops]
        return CutClips(clips=np.stack(clips), concealed=decoded.concealed)


Cutter = TrainClips | ViewClips


def _window(clip: ClipConfig, info: VideoInfo) -> DenseWindow:
    return DenseWindow(
        num_frames=clip.num_frames, frame_stride=clip.frame_stride, fps=info.fps, video_frames=info.num_frames
    )
