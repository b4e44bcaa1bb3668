"""From one video to its clips: decode once, sample, augment.

A `ClipExtractor` is a plain value that travels to decode tasks; a task says which ones it trains and scores on. With
`augment.on: ingest` it's `TrainClips`, which gives finished clips. With `worker` it's `TrainFrames`, which gives the
frames that both ways start from, and `clips_on_device` makes the same clips of them where the network is. `ViewClips`
gives the views of validation and test. Those of images with label maps are in `scenes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.config.schema import TestConfig
from morphmlp.data.clips.augment import augment_clip, evaluation_crops, evaluation_places, scale_down
from morphmlp.data.clips.draws import ClipDraw, ClipKey, draw_clip, draw_fractions
from morphmlp.data.clips.sampling import Indices, dense_window, train_indices, view_indices
from morphmlp.data.decoding.protocol import Box, FrameReader, Frames, VideoInfo, enclosing

PART_BYTES = 2**30
"""Decoded frames of one video that are in memory at a time, RGB: the decoder holds them twice for a moment, and its
codec may hold as much again."""
SINGLE_VIEW = TestConfig(num_clips=1, num_crops=1)
"""Validation: the centre clip and the centre crop."""
ASSUMED_WHOLE_BYTES = 8 * 2**20
"""What a whole image with its label map is taken to have before it's decoded, two million pixels. A larger one is
decoded all the same; only more of them than fit could wait at a time."""

FinishClips = Callable[[Tensor, ClipKey], Tensor]
"""Makes the clips `[r t h w c]` of a video's uint8 frames `[t h w c]`, which must not be changed."""


@dataclass(frozen=True, kw_only=True)
class ExtractedClips:
    """What an extractor gives of one video."""

    clips: Frames
    """`[r t h w c]`, one per repeat or view; from `TrainFrames` one, of any size."""
    concealed: int
    """Decoded frames that stand in for damaged ones."""
    refused: int = 0
    """Decoded JPEGs that only Pillow could read."""
    maps: npt.NDArray[np.uint8] | None = None
    """Class of each pixel, `[r h w]`, 255 where it has none; None from extractors without label maps."""


@dataclass(frozen=True, kw_only=True)
class ClipExtractor(ABC):
    """What decode tasks make of a video, and what the stream of clips has to know of that."""

    clip: ClipConfig

    draws: ClassVar[bool] = True
    """Whether chance decides anything; without it clips are the same whatever the seed and the epoch."""
    own_sizes: ClassVar[bool] = False
    """Whether clips have their videos' sizes instead of `clip.crop_size`; each is then a micro-batch of its own."""
    with_maps: ClassVar[bool] = False
    """Whether it needs the images' label maps, and gives maps with its clips."""

    @property
    def clips_per_video(self) -> int:
        """Clips that each video gives in the end."""
        return 1

    @property
    def video_bytes(self) -> int:
        """What a decode task hands over of each video, bytes."""
        return self.clips_per_video * self.clip.num_frames * self.clip.crop_size**2 * 3

    @property
    def erasing(self) -> AugmentConfig | None:
        """Where random erasing waits for normalisation: its augmentation."""
        return None

    @abstractmethod
    def extract(self, reader: FrameReader, key: ClipKey, labels: FrameReader | None = None) -> ExtractedClips:
        """The clips of an open video; `labels` is the label map of an image, for an extractor with maps.

        Raises:
            DecodeError: The video, or its map, can't be used.
        """

    def finish_on(self, device: torch.device) -> FinishClips | None:
        """The rest of the way to clips, for the process that has the device; None: the clips are finished."""
        return None


