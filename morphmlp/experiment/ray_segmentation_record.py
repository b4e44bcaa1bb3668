"""What a segmentation test leaves in the record besides its scores: each class's scores, confused classes, pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from morphmlp.config.operation import IngestConfig
from morphmlp.data.decoding.isolation.isolated import isolated_videos
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.decode_task import decode_limits
from morphmlp.reporting.figures import confusion_figure
from morphmlp.reporting.segmentation import (
    Panel,
    class_table,
    pairs_figure,
    panels_figure,
    read_panels,
    spread_rows,
)
from morphmlp.tasks.segmentation.confusion import table_confusion
from morphmlp.tracking import RunWriter

PANELS_OF_A_FIGURE = 8
_MOST_IN_A_MATRIX = 16
"""Classes up to which the confusion is drawn as a matrix."""


def record_segmentation(
    table: pa.Table,
    videos: Manifest,
    *,
    class_names: Sequence[str],
    ingest: IngestConfig,
    panels: int,
    writer: RunWriter,
) -> None:
    """Write artifacts of a test's table (`columns.SEGMENTED`) of these images.

    `classes.csv` and `classes.md`, `figures/confusion.png`, and `figures/panels-1.png` and more of so many `panels`.
    """
    names, k = list(class_names), len(class_names)
    classes, matrix = class_table(table, names), table_confusion(table, num_classes=k)
    align = ["left", *["right"] * (classes.shape[1] - 1)]
    writer.text(classes.to_csv(index=False), "classes.csv")
    writer.text(classes.to_markdown(index=False, colalign=align, disable_numparse=True), "classes.md")
    of_few = confusion_figure(matrix, names, items="pixels") if k <= _MOST_IN_A_MATRIX else None
    writer.figure(of_few or pairs_figure(matrix, names), "figures/confusion.png")
    shown = panels_of(table, videos, num_classes=k, count=panels, ingest=ingest)
    for number, start in enumerate(range(0, len(shown), PANELS_OF_A_FIGURE), start=1):
        part = shown[start : start + PANELS_OF_A_FIGURE]
        title = f"{start + 1} to {start + len(part)} of {len(shown)} images, evenly spread over {table.num_rows} scored"
        writer.figure(panels_figure(part, names, title=title), f"figures/panels-{number}.png")


def panels_of(table: pa.Table, videos: Manifest, *, num_classes: int, count: int, ingest: IngestConfig) -> list[Panel]:
    """At most `count` scored images, evenly spread; read on a machine that decodes, as this one needn't see them."""
    scored = table.take(spread_rows(table.num_rows, count))
    row_of = {name: row for row, name in enumerate(videos.table["video_id"].to_pylist())}
    cells = videos.table.take([row_of[name] for name in scored["video_id"].to_pylist()]).to_pylist()
    if sum(node["Alive"] for node in ray.nodes()) > 1:  # type: ignore[no-untyped-call]
        there = _panels_there.options(label_selector=ingest.node_labels or None)
        found: list[Panel] = ray.get(there.remote(scored, cells, ingest, num_classes))
        return found
    return _read(scored, cells, ingest, num_classes)


@ray.remote(num_cpus=0)  # a second's work, and trials may have taken all CPUs
def _panels_there(
    scored: pa.Table, cells: list[Mapping[str, Any]], ingest: IngestConfig, num_classes: int
) -> list[Panel]:
    return _read(scored, cells, ingest, num_classes)


def _read(scored: pa.Table, cells: Sequence[Mapping[str, Any]], ingest: IngestConfig, num_classes: int) -> list[Panel]:
    videos = isolated_videos(ingest.decoder, decode_limits(ingest), ingest.image_decoder)
    return read_panels(scored, cells, videos, num_classes)
