"""A picture of what training or validation really sees: clips in rows, augmented, with their draws in words.

Drawn with matplotlib's objects, without pyplot's global state.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from morphmlp.data.decoding.protocol import Frames

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


def contact_sheet(rows: Sequence[SheetRow], *, title: str, pictures: int = 8) -> Figure:
    """Draw clips in rows: words on the left, `pictures` frames evenly picked from first to last on the right."""
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
            ends = (0.1 / width, 1 - 0.1 / width)
            figure.add_artist(Line2D(ends, (top / height, top / height), color=_RULE, linewidth=0.8))
        _write_words(figure, row, top=top, again=again)
        if row.clip is not None:
            _place_pictures(figure, row, row.clip, top=top, pictures=pictures)
    return figure


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
        box = {"boxstyle": "square,pad=0.15", "facecolor": "black", "alpha": 0.55, "linewidth": 0}
        number = str(row.indices[frame])
        axes.text(0.03, 0.04, number, transform=axes.transAxes, fontsize=7, color="white", bbox=box)
