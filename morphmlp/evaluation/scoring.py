"""Outputs of a network for views, and the counts of a validation, in which each video has one view."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.models.network import Network
from morphmlp.tasks.task import Counts, Task, network_input


@torch.inference_mode()
def view_outputs(
    model: Network, clips: UInt8[Tensor, "b t h w c"], *, device: torch.device, clips_at_once: int
) -> Float[Tensor, "b ..."]:
    """Outputs for each clip, in fp32 (as published for evaluation), on the CPU."""
    model.eval()
    parts = [model(network_input(part, model, device)) for part in torch.split(clips, clips_at_once)]
    return torch.cat(parts).float().cpu()


def score_single_views(
    model: Network,
    batches: Iterable[MicroBatch],
    *,
    task: Task,
    device: torch.device,
    too_many: Callable[[int], bool] = lambda broken: False,
) -> tuple[Counts, list[BrokenVideo]]:
    """Count over micro-batches with one view per video.

    `too_many` says whether so many broken videos end it before all are scored.
    """
    counts, broken = task.no_counts(), list[BrokenVideo]()
    for batch in batches:
        broken.extend(batch.broken)
        if too_many(len(broken)):
            break
        if len(batch.labels):
            outputs = view_outputs(model, batch.clips, device=device, clips_at_once=len(batch.labels))
            counts += task.counts(outputs, batch.labels)
    return counts, broken
