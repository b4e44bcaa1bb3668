"""Looks into a step while it is taken: where numbers stop being finite, and what each micro-batch adds."""

from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.training.loop.loop import Recipe
from morphmlp.training.loop.recipe import GROUP_KINDS
from morphmlp.training.loop.state import TrainState

NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class SeenVideo:
    """One video of a micro-batch."""

    row: int
    """Of the manifest's available videos."""
    video_id: str
    path: str
    label: int
    class_name: str
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
    """Sees the micro-batches of one step; a context, so that the model is left without hooks."""

    def __init__(self, state: TrainState, *, recipe: Recipe, videos: Manifest, num_workers: int) -> None:
        self.seen: list[SeenMicroBatch] = []
        """In the order in which they were trained on."""
        self._state, self._recipe, self._videos, self._num_workers = state, recipe, videos, num_workers
        self._first_not_finite: str | None = None
        self._logits = torch.empty(0)
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        """Begin to look."""
        model = self._state.model
        self._hooks = [
            module.register_forward_hook(partial(self._see_output, name))
            for name, module in model.named_modules()
            if not any(True for _ in module.children())
        ]
        self._hooks.append(model.register_forward_hook(self._keep_logits))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the hooks away."""
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
        cells = self._videos.table.select(["video_id", "path", "label"]).take(batch.plan.rows).to_pylist()
        return [
            SeenVideo(
                row=row,
                **video,
                class_name=self._videos.class_names[video["label"]],
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

    def _keep_logits(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._logits = output.detach().float()