@dataclass(frozen=True, kw_only=True)
class TrainFrames(ClipExtractor):
    """What the training clips of a video are made of: its frames, before anything is drawn about a single clip."""

    augment: AugmentConfig

    @property
    def clips_per_video(self) -> int:
        """Clips that each video gives in the end; until then they share one stack of frames."""
        return self.augment.repeats

    @property
    def video_bytes(self) -> int:
        """The width of whole frames isn't known before they are decoded: twice the height is assumed."""
        edge = self.augment.short_edge or self.clip.short_edge
        return self.clip.num_frames * edge * 2 * edge * 3

    @property
    def erasing(self) -> AugmentConfig | None:
        """Where the noise isn't pixels."""
        return _erasing(self.augment)

    def extract(self, reader: FrameReader, key: ClipKey, labels: FrameReader | None = None) -> ExtractedClips:
        """Frames `[1 t h w c]` in the channel order of `clip`, scaled down to `augment.short_edge`.

        Raises:
            DecodeError: The video can't be used.
        """
        (frames,), faults = _read(
            reader,
            _train_indices(self.clip, reader.info, key),
            self.clip,
            lambda frames: [scale_down(frames, self.augment.short_edge, self.clip.interpolation)],
        )
        return _extracted(frames.contiguous()[None], faults)

    def finish_on(self, device: torch.device) -> FinishClips:
        """The rest of the way to clips, for the process that has the device."""
        return partial(clips_on_device, clip=self.clip, augment=self.augment, device=device)


@dataclass(frozen=True, kw_only=True)
class TrainClips(ClipExtractor):
    """Augmented training clips of a video."""

    augment: AugmentConfig

    @property
    def clips_per_video(self) -> int:
        """Clips that each video gives."""
        return self.augment.repeats

    @property
    def erasing(self) -> AugmentConfig | None:
        """Where the noise isn't pixels."""
        return _erasing(self.augment)

    def extract(self, reader: FrameReader, key: ClipKey, labels: FrameReader | None = None) -> ExtractedClips:
        """One clip per repeat; the repeats share their frames and differ in all that is drawn about a clip.

        Raises:
            DecodeError: The video can't be used.
        """
        if (extracted := self._cut_first(reader, key)) is not None:
            return extracted
        source = TrainFrames(clip=self.clip, augment=self.augment)
        frames = source.extract(reader, key)
        clips = source.finish_on(torch.device("cpu"))(_tensor(frames.clips[0]), key)
        return ExtractedClips(clips=clips.numpy(), concealed=frames.concealed, refused=frames.refused)

    def _cut_first(self, reader: FrameReader, key: ClipKey) -> ExtractedClips | None:
        """The same clips from the part of the frames that they show; None where they need whole ones.

        They do where frames are scaled before a box is drawn, for operations of RandAugment on whole frames, and where
        a reader doesn't know their size before it decodes one.
        """
        height, width = reader.info.height, reader.info.width
        is_scaled = self.augment.short_edge is not None and min(height, width) > self.augment.short_edge
        if is_scaled or not min(height, width):
            return None
        draws = _draws(height, width, key, clip=self.clip, augment=self.augment)
        if any(draw.operations and draw.operations_on == "frames" for draw in draws):
            return None
        box = enclosing([draw.box for draw in draws])
        (frames,), faults = _read(
            reader, _train_indices(self.clip, reader.info, key), self.clip, lambda frames: [frames], box
        )
        if frames.shape[1:3] != (box.height, box.width):
            return None  # a decoder that gives other frames than it says
        moved = [replace(draw, box=draw.box.inside(box)) for draw in draws]
        clips = _augmented(frames, moved, size=self.clip.crop_size)
        return ExtractedClips(clips=clips.numpy(), concealed=faults["concealed"], refused=faults["refused"])


class _CropPlaces(TypedDict):
    """By what crops are placed; see `evaluation_places`."""

    short_edge: int
    crop_size: int
    num_crops: int
    single_crop: Literal["centre", "left"]
    centre_rounding: Literal["up", "even"]


