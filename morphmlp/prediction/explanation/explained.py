"""An explanation of a file: its clips or windows, what the network did with each, and both at any of its frames."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from einops import rearrange, reduce
from torch import Tensor, from_numpy

from morphmlp.data.clips.extract import ViewClips
from morphmlp.data.clips.sampling import Indices
from morphmlp.data.decoding.isolation.isolated import IsolatedReader
from morphmlp.data.decoding.protocol import VideoInfo
from morphmlp.evaluation.video_model import VideoModel, probabilities
from morphmlp.models import MorphMLP
from morphmlp.models.backbone import Backbone
from morphmlp.models.morphfc import FrameMorphFC, SpatialMorphFC
from morphmlp.prediction.explanation.clips import ClipExplanations, branch_names, explain_clips, named_blocks
from morphmlp.prediction.sliding import Sliding, window_clips
from morphmlp.tasks.task import network_input

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is to be explained: a class, at the end of a stage (1-4)."""

    label: int
    name: str
    stage: int


@dataclass(frozen=True, kw_only=True)
class ExplainedClip:
    """What the network did with a clip, or a window, of a file."""

    frames: Values
    """Source frames that it saw, each once, ascending: `[n]`."""
    moments: Values
    """Which of the network's time steps stand for each, `[n t]`: rows that add to 1, linear between steps' centres."""
    reach: float
    """Source frames before the first and behind the last that it stands for, too."""
    maps: Values
    """Evidence for the class, `[crops t h w]`."""
    branch_weights: Mapping[str, Values]
    """By block the weights of its branches, means over channels and crops."""
    time_shares: Mapping[str, Values]
    """By block `[t u]`, means over crops; see `ClipExplanations`."""

    @classmethod
    def of(cls, found: ClipExplanations, *, indices: Indices, reach: float) -> Self:
        """Of one clip's crops, and the source frames that it is made of."""
        steps, count = found.maps.shape[1], len(indices)
        place = np.clip((np.arange(count) + 0.5) * steps / count - 0.5, 0, steps - 1)
        rows = np.maximum(1 - np.abs(place[:, None] - np.arange(steps)), 0)
        frames, which = np.unique(indices, return_inverse=True)
        moments = np.stack([rows[which == number].mean(axis=0) for number in range(len(frames))])
        return cls(
            frames=frames.astype(np.float32),
            moments=moments.astype(np.float32),
            reach=reach,
            maps=found.maps.cpu().numpy(),
            branch_weights={
                name: reduce(weights, "k b c -> k", "mean").cpu().numpy()
                for name, weights in found.branch_weights.items()
            },
            time_shares={
                name: reduce(shares, "b t u -> t u", "mean").cpu().numpy() for name, shares in found.time_shares.items()
            },
        )

    def covers(self, frame: float) -> bool:
        """Whether it says anything of a source frame: one that it saw, or one between those."""
        return bool(self.frames[0] - self.reach <= frame <= self.frames[-1] + self.reach)

    def steps_at(self, frame: float) -> Values:
        """The network's time steps that stand for a source frame, `[t]`: between two that it saw, a mixture."""
        place = float(np.interp(frame, self.frames, np.arange(len(self.frames))))
        below = int(place)
        above = min(below + 1, len(self.frames) - 1)
        mixed: Values = (1 - place + below) * self.moments[below] + (place - below) * self.moments[above]
        return mixed

    def shares_of(self, stage: int) -> Values:
        """The mean over a stage's blocks of `time_shares`."""
        found = [shares for name, shares in self.time_shares.items() if name.startswith(f"{stage}.")]
        mean: Values = np.mean(found, axis=0)
        return mean


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a network did with a file."""

    subject: Subject
    probability: float
    """Of the class, of the whole file."""
    unit: str
    """What the probability is a share of: `" of the pixels"` of a segmented image; nothing of a classified file."""
    info: VideoInfo
    boxes: tuple[tuple[float, float, float, float], ...]
    """Top, left, bottom and right of each crop in the file's frames, pixels."""
    branches: Mapping[str, tuple[str, ...]]
    """Names of the branches by block, of blocks that weigh theirs."""
    clips: tuple[ExplainedClip, ...]

    @cached_property
    def peak(self) -> float:
        """The most evidence in any clip; 0 where nothing speaks for the class."""
        return max(float(clip.maps.max()) for clip in self.clips)

    @property
    def mixing_stages(self) -> list[int]:
        """The stages whose temporal layers were looked at."""
        return sorted({int(name.partition(".")[0]) for name in self.clips[0].time_shares})

    def covering(self, frame: float) -> list[ExplainedClip]:
        """The clips that say something of a source frame."""
        first, last = self._ends
        return [self.clips[place] for place in np.flatnonzero((first <= frame) & (frame <= last))]

    def evidence(self, frame: float) -> Values | None:
        """The map of a source frame, `[crops h w]`, 1 where any clip has most; None where none saw it."""
        clips = self.covering(frame)
        if not clips:
            return None
        total = sum(np.tensordot(clip.maps, clip.steps_at(frame), axes=(1, 0)) for clip in clips)
        shown: Values = np.asarray(total, np.float32) / (len(clips) * (self.peak or 1.0))
        return shown

    @cached_property
    def _ends(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        first = [clip.frames[0] - clip.reach for clip in self.clips]
        last = [clip.frames[-1] + clip.reach for clip in self.clips]
        return np.array(first), np.array(last)


def explain(
    model: VideoModel,
    reader: IsolatedReader,
    windows: Sliding | None,
    subject: Subject,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Explanation:
    """Explain an open video by the test's views, or by windows; `on_progress` gets how many clips are done.

    Raises:
        DecodeError: It can't be used.
    """
    network = model.network
    assert isinstance(network, MorphMLP)
    clips, logits = [], []
    for indices, reach, pixels in _clips(model, reader, windows):
        inputs = network_input(pixels, network, model.device)
        found = explain_clips(network, inputs, stage=subject.stage, label=subject.label)
        clips.append(ExplainedClip.of(found, indices=indices, reach=reach))
        logits.append(found.logits.cpu().numpy())
        on_progress(len(clips))
    extractor = ViewClips(clip=model.config.test_clip if windows is None else windows.clip, views=model.config.test)
    return Explanation(
        subject=subject,
        probability=float(probabilities(np.concatenate(logits))[subject.label]),
        unit="",
        info=reader.info,
        boxes=tuple(extractor.boxes(reader.info)),
        branches=weighed_branches(network, clips[0]),
        clips=tuple(clips),
    )


def _clips(
    model: VideoModel, reader: IsolatedReader, windows: Sliding | None
) -> Iterator[tuple[Indices, float, Tensor]]:
    """Each clip or window: its source frames, how far it stands for others, and its crops, uint8 `[crops t h w c]`."""
    if windows is None:
        views = ViewClips(clip=model.config.test_clip, views=model.config.test)
        pixels = from_numpy(views.extract(reader).clips)
        for indices, crops in zip(
            views.indices(reader.info),
            rearrange(pixels, "(k v) ... -> k v ...", v=model.config.test.num_crops),
            strict=True,
        ):
            yield indices, 0.0, crops
        return
    window, _ = windows.of(reader.info)
    # What an image network says of a frame holds half way to the next one that it sees.
    reach = windows.hop.frames(reader.info.fps) / 2 if windows.clip.num_frames == 1 else 0.0
    for starts, group in window_clips(reader, windows, model.config.test):
        for start, crops in zip(starts, group, strict=True):
            yield window.indices(start), reach, crops


def weighed_branches(network: Backbone, clip: ExplainedClip) -> dict[str, tuple[str, ...]]:
    """Names of the branches by block, of the blocks whose weights were found."""
    layers = {name: block.fc for name, block in named_blocks(network).items() if name in clip.branch_weights}
    return {
        name: branch_names(layer) for name, layer in layers.items() if isinstance(layer, SpatialMorphFC | FrameMorphFC)
    }
