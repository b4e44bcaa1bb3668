"""BatchNorm's running statistics, updated once a step, whatever the number of workers.

Each micro-batch is normalised by its own statistics (as published: per GPU, not synchronised). The
running ones move once a step towards the mean over all micro-batches of all workers, so that they
don't depend on who computed which micro-batch or in what order.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """Holds a model's running statistics while its BatchNorms show those of single micro-batches."""

    def __init__(self, model: nn.Module) -> None:
        """Find the BatchNorms of a model that is about to train; frozen ones keep their statistics."""
        self._norms = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and any(parameter.requires_grad for parameter in module.parameters())
        ]
        self._nothing = next(model.parameters()).new_zeros(0)
        self._momenta = [cast(float, norm.momentum) for norm in self._norms]
        self._buffers = [
            cast(Tensor, buffer) for norm in self._norms for buffer in (norm.running_mean, norm.running_var)
        ]
        self._counts = [cast(Tensor, norm.num_batches_tracked) for norm in self._norms]

    def begin_step(self) -> None:
        """Put the running statistics aside and let the buffers show one micro-batch's."""
        self._kept = [buffer.clone() for buffer in (*self._buffers, *self._counts)]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]
        for norm in self._norms:
            norm.momentum = 1.0

    def add_micro_batch(self, weight: int) -> None:
        """Add what the buffers show after a forward pass, weighted by its clips."""
        for total, buffer in zip(self._sums, self._buffers, strict=True):
            total.add_(buffer, alpha=weight)

    def flat_sums(self) -> Tensor:
        """This worker's weighted sums as one vector, to be added up over the workers."""
        return torch.cat([self._nothing, *(total.flatten() for total in self._sums)])

    def put_back(self) -> None:
        """Show the running statistics again, as they were before the step."""
        for buffer, kept in zip((*self._buffers, *self._counts), self._kept, strict=True):
            buffer.copy_(kept)

    def end_step(self, sums: Tensor, weight: Tensor) -> None:
        """Move the running statistics towards the step's mean.

        `sums` are the flat sums of all workers, `weight` is a scalar, the clips of all workers: 0 leaves the statistics
        as they were.
        """
        means = torch.split(sums, [buffer.numel() for buffer in self._buffers])
        momenta = [momentum for momentum in self._momenta for _ in ("mean", "variance")]
        kept_buffers, kept_counts = self._kept[: len(self._buffers)], self._kept[len(self._buffers) :]
        for buffer, kept, mean, momentum in zip(self._buffers, kept_buffers, means, momenta, strict=True):
            moved = kept.lerp(mean.view_as(buffer) / weight.clamp(min=1), momentum)
            buffer.copy_(torch.where(weight > 0, moved, kept))  # `where`: reading the weight would stall a GPU
        for count, kept in zip(self._counts, kept_counts, strict=True):
            count.copy_(kept + (weight > 0))  # steps, not the micro-batches that one worker happened to see
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            norm.momentum = momentum
