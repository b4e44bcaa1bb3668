"""An explanation over a file's time, drawn once: evidence, weights of branches by block, the mixing of moments.

Time goes from left to right, as long as the file; where no clip saw it, strips are empty.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from morphmlp.config.shapes import NUM_STAGES
from morphmlp.prediction.drawing import COLOURS, DARK, INK, PALE, fitting, font_of_size
from morphmlp.prediction.explanation.explained import Explanation
from morphmlp.prediction.explanation.heat import heat_colours

BRANCH_COLOURS = {"height": COLOURS[0], "width": COLOURS[1], "frame": COLOURS[3], "channel": COLOURS[2]}
_EMPTY = (44, 44, 44)
_Part = tuple[Image.Image, tuple[int, int] | None]
"""A picture, and the first and last of its rows on which time goes."""
_FINEST = 2
"""Pixels of time that share a value."""


class Strips:
    """Rows of pictures over time, as wide as what they stand below."""

    def __init__(self, explanation: Explanation, *, width: int) -> None:
        self._explanation, self._width = explanation, width
        self._font = font_of_size(min(max(round(width / 48), 11), 18))
        self._row = round(1.3 * self._font.size)
        self._left, self._right = round(2.6 * self._font.size), round(7.2 * self._font.size)
        times = np.array(explanation.info.pts_s) - explanation.info.pts_s[0]
        self._length_s = max(float(times[-1]) + 1 / explanation.info.fps, 1e-6)
        columns = np.arange(0, self._columns, _FINEST) + _FINEST / 2
        self._frames = np.interp(columns / self._columns * self._length_s, times, np.arange(len(times)))
        self._ruled: list[tuple[int, int]] = []
        """Rows of pixels on which time goes, which the cursor crosses."""
        self._parts = [part for part in (self._evidence(), self._branches(), self._mixing(), self._moments()) if part]
        self.picture = self._stacked()

    @property
    def _columns(self) -> int:
        return self._width - self._left - self._right

    def draw_cursor(self, draw: ImageDraw.ImageDraw, time_s: float, *, top: int) -> None:
        """Mark a time on strips that stand at a row of a picture."""
        if len(self._explanation.info.pts_s) == 1:
            return
        x = self._left + min(round(time_s / self._length_s * self._columns), self._columns - 1)
        for first, last in self._ruled:
            draw.line([(x, top + first), (x, top + last)], fill=INK, width=2)
        text = f"{time_s:.1f} s"
        draw.text((self._width - draw.textlength(text, self._font) - 4, top + 2), text, INK, self._font)

    def _stacked(self) -> Image.Image:
        height = sum(part.height for part, _ in self._parts) + 4
        height += height % 2
        picture, top = Image.new("RGB", (self._width, height), DARK), 0
        for part, ruled in self._parts:
            picture.paste(part, (0, top))
            if ruled is not None:
                self._ruled.append((top + ruled[0], top + ruled[1]))
            top += part.height
        return picture

    def _part(self, title: str, rows: int, legend: Sequence[tuple[str, tuple[int, ...]]] = ()) -> Image.Image:
        """An empty part of so many rows of pixels below its title."""
        part = Image.new("RGB", (self._width, self._row + rows + 6), DARK)
        draw = ImageDraw.Draw(part)
        draw.text((4, 2), fitting(title, self._font, self._width - 6 * self._font.size), PALE, self._font)
        x, square = draw.textlength(title, self._font) + 1.5 * self._font.size, 0.75 * self._font.size
        for name, colour in legend:
            draw.rectangle([x, 4, x + square, 4 + square], fill=colour)
            draw.text((x + 1.2 * square, 2), name, PALE, self._font)
            x += draw.textlength(name, self._font) + 2.6 * square
        return part

    def _evidence(self) -> _Part:
        subject = self._explanation.subject
        share = f"{100 * self._explanation.probability:.0f} %{self._explanation.unit}"
        title = f"evidence for {subject.name} ({share}), Grad-CAM of stage {subject.stage}"
        part = self._part(title, self._row)
        line = np.full((1, len(self._frames), 3), _EMPTY, np.uint8)
        for place, frame in enumerate(self._frames):
            if (found := self._explanation.evidence(float(frame))) is not None:
                line[0, place] = heat_colours(np.array([found.max()]))[0]
        self._paste_over_time(part, line, top=self._row + 2, height=self._row)
        if len(self._explanation.info.pts_s) > 1:
            text = f"0 - {self._length_s:.1f} s"
            ImageDraw.Draw(part).text((self._left + self._columns + 6, self._row), text, PALE, self._font)
        return part, (self._row + 2, 2 * self._row + 2)

    def _branches(self) -> _Part | None:
        """Of each block its branches as shares of a band, and their means, percent."""
        blocks = self._explanation.branches
        if not blocks:
            return None
        there = {name for names in blocks.values() for name in names}
        legend = [(name, colour) for name, colour in BRANCH_COLOURS.items() if name in there]
        part = self._part("branch weights by block, %", self._row * len(blocks), legend)
        draw, band = ImageDraw.Draw(part), self._row - 2
        for number, (block, names) in enumerate(blocks.items()):
            top = self._row + 2 + number * self._row
            found = np.stack([self._weights(float(frame), block, len(names)) for frame in self._frames], axis=1)
            colours = np.array([BRANCH_COLOURS[name] for name in names], np.uint8)
            ends = np.cumsum(found, axis=0) * band
            which = (np.arange(band)[:, None, None] + 0.5 > ends).sum(axis=1)
            rows = colours[np.minimum(which, len(names) - 1)]
            rows[:, np.isnan(found[0])] = _EMPTY
            self._paste_over_time(part, rows, top=top, height=band)
            draw.text((4, top - 1), block, PALE, self._font)
            means = np.mean([clip.branch_weights[block] for clip in self._explanation.clips], axis=0)
            text = "  ".join(f"{100 * mean:.0f}" for mean in means)
            draw.text((self._left + self._columns + 6, top - 1), text, PALE, self._font)
        return part, (self._row + 2, self._row + 2 + self._row * len(blocks))

    def _weights(self, frame: float, block: str, count: int) -> npt.NDArray[np.float64]:
        clips = self._explanation.covering(frame)
        if not clips:
            return np.full(count, np.nan)
        mean: npt.NDArray[np.float64] = np.mean([clip.branch_weights[block] for clip in clips], axis=0)
        return mean

    def _mixing(self) -> _Part | None:
        """Of each stage how much each moment gives to the temporal layers' results, against an even share."""
        stages = self._explanation.mixing_stages
        if not stages or len(self._explanation.info.pts_s) == 1:
            return None
        height = 3 * self._row
        legend = [(f"stage {stage}", COLOURS[stage - 1]) for stage in stages]
        part = self._part("what each moment gives", height, legend)
        draw, top = ImageDraw.Draw(part), self._row + 2
        lines = {stage: [self._given(float(frame), stage) for frame in self._frames] for stage in stages}
        most = max(2.0, float(np.nanmax([*lines.values(), [0.0] * len(self._frames)])))
        draw.rectangle([self._left, top, self._left + self._columns - 1, top + height], fill=_EMPTY)
        even = top + round(height * (1 - 1 / most))
        for x in range(self._left, self._left + self._columns, 6):
            draw.line([(x, even), (x + 2, even)], fill=PALE)
        for text, y in ((f"{most:.1f}", top - 1), ("0", top + height - self._row)):
            draw.text((4, y), text, PALE, self._font)
        draw.text((self._left + self._columns + 6, even - self._row // 2), "1 = even", PALE, self._font)
        for stage, values in lines.items():
            points = [(self._left + n * _FINEST, top + height * (1 - value / most)) for n, value in enumerate(values)]
            for start, end in pairwise(points):
                if not np.isnan(start[1] + end[1]):
                    draw.line([start, end], fill=COLOURS[stage - 1], width=2)
        return part, (top, top + height)

    def _given(self, frame: float, stage: int) -> float:
        found = []
        for clip in self._explanation.covering(frame):
            shares = clip.shares_of(stage)
            if shares.any():
                found.append(float(clip.steps_at(frame) @ shares.sum(axis=0)))
        return float(np.mean(found)) if found else float("nan")

    def _moments(self) -> _Part | None:
        """Of each stage which of a clip's moments its temporal layers take (columns) for each result (rows)."""
        stages = self._explanation.mixing_stages
        if not stages:
            return None
        side = min(round((self._width - 8) / NUM_STAGES) - round(5.8 * self._font.size), 7 * self._row)
        part = self._part("time mixing in a clip: rows are results, columns where from", side)
        draw, top = ImageDraw.Draw(part), self._row + 2
        for place, stage in enumerate(stages):
            shares = np.mean([clip.shares_of(stage) for clip in self._explanation.clips], axis=0)
            cells = Image.fromarray(heat_colours(shares / max(float(shares.max()), 1e-12)))
            left = 4 + place * (self._width - 8) // NUM_STAGES
            part.paste(cells.resize((side, side), Image.Resampling.NEAREST), (left, top))
            for number, text in enumerate((f"stage {stage}", f"most {100 * shares.max():.0f} %")):
                draw.text((left + side + 5, top + number * self._row), text, PALE, self._font)
        return part, None

    def _paste_over_time(self, part: Image.Image, rows: npt.NDArray[np.uint8], *, top: int, height: int) -> None:
        shown = Image.fromarray(rows).resize((self._columns, height), Image.Resampling.NEAREST)
        part.paste(shown, (self._left, top))