@dataclass(frozen=True, kw_only=True)
class ViewClips(ClipExtractor):
    """The views of a video, the same at every call: clip-major, crop fastest."""

    views: TestConfig

    draws: ClassVar[bool] = False

    @property
    def clips_per_video(self) -> int:
        """Views that each video gives."""
        return self.views.num_clips * self.views.num_crops

    def indices(self, info: VideoInfo) -> Indices:
        """Frames of each clip, `[k t]`."""
        return view_indices(self.clip, info, self.views.num_clips)

    def extract(
        self, reader: FrameReader, key: ClipKey | None = None, labels: FrameReader | None = None
    ) -> ExtractedClips:
        """All views from one decode; nothing about them is drawn.

        Raises:
            DecodeError: The video can't be used.
        """
        indices = self.indices(reader.info)
        crops, faults = self._cut_views(reader, indices.flatten().tolist())
        length = self.clip.num_frames
        clips = [crop[k * length : (k + 1) * length] for k in range(len(indices)) for crop in crops]
        return _extracted(torch.stack(clips), faults)

    def boxes(self, info: VideoInfo) -> list[tuple[float, float, float, float]]:
        """Top, left, bottom and right of each crop in the video's frames, pixels."""
        size = self.clip.crop_size
        (height, width), corners = evaluation_places(info.height, info.width, **self._places())
        rows, columns = info.height / height, info.width / width
        return [(top * rows, left * columns, (top + size) * rows, (left + size) * columns) for top, left in corners]

    def _cut_views(self, reader: FrameReader, indices: Sequence[int]) -> tuple[list[Tensor], dict[str, int]]:
        """The crops of frames, and how many of these are concealed and refused."""
        height, width, side = reader.info.height, reader.info.width, self.clip.crop_size
        if not min(height, width):
            return _read(reader, indices, self.clip, self._crops)
        size, corners = evaluation_places(height, width, **self._places())
        if size != (height, width):
            return _read(reader, indices, self.clip, self._crops)
        # Nothing is scaled: no more of the frames is needed than the crops show.
        box = enclosing([Box(top=top, left=left, height=side, width=side) for top, left in corners])
        (frames,), faults = _read(reader, indices, self.clip, lambda frames: [frames], box)
        if frames.shape[1:3] != (box.height, box.width):  # a decoder that gives other frames than it says
            return _read(reader, indices, self.clip, self._crops)
        inside = [(top - box.top, left - box.left) for top, left in corners]
        return [frames[:, top : top + side, left : left + side] for top, left in inside], faults

    def _crops(self, frames: Tensor) -> list[Tensor]:
        return evaluation_crops(frames, interpolation=self.clip.interpolation, **self._places())

    def _places(self) -> _CropPlaces:
        return {
            "short_edge": self.clip.short_edge,
            "crop_size": self.clip.crop_size,
            "num_crops": self.views.num_crops,
            "single_crop": self.views.single_crop,
            "centre_rounding": self.clip.centre_rounding,
        }


@dataclass(frozen=True, kw_only=True)
class WindowClips(ViewClips):
    """The views of some windows of a video, as `ViewClips` makes those of its clips."""

    starts: tuple[float, ...]
    """Source frames at which the windows begin; of two that overlap the frames are decoded once."""

    @property
    def clips_per_video(self) -> int:
        """Views of all windows."""
        return len(self.starts) * self.views.num_crops

    def indices(self, info: VideoInfo) -> Indices:
        """Frames of each window, `[k t]`."""
        window = dense_window(self.clip, info)
        return np.stack([window.indices(start) for start in self.starts])

    def extract(
        self, reader: FrameReader, key: ClipKey | None = None, labels: FrameReader | None = None
    ) -> ExtractedClips:
        """All views of the windows, window-major, from one decode.

        Raises:
            DecodeError: The video can't be used.
        """
        # What overlapping windows share is scaled once, too.
        wanted, places = np.unique(self.indices(reader.info), return_inverse=True)
        crops, faults = self._cut_views(reader, wanted.tolist())
        clips = [crop[torch.from_numpy(window)] for window in places for crop in crops]
        return _extracted(torch.stack(clips), faults)


def _erasing(augment: AugmentConfig) -> AugmentConfig | None:
    return augment if augment.erase and augment.erase_on == "normalised" else None


def train_extractor(clip: ClipConfig, augment: AugmentConfig) -> TrainClips | TrainFrames:
    """What decode tasks extract from a training video: finished clips, or frames where the worker augments."""
    return TrainFrames(clip=clip, augment=augment) if augment.on == "worker" else TrainClips(clip=clip, augment=augment)


