"""The training loop on clips that are already in memory, in rounds; the bare side of a comparison.

Run as a program it takes rounds from standard input: the first line names the experiment (YAML text as
JSON string) and threads, each further line a number of steps; each answer is one JSON number, seconds.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from morphmlp.config import ExperimentConfig, config_from_mapping
from morphmlp.config.loading import config_to_mapping
from morphmlp.data.batches import MicroBatch
from morphmlp.data.plan import Cursor, MicroBatchPlan, TrainPlan, random_generator
from morphmlp.training.loop import EpochSummary, Recipe, StepSummary, fit
from morphmlp.training.state import new_state


class ClipsInMemory:
    """The same random clips at every step."""

    def __init__(self, config: ExperimentConfig, plan: TrainPlan) -> None:
        """Draw one step's micro-batches."""
        clip, repeats = config.clip, config.augment.repeats
        rng = random_generator(config.train.seed, "clips in memory")
        self._plan = plan
        self._step = []
        for index in range(plan.micro_batches_per_step):
            rows = np.arange(index * plan.micro_batch_size, (index + 1) * plan.micro_batch_size, dtype=np.int64)
            shape = (len(rows) * repeats, clip.num_frames, clip.crop_size, clip.crop_size, 3)
            self._step.append(
                MicroBatch(
                    plan=MicroBatchPlan(epoch=0, step=0, index=index, rows=rows),
                    clips=torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)),
                    labels=torch.from_numpy(rng.integers(0, config.model.num_classes, shape[0])),
                    rows=rows,
                    broken=(),
                )
            )

    def train(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """The step again and again, to the end of the epoch."""
        for _ in range(cursor.step, self._plan.steps_per_epoch):
            yield self._step


def step_summaries(config: ExperimentConfig, device: torch.device) -> Iterator[StepSummary]:
    """Endless training steps of an experiment on clips in memory."""
    size = config.train.global_batch_size
    plan = TrainPlan(
        num_videos=size * 1_000_000,
        global_batch_size=size,
        micro_batch_size=config.train.micro_batch_size,
        seed=config.train.seed,
    )
    recipe = Recipe(
        plan=plan,
        mixing=config.mixing,
        optim=config.optim,
        epochs=1_000,
        max_steps=None,
        clips_per_video=config.augment.repeats,
        num_classes=config.model.num_classes,
        bf16=False,
    )
    state = new_state(config, device)
    for summary in fit(state, state.model, ClipsInMemory(config, plan), recipe=recipe, device=device):
        if not isinstance(summary, EpochSummary):
            yield summary


def timed_round(summaries: Iterator[StepSummary], steps: int, *, after: Callable[[list[StepSummary]], None]) -> float:
    """Seconds that a round of steps takes, with whatever is done `after` it."""
    began = time.perf_counter()
    after(list(islice(summaries, steps)))
    return time.perf_counter() - began


def serve() -> None:
    """Answer rounds from standard input."""
    request = json.loads(sys.stdin.readline())
    torch.set_num_threads(request["threads"])
    summaries = step_summaries(config_from_mapping(request["config"]), torch.device(request["device"]))
    for line in sys.stdin:
        seconds = timed_round(summaries, int(line), after=lambda steps: _wait(steps[-1]))
        print(json.dumps(seconds), flush=True)


def request_line(config: ExperimentConfig, *, threads: int, device: str) -> str:
    """The first line that `serve` reads."""
    return json.dumps({"config": config_to_mapping(config), "threads": threads, "device": device})


def _wait(summary: StepSummary) -> None:
    # Reading a number waits for the device, so that a round is timed whole.
    float(summary.totals[0])


if __name__ == "__main__":
    serve()
