"""The optimisation itself: load, step, yield.

The gradient of a step is the mean over the clips of all its micro-batches, and every draw belongs to a
micro-batch, so the loss curve doesn't depend on how many workers share the step. A step whose loss or gradient isn't
finite changes nothing but the cursor.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from morphmlp.config.schema import ExperimentConfig, OptimConfig
from morphmlp.data.clips.augment import erase_normalised
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import Cursor, TrainPlan, random_generator, random_seed
from morphmlp.models.parts import training_mode
from morphmlp.tasks.task import Sums, Task, network_input
from morphmlp.training.loop.batch_norm import RunningStatistics
from morphmlp.training.loop.length import Length
from morphmlp.training.loop.recipe import learning_rate
from morphmlp.training.loop.state import Precision, TrainState
from morphmlp.training.loop.step_clock import StepClock, StepTimes
from morphmlp.training.loop.step_guard import StepGuard


@dataclass(frozen=True, eq=False, kw_only=True)
class StepTotals(Sums):
    """What a step sums over all workers, fp32 scalars on the device; a skipped step has no loss and no clips."""

    loss_sum: Tensor
    clips: Tensor
    broken: Tensor
    """Videos that couldn't be used."""
    skipped: Tensor
    """1 where loss or gradient isn't finite."""
    stop: Tensor
    """Workers that are asked to stop."""
    decode_cpu_s: Tensor
    """CPU seconds of decoding."""
    concealed: Tensor
    """Frames of the clips that stand in for damaged ones."""
    retried: Tensor
    """Videos that only a second decoder could read."""

    @classmethod
    def of_worker(cls, loss_sum: Tensor, *, micro_batches: Sequence[MicroBatch] = (), stop: bool = False) -> Self:
        """One worker's part of a step; whether the step is skipped follows from the sums."""
        known = [
            sum(len(batch.labels) for batch in micro_batches),
            sum(len(batch.broken) for batch in micro_batches),
            0,
            stop,
            sum(batch.cpu_s for batch in micro_batches),
            sum(batch.concealed for batch in micro_batches),
            sum(batch.retried for batch in micro_batches),
        ]
        # One transfer for all that the host knows.
        numbers = torch.tensor(known, dtype=torch.float32).to(loss_sum.device, non_blocking=True)
        clips, broken, skipped, stops, decode_cpu_s, concealed, retried = numbers.unbind()
        return cls(
            loss_sum=loss_sum,
            clips=clips,
            broken=broken,
            skipped=skipped,
            stop=stops,
            decode_cpu_s=decode_cpu_s,
            concealed=concealed,
            retried=retried,
        )

    def where_finite(self, finite: Tensor) -> Self:
        """The same step, without loss and clips where it is skipped."""
        return replace(
            self,
            loss_sum=torch.where(finite > 0, self.loss_sum, 0.0),
            clips=torch.where(finite > 0, self.clips, 0.0),
            skipped=1.0 - finite,
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the loop needs of an experiment."""

    plan: TrainPlan
    task: Task
    optim: OptimConfig
    length: Length
    clips_per_video: int

    @classmethod
    def of(cls, config: ExperimentConfig, *, plan: TrainPlan, task: Task) -> Self:
        """The recipe of an experiment."""
        return cls(
            plan=plan,
            task=task,
            optim=config.optim,
            length=Length.of(config, steps_per_epoch=plan.steps_per_epoch),
            clips_per_video=config.augment.repeats,
        )

    @property
    def planned_clips(self) -> int:
        """Clips of a step in which no video is broken."""
        return self.plan.videos_per_step * self.clips_per_video

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run, from its beginning to its end."""
        return self.length.total_steps


class TrainClips(Protocol):
    """Where a worker's micro-batches come from: Ray Data in a run, a list in a test."""

    def train(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """One item per step, from the cursor to the end of its epoch: this worker's micro-batches."""


@dataclass(frozen=True, kw_only=True)
class StepSummary:
    """One optimiser step. The numbers over all workers stay on the device until someone asks."""

    step: int
    """Steps taken before this one, over all epochs."""
    epoch: int
    lr: float
    times: StepTimes
    """Where this worker's time went, from batch to batch."""
    broken: tuple[BrokenVideo, ...]
    """Broken videos that this worker met."""
    totals: StepTotals
    """Over all workers."""
    grad_norm: Tensor
    """Before clipping."""


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """The end of a round (see `Length`)."""

    step: int
    """Steps taken so far, over all epochs."""
    totals: StepTotals
    """Over all workers and the round's steps that were taken in this process."""


def fit(
    state: TrainState,
    network: nn.Module,
    clips: TrainClips,
    *,
    recipe: Recipe,
    device: torch.device,
    guard: StepGuard | None = None,
) -> Iterator[StepSummary | RoundSummary]:
    """Train from the state's cursor to the end; the state is ready to be saved at every yield.

    The network is the state's model, wrapped for data parallelism where there are several workers. Without a guard
    nobody hears of skipped steps.
    """
    plan, length = recipe.plan, recipe.length
    stepper = Stepper(state, network, recipe=recipe, device=device, guard=guard or StepGuard())
    training_mode(state.model)
    while (done := plan.step_of(state.cursor)) < length.total_steps:
        asked = time.perf_counter()
        for micro_batches in clips.train(state.cursor):
            summary = stepper.take(micro_batches, wait_s=time.perf_counter() - asked)
            yield summary
            if (done := summary.step + 1) == length.total_steps:
                break
            if state.cursor.step and length.ends_round(done):  # inside an epoch: its clips wait meanwhile
                yield from stepper.end_round()
            asked = time.perf_counter()
        if length.ends_round(done):
            yield from stepper.end_round()


class Stepper:
    """Takes optimiser steps, each over this worker's micro-batches and with the gradient of all workers' clips."""

    def __init__(
        self, state: TrainState, network: nn.Module, *, recipe: Recipe, device: torch.device, guard: StepGuard
    ) -> None:
        self.state, self.guard, self._network, self._recipe = state, guard, network, recipe
        self._device = device
        self._parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
        self._statistics = RunningStatistics(state.model)
        self._clock = StepClock(device)
        self._round = StepTotals.of_worker(torch.zeros((), device=device))
        if isinstance(network, DistributedDataParallel):
            self._clock.watch(network)

    def take(self, micro_batches: Sequence[MicroBatch], *, wait_s: float = 0.0) -> StepSummary:
        """The step at the state's cursor.

        The micro-batches are this worker's, for which it has waited `wait_s` seconds.
        """
        self._clock.begin(wait_s)
        state, plan, cursor = self.state, self._recipe.plan, self.state.cursor
        step, length = plan.step_of(cursor), self._recipe.length
        lr = learning_rate(length.position(step), whole=length.whole, optim=self._recipe.optim)
        totals, statistics = self._add_up(micro_batches, self._gradients(micro_batches))
        grad_norm = self._finish_gradients(trained_clips=totals.clips)
        self._statistics.put_back()
        self.guard.check_pending()  # of the step before: until here the state is the one that it met
        finite = (torch.isfinite(totals.loss_sum) & torch.isfinite(grad_norm)).float()
        self._move(lr, finite=finite)
        self._statistics.end_step(statistics, totals.clips * finite)
        self.guard.watch(
            step=step,
            epoch=cursor.epoch,
            loss_sum=totals.loss_sum,
            clips=totals.clips,
            grad_norm=grad_norm,
            broken=totals.broken,
            stop=totals.stop,
        )
        state.cursor = plan.advance(cursor)
        taken = totals.where_finite(finite)
        self._round = self._round + taken
        return StepSummary(
            step=step,
            epoch=cursor.epoch,
            lr=lr,
            times=self._clock.end(),
            broken=tuple(video for batch in micro_batches for video in batch.broken),
            totals=taken,
            grad_norm=grad_norm,
        )

    def end_round(self) -> Iterator[RoundSummary]:
        """The round that ends here; whoever takes it may use the model, in evaluation too."""
        self.guard.check_pending()
        yield RoundSummary(step=self._recipe.plan.step_of(self.state.cursor), totals=self._round)
        self._round = StepTotals.of_worker(torch.zeros((), device=self._device))
        training_mode(self.state.model)

    def _gradients(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Gradients of all workers' clips, not yet scaled; returns the sum of this worker's losses."""
        self.state.optimizer.zero_grad(set_to_none=True)
        self._statistics.begin_step()
        loss_sum = torch.zeros((), device=self._device)
        for place, batch in enumerate(micro_batches):
            gathers = place == len(micro_batches) - 1 or not isinstance(self._network, DistributedDataParallel)
            with nullcontext() if gathers else self._network.no_sync():  # type: ignore[operator]  # only DDP gets here
                loss_sum += forward_backward(self.state, self._network, batch, recipe=self._recipe, device=self._device)
            if len(batch.labels):
                self._statistics.add_micro_batch(len(batch.labels))
        return loss_sum

    def _add_up(self, micro_batches: Sequence[MicroBatch], loss_sum: Tensor) -> tuple[StepTotals, Tensor]:
        """The totals and BatchNorm's flat sums over all workers; both travel in one all-reduce."""
        own = StepTotals.of_worker(loss_sum, micro_batches=micro_batches, stop=self.guard.wants_to_stop())
        packed, statistics = own.pack(), self._statistics.flat_sums()
        sums = torch.cat([packed, statistics])
        if dist.is_initialized():
            dist.all_reduce(sums)
        self._clock.reduced()
        totals, statistics = torch.split(sums, [len(packed), len(statistics)])
        return own.unpack(totals), statistics

    def _finish_gradients(self, *, trained_clips: Tensor) -> Tensor:
        """Undo the loss scale, make means of sums, clip; returns the norm before clipping."""
        self.state.scaler.unscale_(self.state.optimizer)
        # The losses were divided by the planned clips; where videos are broken, fewer took part.
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, self._recipe.planned_clips / trained_clips.clamp(min=1))
        limit = self._recipe.optim.clip_norm
        return nn.utils.clip_grad_norm_(self._parameters, math.inf if limit is None else limit)

    def _move(self, lr: float, *, finite: Tensor) -> None:
        """Move weights and moments, unless the step is skipped; the device decides, without the host."""
        optimizer, scaler = self.state.optimizer, self.state.scaler
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        optimizer.found_inf = 1.0 - finite  # type: ignore[attr-defined]  # read by the fused step, as torch.amp sets it
        scaler.step(optimizer)
        scaler.update()
        if self.state.averaged is not None:
            self.state.averaged.update(finite)


def forward_backward(
    state: TrainState, network: nn.Module, batch: MicroBatch, *, recipe: Recipe, device: torch.device
) -> Tensor:
    """Add one micro-batch's share to the gradient; returns the sum of its losses.

    A micro-batch whose videos are all broken still takes part, with weight 0, because the other workers wait
    for its all-reduce.
    """
    key = (recipe.plan.seed, batch.plan.epoch, batch.plan.step, batch.plan.index)
    seed_draws(random_seed(*key, "drop path"), device)
    if not len(batch.labels):
        idle = torch.zeros(1, *batch.clips.shape[1:], dtype=torch.uint8)
        outputs = network(network_input(idle, state.model, device))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        # Every output, so that every parameter has a gradient for the all-reduce.
        torch.autograd.backward(state.scaler.scale(sum(output.sum() for output in outputs) * 0.0))
        return torch.zeros((), device=device)
    task, clips = recipe.task, network_input(batch.clips, state.model, device)
    if batch.erased:
        seed_draws(random_seed(*key, "erasing"), device)
        erase_normalised(clips, batch.erased)
        seed_draws(random_seed(*key, "drop path"), device)
    targets = task.targets(batch.labels.to(device, non_blocking=True))
    clips, targets = task.mix(clips, targets, random_generator(*key, "mixing"))
    with autocast(device, state.precision):
        outputs = network(clips)
    loss_sum = task.loss_sum(outputs, targets)
    # Data parallelism averages over workers, and each worker adds up its own micro-batches.
    workers = dist.get_world_size() if dist.is_initialized() else 1
    torch.autograd.backward(state.scaler.scale(loss_sum * (workers / recipe.planned_clips)))
    return loss_sum.detach()


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed what a device's layers draw from; `torch.manual_seed` does it too, and asks every other kind of device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The forward pass's arithmetic."""
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=precision != "fp32")
