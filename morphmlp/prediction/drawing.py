"""Predictions drawn onto pictures: names with bars in a corner, and below the picture a timeline with a cursor.

What is the same for many frames is drawn once.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from morphmlp.data.decoding.protocol import Frames
from morphmlp.prediction.predict import Guess, Span

LEAST_WIDTH, _MOST_SIDE = 480, 1280
"""Pixels: smaller pictures are enlarged, so that names are legible, larger ones made smaller."""
INK, PALE, DARK = (255, 255, 255), (190, 190, 190), (24, 24, 24)
_SHADE = (0, 0, 0, 160)
_BAR = (86, 180, 233, 190)
_OTHERS = (110, 110, 110)
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167))
"""Of a timeline's most frequent classes; Okabe and Ito's, which colour-blind people can tell apart."""
_NAME_ROWS = 2


def picture_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which a picture is shown; both even, as 4:2:0 needs them."""
    factor = max(LEAST_WIDTH / width, 1.0)
    factor = min(factor, _MOST_SIDE / max(width, height))
    return tuple(max(round(side * factor / 2) * 2, 2) for side in (width, height))  # type: ignore[return-value]  # of two


class Annotator:
    """Draws on the frames of one video."""

    def __init__(self, spans: Sequence[Span], *, width: int, height: int, length_s: float) -> None:
        """`width` and `height` are those of the picture; what is drawn has some rows more where there's a timeline."""
        self._size, self._length_s = (width, height), max(length_s, 1e-6)
        self._font = font_for(height)
        self._spans = spans
        self._middles = np.array([(span.start_s + span.end_s) / 2 for span in spans])
        self._labels: tuple[int, Image.Image] | None = None
        self._colours = _class_colours(spans)
        self._timeline = self._drawn_timeline() if len(spans) > 1 else None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what is drawn."""
        width, height = self._size
        return width, height + (0 if self._timeline is None else self._timeline.height)

    def draw(self, frame: Frames, time_s: float) -> Image.Image:
        """A frame as it is shown at a time, with what is predicted there."""
        drawn = Image.new("RGB", self.size, DARK)
        drawn.paste(Image.fromarray(frame).resize(self._size, Image.Resampling.BILINEAR))
        place = int(np.abs(self._middles - time_s).argmin())
        if self._labels is None or self._labels[0] != place:
            self._labels = place, labels_box(self._spans[place].guesses, self._font, most_width=self._size[0])
        box = self._labels[1]
        drawn.paste(box, (0, 0), box)
        if self._timeline is not None:
            drawn.paste(self._timeline, (0, self._size[1]))
            self._draw_cursor(ImageDraw.Draw(drawn), time_s)
        return drawn

    def _draw_cursor(self, draw: ImageDraw.ImageDraw, time_s: float) -> None:
        x, top = self._x(time_s), self._size[1]
        draw.line([(x, top), (x, top + self._row)], fill=INK, width=3)
        text = f"{time_s:.1f} s"
        left = min(max(x - draw.textlength(text, self._font) / 2, 2), self._size[0] - 60)
        draw.text((left, top + self._row + 2), text, INK, self._font)

    @property
    def _row(self) -> int:
        return round(1.5 * self._font.size)

    def _x(self, time_s: float) -> int:
        return min(round(time_s / self._length_s * self._size[0]), self._size[0] - 1)

    def _drawn_timeline(self) -> Image.Image:
        """A bar of colours by the most probable class, room for the time, and the classes' names."""
        row = self._row
        height = -(-((2 + _NAME_ROWS) * row + 8) // 2) * 2
        strip = Image.new("RGB", (self._size[0], height), DARK)
        draw = ImageDraw.Draw(strip)
        # Of windows that overlap each stands where its middle is the nearest one.
        borders = [0.0, *((self._middles[1:] + self._middles[:-1]) / 2).tolist(), self._length_s]
        for span, start, end in zip(self._spans, borders[:-1], borders[1:], strict=True):
            colour = self._colours.get(span.guesses[0].name, _OTHERS)
            share = 0.35 + 0.65 * span.guesses[0].probability
            faded = tuple(round(share * level + (1 - share) * DARK[0]) for level in colour)
            draw.rectangle([self._x(start), 0, self._x(end), row], fill=faded)
        self._draw_names(draw, top=2 * row + 4)
        return strip

    def _draw_names(self, draw: ImageDraw.ImageDraw, *, top: int) -> None:
        """The classes of the colours, in as many rows as there are."""
        x, last, square = 4.0, top + (_NAME_ROWS - 1) * self._row, 0.8 * self._font.size
        for name, colour in self._colours.items():
            text = fitting(name, self._font, self._size[0] * 0.7)
            width = draw.textlength(text, self._font) + 1.6 * self._font.size
            if x + width > self._size[0]:
                x, top = 4.0, top + self._row
            if top > last:
                return
            draw.rectangle([x, top + 3, x + square, top + 3 + square], fill=colour)
            draw.text((x + 1.1 * self._font.size, top), text, PALE, self._font)
            x += width + 8


def labels_box(
    guesses: Sequence[Guess],
    font: ImageFont.FreeTypeFont,
    *,
    most_width: int,
    colours: Sequence[tuple[int, ...]] = (),
) -> Image.Image:
    """Names with their probabilities as bars, on a shade that a picture shows through; `colours` are their own."""
    rows = [
        (f"{100 * guess.probability:3.0f} %", fitting(guess.name, font, most_width - 6 * font.size))
        for guess in guesses
    ]
    left = 4.2 * font.size
    width = min(round(left + max(font.getlength(name) for _, name in rows) + font.size), most_width)
    row = round(1.35 * font.size)
    box = Image.new("RGBA", (width, row * len(rows) + 6), _SHADE)
    draw = ImageDraw.Draw(box)
    for place, ((percent, name), guess) in enumerate(zip(rows, guesses, strict=True)):
        top = 3 + place * row
        bar = (*colours[place], 255) if colours else _BAR
        draw.rectangle([0, top + row - 4, round(width * guess.probability), top + row - 2], fill=bar)
        if colours:
            draw.rectangle([0, top, 6, top + row - 2], fill=bar)
        draw.text((left - 0.7 * font.size - font.getlength(percent), top), percent, (*INK, 255), font)
        draw.text((left, top), name, (*INK, 255), font)
    return box


def labelled(picture: Frames, guesses: Sequence[Guess]) -> Image.Image:
    """An image with its names."""
    width, height = picture_size(picture.shape[1], picture.shape[0])
    whole = Span(start_s=0.0, end_s=0.0, guesses=tuple(guesses))
    return Annotator([whole], width=width, height=height, length_s=0.0).draw(picture, 0.0)


def _class_colours(spans: Sequence[Span]) -> dict[str, tuple[int, ...]]:
    """A colour for each of the classes that are most often the most probable one."""
    most = Counter(span.guesses[0].name for span in spans).most_common(len(COLOURS))
    return {name: colour for (name, _), colour in zip(most, COLOURS, strict=False)}


def fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, or as much of its beginning as there is room for."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def font_for(height: int) -> ImageFont.FreeTypeFont:
    """A font for a picture of so many rows."""
    return font_of_size(max(round(height / 26), 13))


@cache
def font_of_size(size: int) -> ImageFont.FreeTypeFont:
    """A font for rows of so many pixels.

    DejaVu Sans, which comes with matplotlib and has letters of most alphabets; Pillow's own has Latin ones alone.
    """
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
