"""The run's training loop and a plain one, on clips that are already in memory, in rounds.

Run as a program it takes rounds of the plain loop from standard input: the first line names the experiment and the
threads (JSON), each further line a number of steps; each answer is one JSON number, seconds.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import config_to_mapping
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import Cursor, MicroBatchPlan, TrainPlan, random_generator
from morphmlp.models.parts import training_mode
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.task import network_input
from morphmlp.training.loop.device_choices import agreed_precision, prepare_network
from morphmlp.training.loop.length import Length
from morphmlp.training.loop.loop import Recipe, RoundSummary, StepSummary, autocast, fit
from morphmlp.training.loop.state import TrainState, new_state

Step = TypeVar("Step")


class ClipsInMemory:
    """Random clips, alike at every step."""

    def __init__(self, config: ExperimentConfig, plan: TrainPlan, *, pin_memory: bool) -> None:
        """Draw one step's micro-batches; with `pin_memory` where a GPU can fetch them by itself."""
        clip, repeats = config.clip, config.augment.repeats
        rng = random_generator(config.train.seed, "clips in memory")
        self._plan = plan
        self.step: list[MicroBatch] = []
        """Its micro-batches."""
        for index in range(plan.micro_batches_per_step):
            rows = np.arange(index * plan.micro_batch_size, (index + 1) * plan.micro_batch_size, dtype=np.int64)
            shape = (len(rows) * repeats, clip.num_frames, clip.crop_size, clip.crop_size, 3)
            clips = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
            labels = torch.from_numpy(rng.integers(0, config.model.num_classes, shape[0]))
            self.step.append(
                MicroBatch(
                    plan=MicroBatchPlan(epoch=0, step=0, index=index, rows=rows),
                    clips=clips.pin_memory() if pin_memory else clips,
                    labels=labels.pin_memory() if pin_memory else labels,
                    rows=rows,
                    broken=(),
                )
            )

    def train(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """The step again and again, to the end of the epoch."""
        for _ in range(cursor.step, self._plan.steps_per_epoch):
            yield self.step


def recipe_in_memory(config: ExperimentConfig) -> Recipe:
    """An experiment's recipe, over so many videos that no measurement comes to the end of an epoch."""
    size = config.train.global_batch_size
    plan = TrainPlan(
        num_videos=size * 1_000_000,
        global_batch_size=size,
        micro_batch_size=config.train.micro_batch_size,
        seed=config.train.seed,
    )
    return Recipe(
        plan=plan,
        task=task_of(config),
        optim=config.optim,
        length=Length(steps_per_epoch=plan.steps_per_epoch, whole=1_000),
        clips_per_video=config.augment.repeats,
    )


def prepared_state(config: ExperimentConfig, device: torch.device) -> TrainState:
    """A fresh state with the experiment's arithmetic, compiled and recomputed blocks, as a run's only worker has it."""
    precision = agreed_precision(config.train.precision, device)
    state = new_state(task_of(config), train=config.train, optim=config.optim, device=device, precision=precision)
    prepare_network(config, state.model, device, state.precision, local_workers=1)
    return state


def run_steps(
    config: ExperimentConfig, state: TrainState, *, device: torch.device, network: nn.Module | None = None
) -> Iterator[StepSummary]:
    """Endless steps of the loop that runs take (`morphmlp.training.loop.loop.fit`).

    `network` is the state's model, wrapped for data parallelism where processes train together.
    """
    recipe = recipe_in_memory(config)
    clips = ClipsInMemory(config, recipe.plan, pin_memory=device.type == "cuda")
    for summary in fit(state, network or state.model, clips, recipe=recipe, device=device):
        if not isinstance(summary, RoundSummary):
            yield summary


def plain_steps(config: ExperimentConfig, *, device: torch.device) -> Iterator[Tensor]:
    """Endless steps as a plain script takes them: the same arithmetic on the same clips, and nothing else.

    It computes in the experiment's precision, with the loss scaled for fp16. No clock, no counts, no sums over workers,
    no look at whether numbers are finite, BatchNorm as torch has it, and drop path drawn by whatever comes.

    Yields:
        The sum of the losses of each step's last micro-batch, on the device.
    """
    state, recipe = prepared_state(config, device), recipe_in_memory(config)
    task, model, optimizer, scaler = recipe.task, state.model, state.optimizer, state.scaler
    training_mode(model)
    batches = ClipsInMemory(config, recipe.plan, pin_memory=device.type == "cuda").step
    clips_per_step = sum(len(batch.labels) for batch in batches)
    while True:
        optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            targets = task.targets(batch.labels.to(device, non_blocking=True))
            # The run's draws: MixUp and CutMix cost differently.
            rng = random_generator(recipe.plan.seed, 0, 0, batch.plan.index, "mixing")
            clips, targets = task.mix(network_input(batch.clips, state.model, device), targets, rng)
            with autocast(device, state.precision):
                logits = model(clips)
            loss_sum = task.loss_sum(logits, targets)
            torch.autograd.backward(scaler.scale(loss_sum / clips_per_step))
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip_norm or math.inf)
        scaler.step(optimizer)
        scaler.update()
        yield loss_sum.detach()


def timed_round(steps: Iterator[Step], count: int, *, after: Callable[[list[Step]], object]) -> float:
    """Seconds that a round of steps takes, with whatever is done `after` it."""
    began = time.perf_counter()
    after(list(islice(steps, count)))
    return time.perf_counter() - began


def wait_for_last(losses: list[Tensor]) -> None:
    """Wait for the device, so that a round is timed whole."""
    losses[-1].item()


def serve() -> None:
    """Answer rounds of the plain loop from standard input."""
    request = json.loads(sys.stdin.readline())
    torch.set_num_threads(request["threads"])
    steps = plain_steps(config_from_mapping(request["config"]), device=torch.device(request["device"]))
    for line in sys.stdin:
        print(json.dumps(timed_round(steps, int(line), after=wait_for_last)), flush=True)


def request_line(config: ExperimentConfig, *, threads: int, device: str) -> str:
    """The first line that `serve` reads."""
    return json.dumps({"config": config_to_mapping(config), "threads": threads, "device": device})


if __name__ == "__main__":
    serve()
