"""What a segmentation test looks like: pictures of images, truth, prediction and errors, and each class's scores.

Drawn with matplotlib's objects, without pyplot's global state. Classes have one fixed sequence of colours, of which the
first ones differ most: class 3 has the same colour in every figure and every data set.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from morphmlp.data.decoding.protocol import Frames, VideoOpener
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.errors import DecodeError
from morphmlp.tasks.segmentation.confusion import (
    LabelMap,
    areas_of,
    class_scores,
    prediction_of,
    scores_of_areas,
    table_confusion,
)

_DPI = 110
_SIDE = 480
"""Longest side of a picture, pixels."""
_ROW_INCHES, _COLUMN_INCHES = 2.7, 3.5
_MOST_NAMED = 14
"""Classes that a row's legend names."""
_MOST_PAIRS = 24
_IGNORED_COLOUR, _WRONG_COLOUR = (255, 255, 255), (214, 40, 40)
_COLUMNS = ("image", "truth (white: ignored)", "prediction", "errors (red: wrong, white: ignored)")
_LEVELS = np.linspace(25, 240, 11).astype(np.uint8)
"""Of each colour: colours are picked from the 1331 that they make."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One scored image, scaled down for a picture."""

    video_id: str
    words: str
    """Its size and scores; or why it can't be shown."""
    image: Frames | None
    """`[h w 3]`; None where it can't be read any more."""
    truth: LabelMap
    predicted: LabelMap


@cache
def palette(num_classes: int) -> npt.NDArray[np.uint8]:
    """A colour for each class, `[k 3]`, RGB: each lies as far as can be from white, black and those before it.

    Distances are in CIELAB, where equal ones look about equal.
    """
    colours = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _lab(colours)
    distance = np.minimum(*(np.linalg.norm(places - _lab(np.array([end])), axis=1) for end in ((0, 0, 0), (255,) * 3)))
    chosen = []
    for _ in range(num_classes):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
    picked: npt.NDArray[np.uint8] = colours[chosen]
    return picked


def coloured(labels: LabelMap, num_classes: int) -> Frames:
    """A label map in the colours of its classes, ignored pixels white."""
    table = np.full((256, 3), _IGNORED_COLOUR, dtype=np.uint8)
    table[:num_classes] = palette(num_classes)
    shown: Frames = table[labels]
    return shown


