"""What a checkpoint costs training: the copy between two steps, and the write that slows the next ones down."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import torch

from morphmlp.benchmarks.step_loop import prepared_state, recipe_in_memory, run_steps, timed_round
from morphmlp.config import ExperimentConfig, load_config
from morphmlp.errors import CheckpointError
from morphmlp.training.checkpoint.background_save import BackgroundSaver
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore
from morphmlp.training.loop.loop import StepSummary
from morphmlp.training.loop.state import TrainState, snapshot

WARM_UP_STEPS = 2
PATIENCE_S = 600.0
"""For the last write to end."""


@dataclass(frozen=True, kw_only=True)
class CheckpointStall:
    """Medians over the rounds; a round is some plain steps, a checkpoint, and the steps until it is written."""

    stall_steps: float
    """What a checkpoint delays training by, in plain steps: the standstill and the slower steps during the write."""
    stall_s: float
    """`stall_steps` in seconds; below 0 where steps vary more than the checkpoint costs."""
    standstill_s: float
    """Seconds between two steps that copying the state and handing it over take."""
    standstill_steps: float
    """`standstill_s` in plain steps."""
    slowdown: float
    """Seconds of a step during the write over those of a plain one."""
    step_s: float
    """Seconds of a plain step."""
    write_s: float
    """Seconds from the hand-over to the whole checkpoint, in the background."""
    written_bytes: int
    clips_per_step: int
    threads: int
    device: str
    rounds: int


def stall_config(preset: str, *, clips: int) -> ExperimentConfig:
    """A published model at 16x4 with steps of one small micro-batch.

    Args:
        preset: `s` or `b`.
        clips: Of each step.
    """
    return load_config(
        f"experiments/k400/morphmlp_{preset}_16x4.yaml",
        {"train.global_batch_size": clips, "train.micro_batch_size": clips, "augment.repeats": 1},
    )


def measure_stall(
    config: ExperimentConfig, *, device: torch.device, storage: Path | None, rounds: int, plain: int
) -> CheckpointStall:
    """Train on clips in memory, and write checkpoints as a run does.

    Args:
        config: What to train.
        device: Where.
        storage: Folder whose storage is meant; None: the one for temporary files. Nothing stays in it.
        rounds: Checkpoints.
        plain: Steps before each of them.

    Raises:
        CheckpointError: A checkpoint couldn't be written.
    """
    if storage is not None:
        storage.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="checkpoint-stall-", dir=storage) as folder:
        state = prepared_state(config, device)
        saving = _Saving(config, state, folder)
        steps = run_steps(config, state, device=device)
        for _ in range(WARM_UP_STEPS):
            _step_s(steps)
        measured = [_round(steps, saving, plain=plain) for _ in range(rounds)]
        saving.saver.finish(PATIENCE_S)
    step_s = median(seconds for one in measured for seconds in one.plain_s)
    stall_s = median(one.stall_s for one in measured)
    standstill_s = median(one.standstill_s for one in measured)
    return CheckpointStall(
        stall_steps=stall_s / step_s,
        stall_s=stall_s,
        standstill_s=standstill_s,
        standstill_steps=standstill_s / step_s,
        slowdown=median(mean(one.during_s) / mean(one.plain_s) for one in measured),
        step_s=step_s,
        write_s=median(one.write_s for one in measured),
        written_bytes=saving.written_bytes,
        clips_per_step=config.train.global_batch_size * config.augment.repeats,
        threads=torch.get_num_threads(),
        device=str(device),
        rounds=rounds,
    )


class _Saving:
    """Saves a state as a run does, and knows when it is written."""

    def __init__(self, config: ExperimentConfig, state: TrainState, folder: str) -> None:
        self._config, self._state = config, state
        self._plan = recipe_in_memory(config).plan
        self.saver = BackgroundSaver(CheckpointStore.of(folder, "stall"), keep_last=1, best_by=None)

    def submit(self) -> None:
        content = snapshot(self._state, config=self._config, data_fingerprint="0:0")
        facts = CheckpointFacts(epoch=0, step=self._plan.step_of(self._state.cursor), score=None)
        self._submitted = facts.step
        self.saver.submit(content, facts)

    def is_written(self) -> bool:
        if notes := self.saver.notes():
            raise CheckpointError("\n".join(notes))
        return self.saver.last_saved is not None and self.saver.last_saved.facts.step == self._submitted

    @property
    def written_bytes(self) -> int:
        return 0 if self.saver.last_saved is None else self.saver.last_saved.size


@dataclass(frozen=True, kw_only=True)
class _Round:
    plain_s: list[float]
    standstill_s: float
    during_s: list[float]
    write_s: float

    @property
    def stall_s(self) -> float:
        return self.standstill_s + sum(self.during_s) - len(self.during_s) * mean(self.plain_s)


def _round(steps: Iterator[StepSummary], saving: _Saving, *, plain: int) -> _Round:
    plain_s = [_step_s(steps) for _ in range(plain)]
    began = time.perf_counter()
    saving.submit()
    standstill_s = time.perf_counter() - began
    during_s = [_step_s(steps)]
    while not saving.is_written():
        during_s.append(_step_s(steps))
    write_s = saving.saver.seconds_of_last or 0.0
    return _Round(plain_s=plain_s, standstill_s=standstill_s, during_s=during_s, write_s=write_s)


def _step_s(steps: Iterator[StepSummary]) -> float:
    return timed_round(steps, 1, after=lambda taken: taken[-1].totals.loss_sum.item())
