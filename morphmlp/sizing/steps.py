"""A simulation of optimiser steps: decode tasks, the network, micro-batches, slow workers, and the gradients' exchange.

Each worker has its own decode tasks at a time and reads them in the planned order, as a run's ingest does; clips reach
the workers of a node over its one link. Where workers compute on CPUs, or ingest has no nodes of its own, all of a
node's workers and decode tasks share its cores. Gradients are exchanged bucket by bucket, beside the backward pass, as
DistributedDataParallel does; each bucket waits for the slowest worker. On shared cores the exchange is work of every
worker, once the last one has computed. Left out: storage that is slower than its link, and traffic of gradients in the
way of clips.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from morphmlp.data.stream.ray_dataset import TASKS_AHEAD
from morphmlp.sizing.contention import COMPUTING, DECODING
from morphmlp.sizing.events import Events, Growth, Queue, Serve, SharedCores
from morphmlp.training.record.accounting import TRAINING_PASSES

EXCHANGING = "exchanging"
"""The kind of work that sends gradients round; the others are those of `morphmlp.sizing.contention`."""
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
    """Computing one; CPU seconds where cores are shared."""
    exchange_s: float
    """Sending all gradients round; where cores are shared, CPU seconds of each worker, once all have computed."""
    buckets: int = 1
    """That gradients go in. They are ready evenly over the backward pass of a worker's last micro-batch, behind which
    all but the last can hide."""
    decode_s: float
    """CPU seconds of a video."""
    cores: int
    """Decode cores of a worker."""
    task_videos: int
    """Videos of a decode task, rounded down to whole micro-batches."""
    link_s: float = 0.0
    """Seconds that a video's clips take on the link of their training node."""
    workers_per_node: int = 1
    shared_cores: int | None = None
    """Cores of a node that its workers and decode tasks share; None: GPUs compute, and ingest has cores of its own."""
    hand_over_s: float = 0.0
    """CPU seconds of a video between its decode task and the training loop, in the worker's process."""
    epoch_steps: int | None = None
    """Steps until the stream of clips begins anew; None: never."""
    epoch_start_s: float = 0.0
    """From a stream's beginning to the start of its first decode tasks."""
    optimiser_s: float = 0.0
    """CPU seconds of each worker at every step, whatever its micro-batches."""
    growth: Growth | None = None
    """Where cores are shared: by how much other work grows the CPU seconds of this one, which are then those that it
    takes alone. Kinds of work are `COMPUTING`, `DECODING` and `EXCHANGING`."""


@dataclass(frozen=True, kw_only=True)
class SimulatedSteps:
    """Means over the simulated steps; shares are of all workers' time."""

    step_s: float
    compute_share: float
    """Where cores are shared, with the waiting for one."""
    data_wait_share: float
    slower_wait_share: float
    """Waiting for the slowest worker."""
    exchange_share: float
    """Of gradients, where no computing hides it."""
    decode_busy: float
    """Share of the decode cores' time, their start included; without the growth of their work."""
    grown: Mapping[str, float] = field(default_factory=dict)
    """By kind of work on shared cores: CPU seconds over those that it takes alone."""


_Cores = Callable[[str], Serve]
"""Of one node: where its work of a kind is done."""


