"""The images that a network segmented worst: a table of all by their scores, and panels of the first ones."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from morphmlp.data.columns import SEGMENTED
from morphmlp.data.decoding.protocol import VideoOpener
from morphmlp.data.manifest import Manifest
from morphmlp.evaluation.rescoring import Resegmented
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.reporting.segmentation import panels_figure, read_panels
from morphmlp.tasks.segmentation.confusion import scores_of_areas

ROWS_OF_A_SHEET = 8


def worst_table(scored: Resegmented) -> pd.DataFrame:
    """All images with labelled pixels, those with the lowest mIoU over their own classes first; scores in percent.

    An image's classes are those that its label map or its prediction has.
    """
    k, table = scored.header.num_classes, scored.table
    values = np.empty((table.num_rows, 2))
    for row, (pairs, pixels) in enumerate(zip(table["pairs"], table["pixels"], strict=True)):
        true, predicted = np.divmod(pairs.values.to_numpy(), k)
        counts = pixels.values.to_numpy()
        hits, labelled, taken = (
            np.bincount(classes, weights, minlength=k)
            for classes, weights in ((true, counts * (true == predicted)), (true, counts), (predicted, counts))
        )
        scores = scores_of_areas(hits, labelled, taken)
        values[row] = scores["miou"], scores["aacc"]
    found = pd.DataFrame(
        {
            "image": table["video_id"].to_pylist(),
            "mIoU": values[:, 0].round(2),
            "right pixels": values[:, 1].round(2),
            "width": table["width"].to_numpy(),
            "height": table["height"].to_numpy(),
        }
    )
    return found.dropna().sort_values("mIoU", kind="stable", ignore_index=True)


def worst_sheets(
    scored: Resegmented, worst: pd.DataFrame, manifest: Manifest, videos: VideoOpener, class_names: Sequence[str]
) -> list[Figure]:
    """Panels of these images (the first rows of `worst_table`): image, truth, prediction, errors; some rows each."""
    names = worst["image"].tolist()
    rows = _scored_rows(scored, names)
    places = pc.index_in(pa.array(names), value_set=manifest.table["video_id"].combine_chunks())
    cells = manifest.table.take(places).to_pylist()
    panels = read_panels(rows, cells, videos, scored.header.num_classes)
    sheets = []
    for start in range(0, len(panels), ROWS_OF_A_SHEET):
        part = panels[start : start + ROWS_OF_A_SHEET]
        title = f"Worst images {start + 1} to {start + len(part)} of {scored.table.num_rows:,}, lowest mIoU first"
        sheets.append(panels_figure(part, class_names, title=title))
    return sheets


def _scored_rows(scored: Resegmented, names: Sequence[str]) -> pa.Table:
    """Rows of `columns.SEGMENTED`, with their predictions, of images in this order."""
    wanted = pa.array(names, pa.string())
    parts = ScoreStore.open(scored.store).in_order(SEGMENTED.names)
    rows = pa.concat_tables([part.filter(pc.is_in(part["video_id"], value_set=wanted)) for part in parts])
    return rows.take(pc.index_in(wanted, value_set=rows["video_id"].combine_chunks()))
