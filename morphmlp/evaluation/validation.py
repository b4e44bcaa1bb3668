"""The counts of a validation, in which each video has one view."""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist

from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.models.network import Network
from morphmlp.tasks.task import Counts, Task


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
            counts += task.validated(model, batch, device)
    return counts, broken


def over_workers(counts: Counts, broken: int, device: torch.device) -> tuple[Counts, int]:
    """The counts of all workers, and how many videos were broken."""
    packed = torch.cat([counts.pack(), torch.tensor([broken], dtype=torch.float64)]).to(device)
    if dist.is_initialized():
        dist.all_reduce(packed)
    packed = packed.cpu()
    return counts.unpack(packed[:-1]), int(packed[-1])