class _Worker:
    """One worker with its ingest."""

    def __init__(self, run: "_Run", index: int, link: Queue, cores: "_Cores") -> None:
        setting = run.setting
        self._run, self._link = run, link
        self._compute, self._move, self.exchange = (cores(kind) for kind in (COMPUTING, DECODING, EXCHANGING))
        self.decoding = Queue(run.events, setting.cores, self._move)
        self._batches = len(range(index, setting.micro_batches, setting.workers))
        self._of_task = max(1, setting.task_videos // setting.micro_batch)
        self._idle_since: float | None = None
        self._left = 0  # micro-batches of this step
        self.began = self.ended = 0.0
        """The step's last micro-batch."""
        self.compute_s = self.wait_s = 0.0

    def begin_epoch(self) -> None:
        """A stream of its own, with nothing decoded yet."""
        setting = self._run.setting
        self._made, self._read = 0, 0  # tasks
        self._arrived: set[int] = set()
        self._ready, self._taken = 0, 0  # micro-batches
        self._all = math.inf if setting.epoch_steps is None else setting.epoch_steps * self._batches
        self._run.events.after(setting.epoch_start_s, self._decode_ahead)

    def begin_step(self) -> None:
        self.began = self.ended = self._run.events.now
        self._left = self._batches
        if self._run.setting.optimiser_s:
            self._compute(self._run.setting.optimiser_s, self._end_micro_batch)
        else:
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
            self.began = run.events.now
            self._compute(run.compute(run.setting.micro_s), self._end_micro_batch)

    def _end_micro_batch(self) -> None:
        self.ended = self._run.events.now
        self.compute_s += self.ended - self.began
        self._next()

    def _decode_ahead(self) -> None:
        """As many tasks as may wait: made, and not yet all taken."""
        setting = self._run.setting
        while self._made - self._taken // self._of_task < TASKS_AHEAD * setting.cores:
            batches = int(min(self._of_task, self._all - self._made * self._of_task))
            if batches <= 0:  # the epoch's last is made
                return
            task, self._made = self._made, self._made + 1
            videos = batches * setting.micro_batch
            seconds = self._run.decode(videos * setting.decode_s)
            self.decoding.submit(seconds, lambda task=task, videos=videos: self._send(task, videos))  # type: ignore[misc]

    def _send(self, task: int, videos: int) -> None:
        if self._run.setting.link_s == 0:
            self._hand_over(task, videos)
        else:
            self._link.submit(videos * self._run.setting.link_s, lambda: self._hand_over(task, videos))

    def _hand_over(self, task: int, videos: int) -> None:
        if self._run.setting.hand_over_s == 0:
            self._arrive(task)
        else:
            self._move(videos * self._run.setting.hand_over_s, lambda: self._arrive(task))

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
        self._shared: list[SharedCores] = []
        nodes = [(Queue(self.events, 1), self._cores()) for _ in range(-(-setting.workers // setting.workers_per_node))]
        self.workers = [
            _Worker(self, index, *nodes[index // setting.workers_per_node]) for index in range(setting.workers)
        ]
        self.steps = 0
        self.exchange_s = 0.0
        """Of it what no worker's computing hides."""
        self._there = 0
        """Workers that have done their part: of the micro-batches, then of the exchange."""
        self._since = 0.0
        """The exchange's beginning."""
        self._begin()

    def _cores(self) -> "_Cores":
        shared, setting = None, self.setting
        if setting.shared_cores is not None:
            shared = SharedCores(self.events, setting.shared_cores, setting.growth)
            self._shared.append(shared)
        return lambda kind: self.events.after if shared is None else partial(shared.run, kind=kind)

    def arrive(self) -> None:
        """One worker has done its part of the step."""
        self._there += 1
        if self._there == self.setting.workers:
            self._there, self._since = 0, self.events.now
            if self.setting.shared_cores is None:
                self.events.after(self._exchanged() - self.events.now, self._end)
            else:
                for worker in self.workers:
                    worker.exchange(self.setting.exchange_s, self._exchange_with_others)

    def _exchange_with_others(self) -> None:
        """One worker has done its part of the exchange."""
        self._there += 1
        if self._there == self.setting.workers:
            self._end()

    def _exchanged(self) -> float:
        """When the last bucket of gradients has been round: one after the other, each when all workers have it.

        Buckets are ready evenly over the backward pass of a worker's last micro-batch.
        """
        number = self.setting.buckets
        ended = np.array([worker.ended for worker in self.workers])
        backward_s = (ended - [worker.began for worker in self.workers]) * (TRAINING_PASSES - 1) / TRAINING_PASSES
        done = 0.0
        for later in range(number - 1, -1, -1):
            done = max(done, float((ended - backward_s * later / number).max())) + self.setting.exchange_s / number
        return done

    def _end(self) -> None:
        self.exchange_s += self.events.now - self._since
        self.steps += 1
        self._begin()

    def _begin(self) -> None:
        self._there = 0
        if self.steps % (self.setting.epoch_steps or math.inf) == 0:
            for worker in self.workers:
                worker.begin_epoch()
        for worker in self.workers:
            worker.begin_step()

    def spent(self) -> dict[str, npt.NDArray[np.float64]]:
        """Of each kind of work, over all nodes: CPU seconds so far, and those that it takes alone."""
        kinds: dict[str, npt.NDArray[np.float64]] = {}
        for shared in self._shared:
            for kind, seconds in shared.spent().items():
                kinds[kind] = kinds.get(kind, 0.0) + np.array(seconds)
        return kinds

    def until(self, steps: int) -> tuple[float, float, float, float, float]:
        """Go on to the end of this step: the time; all workers' computing, waiting for data, decoding; exchange."""
        self.events.run(lambda: self.steps >= steps)
        return (
            self.events.now,
            sum(worker.compute_s for worker in self.workers),
            sum(worker.wait_s for worker in self.workers),
            sum(worker.decoding.busy_s for worker in self.workers),
            self.exchange_s,
        )


def simulate_steps(
    setting: Setting, *, steps: int, warm_up: int, compute: Draw = exact, decode: Draw = exact
) -> SimulatedSteps:
    """Simulate a training from its start, and take the means over `steps` steps after `warm_up` others.

    The buffers are full at the start of a run's steps: a wait shows once they have run empty, so that `warm_up` must be
    long enough for that.
    """
    run = _Run(setting, compute, decode)
    before, spent_before = run.until(warm_up), run.spent()
    after, spent = run.until(warm_up + steps), run.spent()
    wall_s, computed_s, waited_s, decoded_s, exchange_s = (
        late - early for early, late in zip(before, after, strict=True)
    )
    all_s = wall_s * setting.workers
    exchange = exchange_s / wall_s
    return SimulatedSteps(
        step_s=wall_s / steps,
        compute_share=computed_s / all_s,
        data_wait_share=waited_s / all_s,
        slower_wait_share=max(0.0, 1 - (computed_s + waited_s) / all_s - exchange),
        exchange_share=exchange,
        decode_busy=decoded_s / (all_s * setting.cores),
        grown=_growths(spent_before, spent),
    )


def _growths(
    before: Mapping[str, npt.NDArray[np.float64]], after: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, float]:
    spent = {kind: seconds - before.get(kind, 0.0) for kind, seconds in after.items()}
    return {kind: float(cpu_s / alone_s) for kind, (cpu_s, alone_s) in spent.items() if alone_s}
