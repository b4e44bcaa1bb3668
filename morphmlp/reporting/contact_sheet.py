"""A picture of what training or validation really sees: clips in rows, augmented, with their draws in words.

Drawn with matplotlib's objects, without pyplot's global state.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.data.clips.augment import augment_clip
from morphmlp.data.clips.draws import ClipKey, draw_fractions
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainFrames, ViewClips, clip_draws
from morphmlp.data.clips.sampling import Indices, train_indices, view_indices
from morphmlp.data.decoding.protocol import Frames, VideoInfo, VideoOpener
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.plan import epoch_order
from morphmlp.errors import DecodeError

_DPI = 120
_ROW_INCHES = 1.3
_HEAD_INCHES = 0.5
_TEXT_INCHES = 4.1
_GAP = 0.03
"""White between two pictures, as a share of their side."""
_LINE_CHARACTERS = 64
_BLUE, _GREY, _RED, _RULE = "#2a6f97", "#6c757d", "#c8553d", "#d0d0d0"


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One clip of a contact sheet."""

    video_id: str
    label: str
    """Name of the class."""
    clip: Frames | None
    """RGB, `[t h w c]`; None where the video can't be used."""
    indices: tuple[int, ...]
    """Source frame of each frame, counted from 0."""
    source: str
    """What the video is."""
    words: str
    """How the clip was made of it, or why it couldn't be."""


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
    for video in _take(manifest, epoch_order(len(manifest), seed=seed, epoch=epoch)[:count]):
        key = ClipKey(seed=seed, epoch=epoch, video_id=video.video_id)
        try:
            reader = videos.open(video.path, num_frames=video.num_frames)
            extracted = source.extract(reader, key)
        except DecodeError as error:
            yield _broken_row(video, error)
            continue
        indices = train_indices(clip, reader.info, draw_fractions(clip.num_frames, key))
        frames = torch.from_numpy(extracted.clips[0])
        draws = clip_draws(frames, key, clip=clip, augment=augment)
        for repeat, draw in enumerate(draws):
            pixels = augment_clip(frames, draw, size=clip.crop_size).numpy()
            number = f"clip {repeat + 1} of {len(draws)}: " if len(draws) > 1 else ""
            yield _row(clip, video, reader.info, pixels=pixels, indices=indices, words=number + draw.describe())


def validation_rows(manifest: Manifest, videos: VideoOpener, *, clip: ClipConfig, count: int) -> Iterator[SheetRow]:
    """The one view of the first `count` videos, as validation gets it."""
    views = ViewClips(clip=clip, views=SINGLE_VIEW)
    for video in _take(manifest, np.arange(min(count, len(manifest)), dtype=np.int64)):
        try:
            reader = videos.open(video.path, num_frames=video.num_frames)
            extracted = views.extract(reader)
        except DecodeError as error:
            yield _broken_row(video, error)
            continue
        size = clip.crop_size
        words = f"centre clip, short side scaled to {clip.short_edge}, centre crop {size}x{size}"
        (indices,) = view_indices(clip, reader.info, 1)
        yield _row(clip, video, reader.info, pixels=extracted.clips[0], indices=indices, words=words)


def contact_sheet(rows: Sequence[SheetRow], *, title: str, pictures: int = 8) -> Figure:
    """Draw clips in rows: words on the left, `pictures` frames evenly picked from first to last on the right.

    Args:
        rows: Clips of one size.
        title: Headline.
        pictures: Frames of each clip that are shown, all where a clip has fewer.
    """
    width = _TEXT_INCHES + _ROW_INCHES * pictures + 0.1
    height = _HEAD_INCHES + _ROW_INCHES * max(len(rows), 1)
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.text(0.1 / width, 1 - 0.3 / height, title, fontsize=12, fontweight="bold", va="center")
    note = "number in a picture: frame of the video, from 0"
    figure.text(1 - 0.1 / width, 1 - 0.3 / height, note, fontsize=8, color=_GREY, va="center", ha="right")
    for place, row in enumerate(rows):
        top = height - _HEAD_INCHES - place * _ROW_INCHES
        again = place > 0 and rows[place - 1].video_id == row.video_id
        if not again:
            figure.add_artist(
                Line2D((0.1 / width, 1 - 0.1 / width), (top / height, top / height), color=_RULE, linewidth=0.8)
            )
        _write_words(figure, row, top=top, again=again)
        if row.clip is not None:
            _place_pictures(figure, row, row.clip, top=top, pictures=pictures)
    return figure


@dataclass(frozen=True, kw_only=True)
class _Video:
    path: str
    video_id: str
    label: str
    num_frames: int | None


def _take(manifest: Manifest, rows: Indices) -> Iterator[_Video]:
    for row in rows.tolist():
        (cells,) = manifest.table.slice(row, 1).to_pylist()
        yield _Video(
            path=cells["path"],
            video_id=cells["video_id"],
            label=manifest.class_names[cells["label"]],
            num_frames=cells.get("num_frames"),
        )


def _row(clip: ClipConfig, video: _Video, info: VideoInfo, *, pixels: Frames, indices: Indices, words: str) -> SheetRow:
    # Pictures are shown in true colours, whatever order the network takes.
    shown = pixels[..., ::-1] if clip.channel_order == "bgr" else pixels
    return SheetRow(
        video_id=video.video_id,
        label=video.label,
        clip=shown,
        indices=tuple(indices.tolist()),
        source=f"{info.num_frames} frames {info.width}x{info.height} at {info.fps:.4g} per second, {info.codec}",
        words=words,
    )


def _broken_row(video: _Video, error: DecodeError) -> SheetRow:
    return SheetRow(
        video_id=video.video_id,
        label=video.label,
        clip=None,
        indices=(),
        source=video.path,
        words=f"can't be used: {error}",
    )


def _write_words(figure: Figure, row: SheetRow, *, top: float, again: bool) -> None:
    width, height = figure.get_size_inches()
    left, line = 0.1 / width, 0.17 / height
    place = top / height - 0.17 / height
    if not again:
        head = textwrap.shorten(row.label, _LINE_CHARACTERS - 8, placeholder="…")
        figure.text(left, place, head, fontsize=10, fontweight="bold", color=_BLUE, va="center")
        figure.text(left, place - line, row.video_id, fontsize=8, va="center", family="monospace")
        figure.text(left, place - 2 * line, row.source, fontsize=8, color=_GREY, va="center")
    words = textwrap.fill(row.words, _LINE_CHARACTERS, max_lines=4 if not again else 7, placeholder=" …")
    start = place - (2.6 * line if not again else -0.5 * line)
    color = "black" if row.clip is not None else _RED
    figure.text(left, start, words, fontsize=8, color=color, va="top", linespacing=1.25)


def _place_pictures(figure: Figure, row: SheetRow, clip: Frames, *, top: float, pictures: int) -> None:
    width, height = figure.get_size_inches()
    side = _ROW_INCHES * (1 - 2 * _GAP)
    picked = np.unique(np.linspace(0, len(clip) - 1, min(pictures, len(clip))).round().astype(int))
    for column, frame in enumerate(picked):
        left = _TEXT_INCHES + column * _ROW_INCHES + _GAP * _ROW_INCHES
        bottom = top - _ROW_INCHES + _GAP * _ROW_INCHES
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        axes.imshow(clip[frame], interpolation="antialiased")
        axes.axis("off")
        axes.text(
            0.03,
            0.04,
            str(row.indices[frame]),
            transform=axes.transAxes,
            fontsize=7,
            color="white",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "black", "alpha": 0.55, "linewidth": 0},
        )
