"""A simulation of optimiser steps: decode tasks, the network, micro-batches, slow workers, and the gradients' exchange.

Each worker has its own decode cores and reads its tasks in the planned order, as a run's ingest does; clips reach the
workers of a node over its one link. A step ends when the slowest worker has, and the gradients are exchanged. Left out:
Ray's control plane, storage that is slower than its link, and traffic of gradients in the way of clips.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from morphmlp.data.stream.ray_dataset import TASKS_AHEAD
from morphmlp.sizing.events import Events, Queue

Draw = Callable[[float], float]
"""One time around its mean, seconds."""


def exact(mean_s: float) -> float:
    """Always the mean."""
    return mean_s


def scattered(rng: np.random.Generator, variation: float) -> Draw:
    """Log-normal times with this standard deviation over their mean; 0: always the mean."""
    if variation == 0:
        return exact
    sigma = float(np.sqrt(np.log1p(variation**2)))
    return lambda mean_s: mean_s * float(np.exp(rng.normal(-(sigma**2) / 2, sigma)))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A training's mean times, as they are simulated."""

    workers: int
    micro_batches: int
    """Of a step, over all workers: number `i` is of worker `i % workers`."""
    micro_batch: int
    """Its videos."""
    micro_s: float
    """Computing one."""
    exchange_s: float
    """Gradients, after the slowest worker."""
    decode_s: float
    """CPU seconds of a video."""
    cores: int
    """Decode cores of a worker."""
    task_videos: int
    """Videos of a decode task, rounded down to whole micro-batches."""
    link_s: float = 0.0
    """Seconds that a video's clips take on the link of their training node."""
    workers_per_node: int = 1


@dataclass(frozen=True, kw_only=True)
class SimulatedSteps:
    """Means over the simulated steps; shares are of all workers' time."""

    step_s: float
    compute_share: float
    data_wait_share: float
    slower_wait_share: float
    """Waiting for the slowest worker."""
    exchange_share: float
    decode_busy: float
    """Share of the decode cores' time, their start included."""


class _Worker:
    """One worker with its ingest."""

    def __init__(self, run: "_Run", index: int, link: Queue) -> None:
        setting = run.setting
        self._run, self._link = run, link
        self.decoding = Queue(run.events, setting.cores)
        self._batches = len(range(index, setting.micro_batches, setting.workers))
        self._of_task = max(1, setting.task_videos // setting.micro_batch)
        self._made, self._read = 0, 0  # tasks
        self._arrived: set[int] = set()
        self._ready = 0  # micro-batches
        self._taken = 0  # micro-batches, over all steps
        self._left = 0  # of this step
        self._idle_since: float | None = None
        self.compute_s = self.wait_s = 0.0
        self._decode_ahead()

    def begin_step(self) -> None:
        self._left = self._batches
        self._next()

    def _next(self) -> None:
        run = self._run
        if self._left == 0:
            run.arrive()
        elif self._ready == 0:
            self._idle_since = run.events.now
        else:
            self._ready -= 1
            self._left -= 1
            self._taken += 1
            self._decode_ahead()
            seconds = run.compute(run.setting.micro_s)
            self.compute_s += seconds
            run.events.after(seconds, self._next)

    def _decode_ahead(self) -> None:
        """As many tasks as may wait: made, and not yet all taken."""
        setting = self._run.setting
        while self._made - self._taken // self._of_task < TASKS_AHEAD * setting.cores:
            videos = self._of_task * setting.micro_batch
            task, self._made = self._made, self._made + 1
            seconds = self._run.decode(videos * setting.decode_s)
            self.decoding.submit(seconds, lambda task=task, videos=videos: self._send(task, videos))  # type: ignore[misc]

    def _send(self, task: int, videos: int) -> None:
        if self._run.setting.link_s == 0:
            self._arrive(task)
        else:
            self._link.submit(videos * self._run.setting.link_s, lambda: self._arrive(task))

    def _arrive(self, task: int) -> None:
        """In the planned order: a task that is late holds up those behind it."""
        self._arrived.add(task)
        while self._read in self._arrived:
            self._arrived.remove(self._read)
            self._read += 1
            self._ready += self._of_task
        if self._idle_since is not None and self._ready:
            self.wait_s += self._run.events.now - self._idle_since
            self._idle_since = None
            self._next()


class _Run:
    """All workers, step by step."""

    def __init__(self, setting: Setting, compute: Draw, decode: Draw) -> None:
        self.setting, self.compute, self.decode = setting, compute, decode
        self.events = Events()
        nodes = -(-setting.workers // setting.workers_per_node)
        links = [Queue(self.events, 1) for _ in range(nodes)]
        self.workers = [
            _Worker(self, index, links[index // setting.workers_per_node]) for index in range(setting.workers)
        ]
        self.steps = 0
        self._there = 0
        self._begin()

    def arrive(self) -> None:
        """One worker has done its part of the step."""
        self._there += 1
        if self._there == self.setting.workers:
            self.events.after(self.setting.exchange_s, self._end)

    def _end(self) -> None:
        self.steps += 1
        self._begin()

    def _begin(self) -> None:
        self._there = 0
        for worker in self.workers:
            worker.begin_step()

    def until(self, steps: int) -> tuple[float, float, float, float]:
        """Go on to the end of this step: the time, and all workers' computing, waiting for data, decoding."""
        self.events.run(lambda: self.steps >= steps)
        return (
            self.events.now,
            sum(worker.compute_s for worker in self.workers),
            sum(worker.wait_s for worker in self.workers),
            sum(worker.decoding.busy_s for worker in self.workers),
        )


def simulate_steps(
    setting: Setting, *, steps: int, warm_up: int, compute: Draw = exact, decode: Draw = exact
) -> SimulatedSteps:
    """Simulate a training from its start, and take the means over `steps` steps after `warm_up` others.

    The buffers are full at the start of a run's steps: a wait shows once they have run empty, so that `warm_up` must be
    long enough for that.
    """
    run = _Run(setting, compute, decode)
    before = run.until(warm_up)
    after = run.until(warm_up + steps)
    wall_s, computed_s, waited_s, decoded_s = (late - early for early, late in zip(before, after, strict=True))
    all_s = wall_s * setting.workers
    exchange = setting.exchange_s * steps / wall_s
    return SimulatedSteps(
        step_s=wall_s / steps,
        compute_share=computed_s / all_s,
        data_wait_share=waited_s / all_s,
        slower_wait_share=max(0.0, 1 - (computed_s + waited_s) / all_s - exchange),
        exchange_share=exchange,
        decode_busy=decoded_s / (all_s * setting.cores),
    )
