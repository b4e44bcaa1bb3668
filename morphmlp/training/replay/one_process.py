"""A run's steps in one process, added up in the order of the workers that took them.

Floating-point sums depend on their order. A worker adds up its own micro-batches, and then the workers' sums are added;
the same is done here one worker after the other, so that on CPUs one or two workers' steps come out bit for bit. Where
they don't: with three or more workers gloo adds in an order that depends on the place in a tensor; on GPUs kernels and
NCCL choose theirs; compiled blocks round in their own way.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from morphmlp.data.stream.batches import MicroBatch
from morphmlp.training.loop.batch_norm import RunningStatistics
from morphmlp.training.loop.loop import Recipe, Stepper, StepTotals, forward_backward
from morphmlp.training.loop.state import TrainState
from morphmlp.training.loop.step_guard import StepGuard


class AllWorkersStepper(Stepper):
    """Takes each step for all workers: `take` needs the micro-batches of the whole step, in order.

    `on_micro_batch` is called with each micro-batch and the sum of its losses, while the model's gradients are those of
    this micro-batch alone, and still multiplied by the loss scale.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        recipe: Recipe,
        device: torch.device,
        num_workers: int,
        on_micro_batch: Callable[[MicroBatch, Tensor], None] = lambda batch, loss_sum: None,
    ) -> None:
        super().__init__(state, state.model, recipe=recipe, device=device, guard=StepGuard())
        self.loss = self.grad_norm = float("nan")
        """Of the last step that was taken: mean over its clips, and before clipping; of a skipped step as well."""
        self._num_workers = num_workers
        self._on_micro_batch = on_micro_batch
        self._statistics_of_others = [RunningStatistics(state.model) for _ in range(num_workers - 1)]

    def _gradients(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        parameters = [parameter for parameter in self.state.model.parameters() if parameter.requires_grad]
        loss_sum = torch.zeros((), device=self._device)
        over_workers: list[Tensor] = []
        worker_statistics = (self._statistics, *self._statistics_of_others)
        for statistics in worker_statistics:
            statistics.begin_step()
        for worker, statistics in enumerate(worker_statistics):
            own_loss_sum = torch.zeros((), device=self._device)
            own: list[Tensor] = []
            for batch in micro_batches[worker :: self._num_workers]:
                for parameter in parameters:
                    parameter.grad = None
                batch_loss_sum = forward_backward(
                    self.state, self.state.model, batch, recipe=self._recipe, device=self._device
                )
                self._on_micro_batch(batch, batch_loss_sum)
                own_loss_sum += batch_loss_sum
                if len(batch.labels):
                    statistics.add_micro_batch(len(batch.labels))
                own = _added(own, [parameter.grad for parameter in parameters])
            loss_sum += own_loss_sum
            over_workers = _added(over_workers, own)
        for parameter, gradient in zip(parameters, over_workers, strict=True):
            parameter.grad = gradient
        return loss_sum

    def _add_up(self, micro_batches: Sequence[MicroBatch], loss_sum: Tensor) -> tuple[StepTotals, Tensor]:
        totals, sums = super()._add_up(micro_batches, loss_sum)
        for statistics in self._statistics_of_others:
            sums += statistics.flat_sums()
        self.loss = float(totals.loss_sum) / max(float(totals.clips), 1)
        return totals, sums

    def _finish_gradients(self, *, trained_clips: Tensor) -> Tensor:
        grad_norm = super()._finish_gradients(trained_clips=trained_clips)
        self.grad_norm = float(grad_norm)
        return grad_norm


def _added(sums: list[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    there = [gradient for gradient in gradients if gradient is not None]
    if not sums:
        return there
    torch._foreach_add_(sums, there)
    return sums
