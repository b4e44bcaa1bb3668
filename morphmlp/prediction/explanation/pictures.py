"""The pictures of an explanation: a frame under its evidence with strips below, or some frames as one sheet."""

import numpy as np
from PIL import Image, ImageDraw

from morphmlp.data.decoding.protocol import Frames
from morphmlp.prediction.drawing import DARK, INK, LEAST_WIDTH, font_for, font_of_size, labels_box, picture_size
from morphmlp.prediction.explanation.explained import Explanation
from morphmlp.prediction.explanation.heat import overlay
from morphmlp.prediction.explanation.strips import Strips
from morphmlp.prediction.predict import Guess

SHEET_FRAMES = 8
_SHEET_COLUMNS, _SHEET_WIDTH, _GAP = 4, 960, 4


class Explainer:
    """Draws the frames of one file."""

    def __init__(self, explanation: Explanation) -> None:
        self._explanation = explanation
        info = explanation.info
        self._picture = picture_size(info.width, info.height)
        self._strips = Strips(explanation, width=max(self._picture[0], LEAST_WIDTH))
        subject = explanation.subject
        words = f"{subject.name}" if explanation.peak else f"{subject.name}: no evidence"
        guess = Guess(label=subject.label, name=words, probability=explanation.probability)
        self._label = labels_box([guess], font_for(self._picture[1]), most_width=self._picture[0])

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height of the frame in what is drawn."""
        return self._picture

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what is drawn."""
        strips = self._strips.picture
        return strips.width, self._picture[1] + strips.height

    def draw(self, frame: Frames, place: float, time_s: float) -> Image.Image:
        """A source frame `[h w 3]`: the one at a place in the file, shown at a time."""
        drawn = Image.new("RGB", self.size, DARK)
        left, top = (drawn.width - self._picture[0]) // 2, self._picture[1]
        drawn.paste(overlay(frame, self._explanation, place, size=self._picture), (left, 0))
        drawn.paste(self._label, (left, 0), self._label)
        drawn.paste(self._strips.picture, (0, top))
        self._strips.draw_cursor(ImageDraw.Draw(drawn), time_s, top=top)
        return drawn


def sheet_places(explanation: Explanation) -> list[int]:
    """Source frames for a sheet: evenly spread over those that any clip says something of."""
    info = explanation.info
    seen = [place for place in range(info.num_frames) if explanation.covering(place)]
    chosen = np.linspace(0, len(seen) - 1, min(SHEET_FRAMES, len(seen))).round().astype(int)
    return [seen[number] for number in chosen]


def sheet(explanation: Explanation, frames: Frames, places: list[int]) -> Image.Image:
    """Some source frames `[n h w 3]`, those at these places, under their evidence, with the strips below."""
    info = explanation.info
    width = (_SHEET_WIDTH - _GAP) // _SHEET_COLUMNS - _GAP
    size = width, max(round(width * info.height / info.width), 1)
    rows = -(-len(places) // _SHEET_COLUMNS)
    strips = Strips(explanation, width=_SHEET_WIDTH)
    top = rows * (size[1] + _GAP) + _GAP
    drawn = Image.new("RGB", (_SHEET_WIDTH, top + strips.picture.height), DARK)
    draw, font = ImageDraw.Draw(drawn), font_of_size(14)
    for number, (place, frame) in enumerate(zip(places, frames, strict=True)):
        row, column = divmod(number, _SHEET_COLUMNS)
        corner = _GAP + column * (size[0] + _GAP), _GAP + row * (size[1] + _GAP)
        drawn.paste(overlay(frame, explanation, place, size=size), corner)
        time_s = info.pts_s[place] - info.pts_s[0]
        draw.text((corner[0] + 4, corner[1] + 2), f"{time_s:.2f} s", INK, font, stroke_width=2, stroke_fill=DARK)
    drawn.paste(strips.picture, (0, top))
    return drawn
