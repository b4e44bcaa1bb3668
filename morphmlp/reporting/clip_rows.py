"""Rows of a contact sheet: the clips that training and validation get."""

from collections.abc import Callable, Iterable, Iterator

import torch

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.data.clips.augment import augment_clip
from morphmlp.data.clips.draws import ClipKey, draw_fractions
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainFrames, ViewClips, clip_draws
from morphmlp.data.clips.sampling import Indices, train_indices, view_indices
from morphmlp.data.decoding.protocol import Frames, VideoOpener, VideoReader
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.plan import epoch_order
from morphmlp.errors import DecodeError
from morphmlp.reporting.contact_sheet import SheetRow

_Shown = tuple[Frames, Indices, str]
"""Pixels of a clip, its source frames, and how it was made of the video."""


def training_rows(
    manifest: Manifest,
    videos: VideoOpener,
    *,
    clip: ClipConfig,
    augment: AugmentConfig,
    seed: int,
    epoch: int,
    count: int,
) -> Iterator[SheetRow]:
    """The clips of the first `count` videos of an epoch, as training gets them; one row per repeat."""
    source = TrainFrames(clip=clip, augment=augment)

    def shown(reader: VideoReader, video_id: str) -> Iterator[_Shown]:
        key = ClipKey(seed=seed, epoch=epoch, video_id=video_id)
        frames = torch.from_numpy(source.extract(reader, key).clips[0])
        indices = train_indices(clip, reader.info, draw_fractions(clip.num_frames, key))
        draws = clip_draws(frames, key, clip=clip, augment=augment)
        for repeat, draw in enumerate(draws):
            number = f"clip {repeat + 1} of {len(draws)}: " if len(draws) > 1 else ""
            yield augment_clip(frames, draw, size=clip.crop_size).numpy(), indices, number + draw.describe()

    rows = epoch_order(len(manifest), seed=seed, epoch=epoch)[:count]
    return _rows(manifest, videos, rows.tolist(), clip, shown)


def validation_rows(manifest: Manifest, videos: VideoOpener, *, clip: ClipConfig, count: int) -> Iterator[SheetRow]:
    """The one view of the first `count` videos, as validation gets it."""
    views, size = ViewClips(clip=clip, views=SINGLE_VIEW), clip.crop_size
    words = f"centre clip, short side scaled to {clip.short_edge}, centre crop {size}x{size}"

    def shown(reader: VideoReader, _video_id: str) -> Iterator[_Shown]:
        pixels = views.extract(reader).clips[0]
        yield pixels, view_indices(clip, reader.info, 1)[0], words

    return _rows(manifest, videos, range(min(count, len(manifest))), clip, shown)


def _rows(
    manifest: Manifest,
    videos: VideoOpener,
    rows: Iterable[int],
    clip: ClipConfig,
    shown: Callable[[VideoReader, str], Iterator[_Shown]],
) -> Iterator[SheetRow]:
    """A row for each clip that `shown` makes of a video, or one that says why the video can't be used."""
    for row in rows:
        (cells,) = manifest.table.slice(row, 1).to_pylist()
        video_id, label = cells["video_id"], manifest.class_names[cells["label"]]
        try:
            reader = videos.open(cells["path"], num_frames=cells.get("num_frames"), image=StoredImage.of(cells))
            info = reader.info
            source = f"{info.num_frames} frames {info.width}x{info.height} at {info.fps:.4g} per second, {info.codec}"
            for pixels, indices, words in shown(reader, video_id):
                # Pictures are shown in true colours, whatever order the network takes.
                colours = pixels[..., ::-1] if clip.channel_order == "bgr" else pixels
                frames = tuple(indices.tolist())
                yield SheetRow(video_id=video_id, label=label, clip=colours, indices=frames, source=source, words=words)
        except DecodeError as error:
            words = f"can't be used: {error}"
            yield SheetRow(video_id=video_id, label=label, clip=None, indices=(), source=cells["path"], words=words)
