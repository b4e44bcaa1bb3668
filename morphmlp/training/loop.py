"""The optimisation itself: load, step, yield. Knows neither Ray nor MLflow.

The gradient of a step is the mean over the clips of all its micro-batches, and every draw belongs to a
micro-batch, so the loss curve doesn't depend on how many workers share the step.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.config.schema import MixingConfig, OptimConfig
from morphmlp.data.augment import normalise
from morphmlp.data.batches import MicroBatch
from morphmlp.data.plan import Cursor, TrainPlan, random_generator, random_seed
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.training.batch_norm import RunningStatistics
from morphmlp.training.recipe import learning_rate, mix, soft_target_loss_sum, soft_targets
from morphmlp.training.state import TrainState


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the loop needs of an experiment."""

    plan: TrainPlan
    mixing: MixingConfig
    optim: OptimConfig
    epochs: int
    max_steps: int | None
    clips_per_video: int
    num_classes: int
    bf16: bool
    """Autocast the forward pass to bfloat16."""

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        steps = self.epochs * self.plan.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)


class TrainClips(Protocol):
    """Where a worker's micro-batches come from: Ray Data in a run, a list in a test."""

    def train(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """One item per step, from the cursor to the end of its epoch: this worker's micro-batches."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepSummary:
    """One optimiser step. The numbers over all workers stay on the device until someone asks."""

    step: int
    """Steps taken before this one, over all epochs."""
    epoch: int
    lr: float
    step_s: float
    """Time of this worker from batch to batch, seconds; `data_wait_s` of it waiting for ingest."""
    data_wait_s: float
    broken: tuple[BrokenVideo, ...]
    """Broken videos that this worker met."""
    concealed: int
    """Frames of this worker's clips that stand in for damaged ones."""
    retried: int
    """Videos of this worker that only a second decoder could read."""
    totals: Tensor
    """Over all workers: loss sum, clips, broken videos."""
    grad_norm: Tensor
    """Before clipping."""


@dataclass(frozen=True, kw_only=True)
class EpochSummary:
    """The end of an epoch, or of the run where `max_steps` ends it earlier."""

    epoch: int
    step: int
    """Steps taken so far, over all epochs."""
    totals: Tensor
    """Over all workers and the steps taken in this process: loss sum, clips, broken videos."""


def fit(
    state: TrainState, network: nn.Module, clips: TrainClips, *, recipe: Recipe, device: torch.device
) -> Iterator[StepSummary | EpochSummary]:
    """Train from the state's cursor to the end; the state is ready to be saved at every yield.

    Args:
        state: Model, optimiser and cursor.
        network: The state's model, wrapped for data parallelism where there are several workers.
        clips: This worker's micro-batches.
        recipe: The experiment.
        device: Where the model is.
    """
    plan = recipe.plan
    statistics = RunningStatistics(state.model)
    state.model.train()
    while plan.step_of(state.cursor) < recipe.total_steps:
        epoch = state.cursor.epoch
        epoch_totals = torch.zeros(3, device=device)
        batches = clips.train(state.cursor)
        asked = time.perf_counter()
        for micro_batches in batches:
            data_wait_s = time.perf_counter() - asked
            step = plan.step_of(state.cursor)
            lr = learning_rate(
                epoch + state.cursor.step / plan.steps_per_epoch, epochs=recipe.epochs, optim=recipe.optim
            )
            totals, grad_norm = train_step(
                state, network, micro_batches, statistics=statistics, recipe=recipe, lr=lr, device=device
            )
            epoch_totals += totals
            state.cursor = plan.advance(state.cursor)
            yield StepSummary(
                step=step,
                epoch=epoch,
                lr=lr,
                step_s=time.perf_counter() - asked,
                data_wait_s=data_wait_s,
                broken=tuple(video for batch in micro_batches for video in batch.broken),
                concealed=sum(batch.concealed for batch in micro_batches),
                retried=sum(batch.retried for batch in micro_batches),
                totals=totals,
                grad_norm=grad_norm,
            )
            asked = time.perf_counter()
            if step + 1 == recipe.total_steps:
                break
        yield EpochSummary(epoch=epoch, step=plan.step_of(state.cursor), totals=epoch_totals)
        state.model.train()


def train_step(
    state: TrainState,
    network: nn.Module,
    micro_batches: Sequence[MicroBatch],
    *,
    statistics: RunningStatistics,
    recipe: Recipe,
    lr: float,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """One optimiser step over this worker's micro-batches, the gradient averaged over all workers' clips.

    Returns:
        Loss sum, clips and broken videos over all workers; and the gradient's norm before clipping.
    """
    state.optimizer.zero_grad(set_to_none=True)
    statistics.begin_step()
    loss_sum = torch.zeros((), device=device)
    for place, batch in enumerate(micro_batches):
        last = place == len(micro_batches) - 1
        gather = nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()
        with gather:
            loss_sum += forward_backward(network, batch, recipe=recipe, device=device)
        if len(batch.labels):
            statistics.add_micro_batch(len(batch.labels))
    counts = [sum(len(batch.labels) for batch in micro_batches), sum(len(batch.broken) for batch in micro_batches)]
    sums = torch.cat([loss_sum[None], torch.tensor(counts, device=device), statistics.flat_sums()])
    if dist.is_initialized():
        dist.all_reduce(sums)
    totals, trained_clips = sums[:3], sums[1]
    statistics.end_step(sums[3:], trained_clips)
    # The losses were divided by the planned clips; where videos are broken, fewer took part.
    gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
    torch._foreach_mul_(gradients, _planned_clips(recipe) / trained_clips.clamp(min=1))
    grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), recipe.optim.clip_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    return totals, grad_norm


def forward_backward(network: nn.Module, batch: MicroBatch, *, recipe: Recipe, device: torch.device) -> Tensor:
    """Add one micro-batch's share to the gradient; returns the sum of its losses.

    A micro-batch whose videos are all broken still takes part, with weight 0, because the other workers wait
    for its all-reduce.
    """
    key = (recipe.plan.seed, batch.plan.epoch, batch.plan.step, batch.plan.index)
    torch.manual_seed(random_seed(*key, "drop path"))
    if not len(batch.labels):
        idle = normalise(torch.zeros(1, *batch.clips.shape[1:], dtype=torch.uint8, device=device))
        torch.autograd.backward(network(idle).sum() * 0.0)
        return torch.zeros((), device=device)
    clips = normalise(batch.clips.to(device, non_blocking=True))
    targets = soft_targets(
        batch.labels.to(device, non_blocking=True),
        num_classes=recipe.num_classes,
        label_smoothing=recipe.mixing.label_smoothing,
    )
    clips, targets = mix(clips, targets, mixing=recipe.mixing, rng=random_generator(*key, "mixing"))
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
        logits = network(clips)
    loss_sum = soft_target_loss_sum(logits, targets)
    # Data parallelism averages over workers, and each worker adds up its own micro-batches.
    workers = dist.get_world_size() if dist.is_initialized() else 1
    torch.autograd.backward(loss_sum * (workers / _planned_clips(recipe)))
    return loss_sum.detach()


def _planned_clips(recipe: Recipe) -> int:
    return recipe.plan.videos_per_step * recipe.clips_per_video
