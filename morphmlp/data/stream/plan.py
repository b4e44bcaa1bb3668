"""Which videos each optimiser step takes, as a pure function of (seed, epoch).

Nothing here depends on the number of workers, on decode tasks or on arrival order: a step takes its
videos from a permutation of the manifest, the step is divided into micro-batches, and workers take whole
micro-batches. Every random draw of a clip comes from a counter-based key, never from shared state.

Ten million videos are no special case: an epoch's plan is one permutation of four bytes a video, read step by step.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

from morphmlp.config.schema import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The next step to take; what a checkpoint remembers of the stream."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class MicroBatchPlan:
    """One micro-batch of the plan: rows of the manifest that go through the network together."""

    epoch: int
    step: int
    index: int
    """Place inside the step, 0 to K-1."""
    seed: int = 0
    """Root of the draws of its clips; views draw nothing."""
    rows: npt.NDArray[np.int64]
    """Rows of the manifest, a copy: a micro-batch that waits somewhere doesn't keep the epoch's order in memory."""
    copies: npt.NDArray[np.int64] | None = None
    """Which of its places in the epoch each row has here; None: its only one."""

    @property
    def copy_numbers(self) -> npt.NDArray[np.int64]:
        """`copies`, with 0 where each row has one place."""
        return np.zeros_like(self.rows) if self.copies is None else self.copies


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """The order of a whole training run."""

    num_videos: int
    global_batch_size: int
    micro_batch_size: int
    seed: int
    copies: int = 1
    """Places of a video in an epoch that it has at all (`train.copies`)."""

    @classmethod
    def of(cls, train: TrainConfig, *, num_videos: int) -> Self:
        """The plan of an experiment over so many training videos."""
        return cls(
            num_videos=num_videos,
            global_batch_size=train.global_batch_size,
            micro_batch_size=train.micro_batch_size,
            seed=train.seed,
            copies=train.copies,
        )

    @property
    def videos_per_step(self) -> int:
        """Videos of every step: `global_batch_size`, or the whole manifest where that is smaller."""
        return min(self.global_batch_size, self.num_videos)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; a last step that couldn't be filled is left out, as published.

        With copies an epoch has no more: the first videos of its order fill it.
        """
        return self.num_videos // self.videos_per_step

    @property
    def micro_batches_per_step(self) -> int:
        """K: micro-batches of every step."""
        return -(-self.videos_per_step // self.micro_batch_size)

    def step_of(self, cursor: Cursor) -> int:
        """Optimiser steps taken before the cursor, over all epochs."""
        return cursor.epoch * self.steps_per_epoch + cursor.step

    def advance(self, cursor: Cursor) -> Cursor:
        """The cursor after one more step."""
        if cursor.step + 1 < self.steps_per_epoch:
            return Cursor(epoch=cursor.epoch, step=cursor.step + 1)
        return Cursor(epoch=cursor.epoch + 1, step=0)

    def micro_batches(self, cursor: Cursor, *, worker: int, num_workers: int) -> Iterator[MicroBatchPlan]:
        """A worker's micro-batches from the cursor to the end of its epoch, made as they are asked for.

        Micro-batch `index` of each step belongs to worker `index % num_workers`. Copies stand next to each other in the
        epoch's order, and micro-batch `index` takes every K-th place of it from the `index`-th on, as DeiT's sampler
        deals them to its K processes (RASampler); so copies of a video don't meet in a micro-batch where K isn't less.
        """
        order = epoch_order(self.num_videos, seed=self.seed, epoch=cursor.epoch)
        size = self.videos_per_step
        for step in range(cursor.step, self.steps_per_epoch):
            end = (step + 1) * size
            for index in range(worker, self.micro_batches_per_step, num_workers):
                if self.copies > 1:
                    places = np.arange(step * size + index, end, self.micro_batches_per_step)
                else:
                    start = step * size + index * self.micro_batch_size
                    places = np.arange(start, min(start + self.micro_batch_size, end))
                yield MicroBatchPlan(
                    epoch=cursor.epoch,
                    step=step,
                    index=index,
                    seed=self.seed,
                    rows=order[places // self.copies].astype(np.int64),
                    copies=places % self.copies,
                )


def epoch_order(num_videos: int, *, seed: int, epoch: int) -> npt.NDArray[np.signedinteger]:
    """The permutation of the manifest's rows that an epoch follows; four bytes a row where they are enough."""
    kind = np.int32 if num_videos <= np.iinfo(np.int32).max else np.int64
    # The draws of a shuffle depend on the number of rows alone: this is `Generator.permutation(num_videos)` in place.
    order: npt.NDArray[np.signedinteger] = np.arange(num_videos, dtype=kind)
    random_generator(seed, epoch, "order").shuffle(order)
    return order


def worker_share(num_rows: int, *, worker: int, num_workers: int) -> npt.NDArray[np.int64]:
    """The rows that one worker scores: every row belongs to exactly one worker."""
    return np.arange(worker, num_rows, num_workers, dtype=np.int64)


def random_generator(*key: int | str) -> np.random.Generator:
    """A counter-based generator for one key, such as (seed, epoch, video id, repeat)."""
    key_words: ISeedSequence = _PhiloxKey(_digest(key, 16))
    return np.random.Generator(np.random.Philox(cast(np.random.SeedSequence, key_words)))


class _PhiloxKey(ISeedSequence):
    """A key as it is, 16 bytes. `Philox(key=...)` is the same, and also sets up a seed that nobody asks for."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self._key, dtype="<u8")


def random_seed(*key: int | str) -> int:
    """A 63-bit seed for one key, for libraries that take an integer."""
    return int.from_bytes(_digest(key, 8), "little") >> 1


def _digest(key: tuple[int | str, ...], size: int) -> bytes:
    # `repr` keeps 1 and "1" apart and puts quotes around strings, so that no two keys share a text.
    return hashlib.blake2b(repr(key).encode(), digest_size=size).digest()