def class_table(table: pa.Table, class_names: Sequence[str]) -> pd.DataFrame:
    """Of each class, in label order: IoU and accuracy, percent, labelled pixels and images, and predicted pixels.

    Cells are empty where a class has no such number. The table is one of `columns.SEGMENTED`.
    """
    k = len(class_names)
    hits, labelled, predicted = areas_of(table_confusion(table, num_classes=k))
    iou, accuracy = class_scores(hits, labelled, predicted)
    images = np.zeros(k, dtype=np.int64)
    for pairs in table["pairs"].to_pylist():
        images[np.unique(np.asarray(pairs, dtype=np.int64) // k)] += 1
    return pd.DataFrame(
        {
            "class": list(class_names),
            "IoU": [_percent(value) for value in iou],
            "Acc": [_percent(value) for value in accuracy],
            "labelled pixels": [f"{value:.0f}" for value in labelled],
            "images": [str(value) for value in images],
            "predicted pixels": [f"{value:.0f}" for value in predicted],
        },
        dtype=str,
    )


def spread_rows(rows: int, count: int) -> list[int]:
    """At most `count` of so many rows, evenly spread from the first to the last."""
    return sorted(set(np.linspace(0, rows - 1, min(count, rows)).round().astype(int).tolist())) if rows else []


def read_panels(
    scored: pa.Table, cells: Sequence[Mapping[str, Any]], videos: VideoOpener, num_classes: int
) -> list[Panel]:
    """Read images and label maps of scored images again, for pictures.

    `scored` are rows of `columns.SEGMENTED`, `cells` the manifest's rows of the same images.
    """
    return [_panel(scored.slice(place, 1), row, videos, num_classes) for place, row in enumerate(cells)]


def panels_figure(panels: Sequence[Panel], class_names: Sequence[str], *, title: str) -> Figure:
    """Images in rows: as they are, truth, prediction, errors; below each the names of its classes."""
    k = len(class_names)
    figure = Figure(
        figsize=(4 * _COLUMN_INCHES, 0.6 + _ROW_INCHES * max(len(panels), 1) * 1.3), dpi=_DPI, layout="constrained"
    )
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    heights = [share for _ in panels for share in (1.0, 0.24)] or [1.0]
    grid = figure.add_gridspec(len(heights), 4, height_ratios=heights)
    for place, panel in enumerate(panels):
        pictures = (
            panel.image,
            coloured(panel.truth, k),
            coloured(panel.predicted, k),
            _errors(panel) if panel.image is not None else None,
        )
        for column, (picture, name) in enumerate(zip(pictures, _COLUMNS, strict=True)):
            axes = figure.add_subplot(grid[2 * place, column])
            axes.set_axis_off()
            axes.set_title(name if place == 0 else "", fontsize=10)
            if picture is not None:
                axes.imshow(picture, interpolation="nearest")
        name_classes(
            figure.add_subplot(grid[2 * place + 1, :]),
            (panel.truth, panel.predicted),
            class_names,
            title=panel.video_id,
            words=panel.words,
        )
    return figure


def pairs_figure(matrix: npt.NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """The pairs of classes that are confused on most pixels: their share of all wrong pixels.

    The matrix counts pixels, true classes in rows, predicted ones in columns. 150 x 150 cells would show little.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = [int(flat) for flat in np.argsort(wrong, axis=None, kind="stable")[::-1][:_MOST_PAIRS] if wrong.flat[flat]]
    pairs = [divmod(flat, len(class_names)) for flat in order]
    names = [f"{_short(class_names[true])} → {_short(class_names[predicted])}" for true, predicted in pairs]
    shares = [100 * wrong[pair] / wrong.sum() for pair in pairs]
    figure = Figure(figsize=(9, 1.4 + 0.26 * max(len(pairs), 1)), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(pairs)), shares, color="#2a6f97")
    axes.set_yticks(range(len(pairs)), names, fontsize=8)
    axes.invert_yaxis()
    for place, (true, predicted) in enumerate(pairs):
        text = f" {100 * wrong[true, predicted] / matrix[true].sum():.0f} % of {_short(class_names[true])}"
        axes.text(shares[place], place, text, va="center", fontsize=8, color="#6c757d")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.22, y=0.02)
    pixels = matrix.sum()
    axes.set(
        title=f"Confused on most pixels (true → predicted); {100 * wrong.sum() / max(pixels, 1):.1f} % of "
        f"{pixels:,} labelled pixels are wrong",
        xlabel="share of all wrong pixels (%)",
    )
    axes.title.set_fontsize(10)
    return figure


def _panel(scored: pa.Table, row: Mapping[str, Any], videos: VideoOpener, num_classes: int) -> Panel:
    (cells,) = scored.to_pylist()
    predicted = prediction_of(cells["prediction"])
    scores = scores_of_areas(*areas_of(table_confusion(scored, num_classes=num_classes)))
    words = (
        f"{cells['width']}x{cells['height']} px: mIoU {_percent(float(scores['miou'])) or '-'} % over its classes, "
        f"{_percent(float(scores['aacc'])) or '-'} % of its labelled pixels right"
    )
    image: Frames | None = None
    truth = np.full_like(predicted, IGNORED)
    try:
        image = _frame(videos, str(row["path"]), row, StoredImage.of(row))
        if row.get("map_path") is not None:
            truth = _frame(videos, str(row["map_path"]), {}, StoredImage.of_map(row))[..., 0]
    except DecodeError as error:
        words += f"; can't be shown any more: {error}"
    return Panel(
        video_id=str(cells["video_id"]),
        words=words,
        image=None if image is None else _small_image(image),
        truth=_small_map(truth),
        predicted=_small_map(predicted),
    )


def _frame(videos: VideoOpener, path: str, row: Mapping[str, Any], image: StoredImage | None) -> Frames:
    reader = videos.open(path, num_frames=None if row.get("num_frames") is None else 1, image=image)
    frame: Frames = reader.read([0]).frames[0]
    return frame


def _small_size(height: int, width: int) -> tuple[int, int]:
    factor = min(_SIDE / max(height, width), 1.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _small_image(image: Frames) -> Frames:
    height, width = _small_size(*image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _small_map(labels: LabelMap) -> LabelMap:
    """Single pixels of the map, so that its classes stay what they are."""
    rows, columns = (
        (np.arange(small) + 0.5) * side // small
        for small, side in zip(_small_size(*labels.shape), labels.shape, strict=True)
    )
    small: LabelMap = labels[np.ix_(rows.astype(int), columns.astype(int))]
    return small


def _errors(panel: Panel) -> Frames:
    """The image, pale and grey, with wrong pixels red and ignored ones white."""
    assert panel.image is not None
    shown: Frames = np.repeat((panel.image.mean(axis=2, keepdims=True) * 0.5 + 110).astype(np.uint8), 3, axis=2)
    shown[panel.truth == IGNORED] = _IGNORED_COLOUR
    shown[(panel.truth != IGNORED) & (panel.truth != panel.predicted)] = _WRONG_COLOUR
    return shown


def name_classes(axes: Axes, maps: Sequence[LabelMap], class_names: Sequence[str], *, title: str, words: str) -> None:
    """What an image is, in words, and the colours of the classes on its maps, those with most pixels first."""
    axes.set_axis_off()
    axes.text(0, 1, title, fontsize=9, fontweight="bold", va="top", transform=axes.transAxes)
    words = textwrap.shorten(words, 150, placeholder=" …")
    axes.text(1, 1, words, fontsize=8, color="#6c757d", va="top", ha="right", transform=axes.transAxes)
    counts = sum((np.bincount(labels.ravel(), minlength=256) for labels in maps), np.zeros(256, np.int64))
    there = [int(number) for number in np.argsort(-counts[:IGNORED], kind="stable") if counts[number]]
    colours = palette(len(class_names)) / 255
    handles = [Patch(facecolor=colours[number], label=_short(class_names[number])) for number in there[:_MOST_NAMED]]
    if len(there) > _MOST_NAMED:
        handles.append(Patch(facecolor="none", label=f"and {len(there) - _MOST_NAMED} more"))
    axes.legend(
        handles=handles,
        ncols=-(-(_MOST_NAMED + 1) // 2),
        loc="upper left",
        bbox_to_anchor=(0, 0.72),
        fontsize=8,
        frameon=False,
        borderpad=0,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=1.2,
        labelspacing=0.4,
    )


def _lab(colours: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """SRGB levels `[n 3]` in CIELAB under D65."""
    levels = np.asarray(colours) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def _short(name: str) -> str:
    return textwrap.shorten(name, 22, placeholder="…") or name[:21]
