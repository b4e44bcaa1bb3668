"""What is counted of segmented images: sums of pixels by true and predicted class, as tensors that add up."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from morphmlp.tasks.segmentation.confusion import LabelMap, confusion_of, confusion_scores, table_confusion
from morphmlp.tasks.task import Counts, Scores, zero


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentationCounts(Counts):
    """Scored images, and their pixels by true class (rows) and predicted class (columns), float64 `[k k]`.

    Sums stay exact up to 2^53 pixels, which are 30 billion images of 512 x 512.
    """

    confusion: Tensor

    def scores(self) -> Scores:
        """MIoU, mAcc and aAcc, percent."""
        return confusion_scores(self.confusion.numpy())


def no_counts(num_classes: int) -> SegmentationCounts:
    """The counts of no image."""
    return SegmentationCounts(confusion=torch.zeros((num_classes, num_classes), dtype=torch.float64))


def count_table(table: pa.Table, *, num_classes: int) -> SegmentationCounts:
    """The counts of all rows."""
    return SegmentationCounts(
        num_videos=zero() + table.num_rows,
        loss_sum=zero() + float(np.nansum(table["loss"].to_numpy())),
        confusion=torch.from_numpy(table_confusion(table, num_classes=num_classes)).double(),
    )


def count_image(predicted: LabelMap, labels: LabelMap, *, num_classes: int, loss: float) -> SegmentationCounts:
    """The counts of one image."""
    confusion = torch.from_numpy(confusion_of(labels, predicted, num_classes=num_classes)).double()
    return SegmentationCounts(num_videos=zero() + 1, loss_sum=zero() + loss, confusion=confusion)