def clips_on_device(
    frames: UInt8[Tensor, "t h w c"], key: ClipKey, *, clip: ClipConfig, augment: AugmentConfig, device: torch.device
) -> UInt8[Tensor, "r t h w c"]:
    """The augmented clips of a video's frames, one per repeat.

    `frames` come from `TrainFrames`; they aren't changed and may be read-only. The clips are made and stay on
    `device`. All draws are the same on any; pixels are the same on CPUs, and on a GPU up to the rounding of its
    resizing and warping.
    """
    source = frames.to(device)
    return _augmented(source, clip_draws(source, key, clip=clip, augment=augment), size=clip.crop_size)


def clip_draws(
    frames: UInt8[Tensor, "t h w c"], key: ClipKey, *, clip: ClipConfig, augment: AugmentConfig
) -> tuple[ClipDraw, ...]:
    """What chance decides about each clip of these frames, one per repeat."""
    height, width = frames.shape[1:3]
    return _draws(height, width, key, clip=clip, augment=augment)


def _draws(height: int, width: int, key: ClipKey, *, clip: ClipConfig, augment: AugmentConfig) -> tuple[ClipDraw, ...]:
    return tuple(
        draw_clip(augment, key, repeat=repeat, height=height, width=width, crop_size=clip.crop_size)
        for repeat in range(augment.repeats)
    )


def _augmented(frames: Tensor, draws: Sequence[ClipDraw], *, size: int) -> Tensor:
    clips = [augment_clip(frames, draw, size=size) for draw in draws]
    return clips[0][None] if len(clips) == 1 else torch.stack(clips)


def _train_indices(clip: ClipConfig, info: VideoInfo, key: ClipKey) -> list[int]:
    if info.num_frames == 1:  # an image: nothing is drawn about its only frame
        return [0] * clip.num_frames
    indices: list[int] = train_indices(clip, info, draw_fractions(clip.num_frames, key)).tolist()
    return indices


def _read(
    reader: FrameReader,
    indices: Sequence[int],
    clip: ClipConfig,
    made_of: Callable[[Tensor], list[Tensor]],
    box: Box | None = None,
) -> tuple[list[Tensor], dict[str, int]]:
    """What is made of the frames at these indices, and how many of those are concealed and refused, by name.

    Large frames are read and made smaller a part at a time. The result is the same: what is made of a frame doesn't
    depend on its neighbours.

    `made_of` gives stacks of one picture for each of the frames `[t h w c]` that it gets, or of what a box cuts out of
    them.
    """
    frame_bytes = reader.info.height * reader.info.width * 3
    if len(indices) * frame_bytes <= PART_BYTES:
        return _read_part(reader, indices, clip, made_of, box)
    # Each frame once, ascending: a decoder that can't jump reads on from where the last part ended.
    wanted = sorted(set(indices))
    size = max(PART_BYTES // frame_bytes, 1)
    parts = [
        _read_part(reader, wanted[start : start + size], clip, made_of, box) for start in range(0, len(wanted), size)
    ]
    places = torch.tensor([wanted.index(index) for index in indices])
    made = [torch.cat(stacks)[places] for stacks in zip(*(stacks for stacks, _ in parts), strict=True)]
    return made, {name: sum(faults[name] for _, faults in parts) for name in parts[0][1]}


def _read_part(
    reader: FrameReader,
    indices: Sequence[int],
    clip: ClipConfig,
    made_of: Callable[[Tensor], list[Tensor]],
    box: Box | None,
) -> tuple[list[Tensor], dict[str, int]]:
    decoded = reader.read(indices) if box is None else reader.read(indices, box)
    frames = _tensor(decoded.frames)
    # Decoders give RGB; the released Something-Something networks saw BGR.
    made = made_of(frames.flip(-1) if clip.channel_order == "bgr" else frames)
    return made, {"concealed": decoded.concealed, "refused": decoded.refused}


def _extracted(clips: Tensor, faults: dict[str, int]) -> ExtractedClips:
    return ExtractedClips(clips=clips.numpy(), concealed=faults["concealed"], refused=faults["refused"])


def _tensor(frames: Frames) -> Tensor:
    """A tensor of frames, on their own memory unless that is read-only, which torch doesn't know."""
    return torch.from_numpy(frames if frames.flags.writeable else frames.copy())
