"""Scores of videos from their views: logits summed over views, each video counted exactly once."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from morphmlp.data.clips.augment import normalise
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.metrics import ScoreCounts


@torch.inference_mode()
def view_logits(
    model: nn.Module, clips: UInt8[Tensor, "b t h w c"], *, device: torch.device, clips_at_once: int
) -> Float[Tensor, "b k"]:
    """Logits of each clip, in fp32 (as published for evaluation), on the CPU."""
    model.eval()
    parts = [model(normalise(part.to(device, non_blocking=True))) for part in torch.split(clips, clips_at_once)]
    return torch.cat(parts).float().cpu()


def score_single_views(
    model: nn.Module,
    batches: Iterable[MicroBatch],
    *,
    device: torch.device,
    too_many: Callable[[int], bool] = lambda broken: False,
) -> tuple[ScoreCounts, list[BrokenVideo]]:
    """Count the right answers over micro-batches with one view per video.

    Args:
        model: The network.
        batches: The videos.
        device: Where the model is.
        too_many: Whether so many broken videos end it before all are scored.
    """
    counts, broken = ScoreCounts(), list[BrokenVideo]()
    for batch in batches:
        broken.extend(batch.broken)
        if too_many(len(broken)):
            break
        if len(batch.labels):
            logits = view_logits(model, batch.clips, device=device, clips_at_once=len(batch.labels))
            counts += ScoreCounts.of(logits, batch.labels)
    return counts, broken


def confusion_matrix(
    labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64], *, num_classes: int
) -> npt.NDArray[np.int64]:
    """Videos by true class (rows) and predicted class (columns)."""
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix
