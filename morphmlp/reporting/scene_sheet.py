"""A picture of what segmentation really trains on or is scored on: images with their label maps, in rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from morphmlp.data.clips.draws import ClipKey
from morphmlp.data.clips.scenes import LabelMap, TrainScenes, WholeScenes
from morphmlp.data.decoding.protocol import Frames, VideoOpener
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.data.manifest import Manifest
from morphmlp.errors import DecodeError
from morphmlp.reporting.segmentation import coloured, name_classes

_DPI = 110
_ROW_INCHES, _COLUMN_INCHES = 3.4, 3.5
_COLUMNS = ("image", "label map (white: ignored)", "both")


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """An image with its label map."""

    video_id: str
    words: str
    """How they were made, or why they can't be used."""
    image: Frames | None = None
    """RGB `[h w 3]`; None where they can't be used."""
    label_map: LabelMap | None = None


def scene_rows(
    manifest: Manifest,
    videos: VideoOpener,
    extractor: TrainScenes | WholeScenes,
    *,
    rows: Iterable[int],
    seed: int,
    epoch: int,
) -> Iterator[SceneRow]:
    """What an extractor makes of some rows of a manifest."""
    for place in rows:
        (cells,) = manifest.table.slice(place, 1).to_pylist()
        key = ClipKey(seed=seed, epoch=epoch, video_id=cells["video_id"])
        try:
            image = videos.open(cells["path"], num_frames=None, image=StoredImage.of(cells))
            label_map = videos.open(cells["map_path"], num_frames=None, image=StoredImage.of_map(cells))
            made = extractor.extract(image, key, label_map)
            words = f"{image.info.width}x{image.info.height} px"
            if isinstance(extractor, TrainScenes):
                draw = extractor.draw(np.ascontiguousarray(label_map.read([0]).frames[0, ..., 0]), key)
                words += f": {draw.describe()}"
        except DecodeError as error:
            yield SceneRow(video_id=cells["video_id"], words=f"can't be used: {error}")
            continue
        assert made.maps is not None
        yield SceneRow(video_id=cells["video_id"], words=words, image=made.clips[0, 0], label_map=made.maps[0])


def scene_sheet(rows: Sequence[SceneRow], class_names: Sequence[str], *, title: str) -> Figure:
    """Draw each image, its map in the colours of the classes, and both; below them what they are."""
    figure = Figure(figsize=(3 * _COLUMN_INCHES, 0.6 + _ROW_INCHES * max(len(rows), 1)), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    heights = [share for _ in rows for share in (1.0, 0.26)] or [1.0]
    grid = figure.add_gridspec(len(heights), len(_COLUMNS), height_ratios=heights)
    for place, row in enumerate(rows):
        if row.image is not None and row.label_map is not None:
            colours = coloured(row.label_map, len(class_names))
            for column, picture in enumerate((row.image, colours, row.image // 2 + colours // 2)):
                axes = figure.add_subplot(grid[2 * place, column])
                axes.set_axis_off()
                axes.set_title(_COLUMNS[column] if place == 0 else "", fontsize=10)
                axes.imshow(picture, interpolation="nearest")
        maps = [] if row.label_map is None else [row.label_map]
        below = figure.add_subplot(grid[2 * place + 1, :])
        name_classes(below, maps, class_names, title=row.video_id, words=row.words)
    return figure
