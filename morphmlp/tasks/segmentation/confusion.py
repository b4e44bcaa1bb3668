"""Pixels by true and predicted class: what is counted of an image, what adds up over them, and the scores of the sum.

As mmsegmentation counts: histograms summed over the set, divided once; pixels labelled 255 take no part. Everything is
at each image's own size, so that no score depends on how images were batched.
"""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from jaxtyping import Float, Int, UInt8
from PIL import Image

from morphmlp.data.columns import SEGMENTED
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.data.manifest import Manifest
from morphmlp.tasks.scores import AACC, MACC, MIOU

LabelMap = UInt8[np.ndarray, "h w"]
Areas = Float[np.ndarray, "... k"]
"""Pixels of each class."""
_OUTCOME = SEGMENTED.remove(SEGMENTED.get_field_index("video_id"))


def confusion_of(labels: LabelMap, predicted: LabelMap, *, num_classes: int) -> Int[np.ndarray, "k k"]:
    """Pixels by true class (rows) and predicted class (columns), those labelled 255 left out.

    Raises:
        ValueError: The sizes differ, or a label or prediction is no class.
    """
    if labels.shape != predicted.shape:
        raise ValueError(f"a label map of {labels.shape} and a prediction of {predicted.shape}; sizes must be the same")
    valid = labels != IGNORED
    true, found = labels[valid].astype(np.int64), predicted[valid]
    highest = max(true.max(initial=0), found.max(initial=0))
    if highest >= num_classes:
        raise ValueError(f"class {highest} in a label map or prediction; classes are 0 to {num_classes - 1}")
    return np.bincount(true * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)


def areas_of(confusion: npt.NDArray[np.number]) -> tuple[Areas, Areas, Areas]:
    """Of each class: pixels that are hit, those labelled with it, and those predicted as it."""
    matrix = np.asarray(confusion, dtype=np.float64)
    return np.diagonal(matrix, axis1=-2, axis2=-1).copy(), matrix.sum(axis=-1), matrix.sum(axis=-2)


def class_scores(hits: Areas, labelled: Areas, predicted: Areas) -> tuple[Areas, Areas]:
    """IoU and accuracy of each class, percent.

    IoU is NaN for a class that is neither labelled nor predicted, accuracy for one that isn't labelled: so a class that
    is predicted and never there has an IoU of 0 and no accuracy.
    """
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return 100 * hits / (labelled + predicted - hits), 100 * hits / labelled


def scores_of_areas(hits: Areas, labelled: Areas, predicted: Areas) -> dict[str, Float[np.ndarray, "..."]]:
    """The scores by their keys, percent: means over classes that aren't NaN, and the share of all labelled pixels.

    NaN where nothing is labelled.
    """
    iou, accuracy = class_scores(hits, labelled, predicted)
    with np.errstate(invalid="ignore"):
        every = 100 * hits.sum(axis=-1) / labelled.sum(axis=-1)
    return {MIOU.key: _mean(iou), MACC.key: _mean(accuracy), AACC.key: every}


def confusion_scores(confusion: npt.NDArray[np.number]) -> dict[str, float]:
    """The scores of pixels by true and predicted class, by their keys, percent."""
    return {name: float(value) for name, value in scores_of_areas(*areas_of(confusion)).items()}


def outcome_of(predicted: LabelMap, labels: LabelMap | None, *, num_classes: int, loss: float | None = None) -> bytes:
    """What a scorer hands back of one image: a row of `columns.SEGMENTED` without the id, as an Arrow stream.

    An image without a label map counts no pixels and has no loss.
    """
    pairs = pixels = np.zeros(0, dtype=np.int64)
    if labels is not None:
        matrix = confusion_of(labels, predicted, num_classes=num_classes).ravel()
        pairs = np.flatnonzero(matrix)
        pixels = matrix[pairs]
    height, width = predicted.shape
    cells = ([height], [width], [loss], [pairs], [pixels], [prediction_png(predicted)])
    arrays = [pa.array(cell, field.type) for cell, field in zip(cells, _OUTCOME, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _OUTCOME) as stream:
        stream.write_batch(pa.record_batch(arrays, schema=_OUTCOME))
    return bytes(sink.getvalue())


def predictions_table(manifest: Manifest, outcomes: Mapping[int, bytes]) -> pa.Table:
    """Columns: `columns.SEGMENTED`, one row for each outcome, in manifest order."""
    rows = sorted(outcomes)
    ids = manifest.table["video_id"].take(pa.array(rows, pa.int64())).combine_chunks()
    tables = [pa.ipc.open_stream(outcomes[row]).read_all() for row in rows]
    found = pa.concat_tables(tables) if tables else _OUTCOME.empty_table()
    return found.add_column(0, SEGMENTED.field("video_id"), ids).cast(SEGMENTED)


def prediction_png(labels: LabelMap) -> bytes:
    """A row's `prediction`: a grey PNG whose pixels are their classes."""
    picture = BytesIO()
    Image.fromarray(labels).save(picture, format="png")
    return picture.getvalue()


def prediction_of(png: bytes) -> LabelMap:
    """The classes that a row's `prediction` holds."""
    with Image.open(BytesIO(png)) as picture:
        classes: LabelMap = np.asarray(picture)
        return classes


def table_confusion(table: pa.Table, *, num_classes: int) -> Int[np.ndarray, "k k"]:
    """Pixels of all rows by true and predicted class."""
    pairs, pixels = (table[name].combine_chunks().flatten().to_numpy() for name in ("pairs", "pixels"))
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix.reshape(-1), pairs, pixels)
    return matrix


def _mean(of_classes: Areas) -> Float[np.ndarray, "..."]:
    there = ~np.isnan(of_classes)
    with np.errstate(invalid="ignore"):
        mean: Areas = np.where(there, of_classes, 0).sum(axis=-1) / there.sum(axis=-1)
    return mean
