"""A run's steps in one process, added up in the order of the workers that took them, and looked into on the way.

Floating-point sums depend on their order. A worker adds up its own micro-batches, and then the workers' sums are added;
the same is done here one worker after the other, so that on CPUs one or two workers' steps come out bit for bit. Where
they don't: with three or more workers gloo adds in an order that depends on the place in a tensor; on GPUs kernels and
NCCL choose theirs; compiled blocks round in their own way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.training.loop.batch_norm import RunningStatistics
from morphmlp.training.loop.loop import Recipe, Stepper, StepTotals, forward_backward
from morphmlp.training.loop.recipe import GROUP_KINDS
from morphmlp.training.loop.state import TrainState
from morphmlp.training.loop.step_guard import StepGuard

NAMES_SHOWN = 5


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
        self._num_workers, self._on_micro_batch = num_workers, on_micro_batch
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


@dataclass(frozen=True, kw_only=True)
class SeenVideo:
    """One video of a micro-batch."""

    row: int
    """Of the manifest's available videos."""
    video_id: str
    path: str
    label: int
    class_name: str
    """Of the label; the label map's file where an image has one."""
    broken: str | None
    """Why it couldn't be used; None where it took part."""


@dataclass(frozen=True, kw_only=True)
class SeenMicroBatch:
    """What one micro-batch is, and what it adds to the step."""

    index: int
    worker: int
    videos: tuple[SeenVideo, ...]
    clips: int
    loss: float
    """Mean over its clips."""
    pixel_min: int | None
    """Least grey level of its clips, 0-255; None where all its videos are broken."""
    pixel_max: int | None
    logits_min: float
    """Least of the network's finite outputs; NaN where there are none."""
    logits_max: float
    logits_finite: float
    """Share of the network's outputs that are finite, 0-1."""
    first_not_finite: str | None
    """The first module, in the order of the forward pass, whose output isn't finite throughout."""
    grad_norms: dict[str, float]
    """L2 norm of the gradient of its mean loss, by kind of parameters (`GROUP_KINDS`)."""
    not_finite: tuple[str, ...]
    """The first parameters, from the input to the output, whose gradient isn't finite; at most `NAMES_SHOWN`."""
    num_not_finite: int
    """How many there are."""


class StepInspection:
    """Sees the micro-batches of one step: where numbers stop being finite, and what each micro-batch adds.

    A context, so that the model is left without hooks.
    """

    def __init__(self, state: TrainState, *, recipe: Recipe, videos: Manifest, num_workers: int) -> None:
        self.seen: list[SeenMicroBatch] = []
        """In the order in which they were trained on."""
        self._state, self._recipe, self._videos, self._num_workers = state, recipe, videos, num_workers
        self._first_not_finite: str | None = None
        self._logits = torch.empty(0)
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        model = self._state.model
        self._hooks = [
            module.register_forward_hook(partial(self._see_output, name))
            for name, module in model.named_modules()
            if next(module.children(), None) is None
        ]
        self._hooks.append(model.register_forward_hook(self._keep_logits))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def see(self, batch: MicroBatch, loss_sum: Tensor) -> None:
        """Take in a micro-batch, while the gradients are its own; for `AllWorkersStepper.on_micro_batch`."""
        clips = len(batch.labels)
        finite = torch.isfinite(self._logits)
        values = self._logits[finite]
        # From its share of the step's gradient to the gradient of its mean loss.
        factor = self._recipe.planned_clips / max(clips, 1) / self._state.scaler.get_scale()
        faulty = [
            name
            for name, parameter in self._state.model.named_parameters()
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        self.seen.append(
            SeenMicroBatch(
                index=batch.plan.index,
                worker=batch.plan.index % self._num_workers,
                videos=tuple(self._described(batch)),
                clips=clips,
                loss=float(loss_sum) / max(clips, 1),
                pixel_min=int(batch.clips.min()) if clips else None,
                pixel_max=int(batch.clips.max()) if clips else None,
                logits_min=float(values.min()) if len(values) else float("nan"),
                logits_max=float(values.max()) if len(values) else float("nan"),
                logits_finite=float(finite.float().mean()),
                first_not_finite=self._first_not_finite,
                grad_norms=self._grad_norms(factor),
                not_finite=tuple(faulty[:NAMES_SHOWN]),
                num_not_finite=len(faulty),
            )
        )
        self._first_not_finite = None

    def _described(self, batch: MicroBatch) -> list[SeenVideo]:
        broken = {video.video_id: video.message for video in batch.broken}
        names, known = ["video_id", "path", "label", "map_path"], self._videos.table.column_names
        cells = self._videos.table.select([name for name in names if name in known]).take(batch.plan.rows).to_pylist()
        return [
            SeenVideo(
                row=row,
                class_name=video.pop("map_path", None) or self._videos.class_names[video["label"]],
                **video,
                broken=broken.get(video["video_id"]),
            )
            for row, video in zip(batch.plan.rows.tolist(), cells, strict=True)
        ]

    def _grad_norms(self, factor: float) -> dict[str, float]:
        norms = {}
        for kind in GROUP_KINDS:
            gradients = [
                parameter.grad
                for group in self._state.optimizer.param_groups
                if group["kind"] == kind
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            norms[kind] = float(nn.utils.get_total_norm(gradients)) * factor
        return norms

    def _see_output(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if self._first_not_finite is None and isinstance(output, Tensor) and not torch.isfinite(output).all():
            self._first_not_finite = name

    def _keep_logits(self, module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        main = output[0] if isinstance(output, tuple) else output
        self._logits = main.detach().float()
