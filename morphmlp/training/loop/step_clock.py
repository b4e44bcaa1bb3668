"""Where the time of a step goes: waiting for data, computing, waiting for the other workers.

Nothing here waits for a device: on a GPU the marks are events in its stream, read when someone asks for the times.
"""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

Mark = float | torch.cuda.Event
"""A moment: of this process's clock, or of a GPU's stream."""


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """The times of one step of one worker, seconds. Reading any but `step_s` waits for the step to end on its device.

    The three parts don't overlap. They add up to less than `step_s` where the host does something else in between, and
    step by step also where a GPU lags behind the host; over many steps that evens out.
    """

    step_s: float
    """From asking for the step's batch to having handed all its work to the device, on the host's clock."""
    asked_s: float
    """Of it, the host waiting for the batch."""
    before: Mark | None
    """The end of the step before; None for the first one."""
    begin: Mark
    ready: Mark | None
    """This worker's own gradients are there; None without other workers."""
    reduced: Mark | None
    """Everyone's gradients and sums are there."""
    end: Mark

    @property
    def wait_s(self) -> float:
        """The device standing idle for data; what of the host's wait a busy device didn't notice isn't counted."""
        return self.asked_s if self.before is None else min(self.asked_s, _seconds(self.before, self.begin))

    @property
    def all_reduce_s(self) -> float:
        """From the worker's own gradients to the mean over all workers; 0 with one worker.

        That is communication that no computation hides, and waiting for slower workers.
        """
        return 0.0 if self.ready is None or self.reduced is None else _seconds(self.ready, self.reduced)

    @property
    def compute_s(self) -> float:
        """The rest, from the batch's arrival to the new weights."""
        return _seconds(self.begin, self.end) - self.all_reduce_s


class StepClock:
    """Takes the times of step after step. Per step: `begin`, forward and backward, `reduced`, `end`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began_s = self._asked_s = 0.0
        self._begin: Mark = 0.0
        self._before: Mark | None = None
        self._ready: Mark | None = None
        self._reduced: Mark | None = None

    def watch(self, network: DistributedDataParallel) -> None:
        """Learn from a network when a step's last gradients are handed over, once before its first step.

        The gradients stay what they are without this, bit for bit.
        """
        network.register_comm_hook(self, _average)

    def begin(self, wait_s: float) -> None:
        """The step's batch is there; the host has waited for it so many seconds."""
        self._began_s, self._asked_s = time.perf_counter(), wait_s
        self._begin = self._mark()
        self._ready = self._reduced = None

    def handed_over(self) -> None:
        """This worker's last gradients go to the others; called by a watched network."""
        self._ready = self._mark()

    def reduced(self) -> None:
        """Everyone's gradients and sums are there, or will be when the device comes to this point."""
        self._reduced = self._mark()

    def end(self) -> StepTimes:
        """The step is done, as far as the host is concerned."""
        end = self._mark()
        times = StepTimes(
            step_s=time.perf_counter() - self._began_s + self._asked_s,
            asked_s=self._asked_s,
            before=self._before,
            begin=self._begin,
            ready=self._ready,
            reduced=self._reduced,
            end=end,
        )
        self._before = end
        return times

    def _mark(self) -> Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        event.record(torch.cuda.current_stream(self._device))
        return event


def _average(
    clock: StepClock,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # torch exports it only where it's built with distributed
) -> torch.futures.Future[Tensor]:
    """What DistributedDataParallel does with a bucket of gradients by itself, and a mark at the last one."""
    if bucket.is_last():
        clock.handed_over()
    # Multiplied by the inverse, as there, and not divided: for three workers the two round differently.
    gradients = bucket.buffer().mul_(1.0 / dist.get_world_size())
    work = dist.all_reduce(gradients, async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def _seconds(start: Mark, end: Mark) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    raise TypeError("marks of a GPU and of the host's clock have no time between them")
