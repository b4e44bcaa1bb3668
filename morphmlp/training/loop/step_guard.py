"""Watches what the device says of each step, without stalling it.

A step's numbers are copied to the host while the device works on, and read at the latest before the next optimiser
step. All workers read the same numbers, since these are sums over all of them: they agree on what to do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LOSS_SCALE_HALVINGS = 24
"""With fp16: steps in a row whose gradient may overflow, on top of the limit, while the loss scale is being found."""


@dataclass(frozen=True, kw_only=True)
class SkippedStep:
    """A step whose loss or gradient wasn't finite; model and optimiser are as the step met them."""

    step: int
    """Steps taken before it, over all epochs."""
    epoch: int
    loss: float
    """Mean over the clips of all workers."""
    grad_norm: float
    """Before clipping."""


class StepNumbers:
    """A few numbers of one step, on their way from the device."""

    def __init__(self, values: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._copied.record()
        else:
            self._host = values

    @property
    def at_once(self) -> bool:
        """Whether reading waits for nothing."""
        return self._copied is None

    def read(self) -> list[float]:
        """The numbers; waits for the device to get that far."""
        if self._copied is not None:
            self._copied.synchronize()
        numbers: list[float] = self._host.tolist()
        return numbers


class StepGuard:
    """Counts skipped steps, broken videos and requests to stop, one step behind the device at most."""

    def __init__(
        self,
        *,
        max_in_a_row: int = 1,
        loss_scaling: bool = False,
        wants_to_stop: Callable[[], bool] = lambda: False,
        on_skipped: Callable[[SkippedStep], None] = lambda skipped: None,
    ) -> None:
        """Watch nothing yet.

        `max_in_a_row` skipped steps end the run. With `loss_scaling` (fp16) a gradient may overflow until the loss
        scale is found; such steps are skipped but not given to `on_skipped`, which is called while the state is as the
        step met it.
        """
        self.wants_to_stop = wants_to_stop
        self.stop_requested = False
        """Some worker was asked to stop, and all know."""
        self.broken_videos = 0.0
        """Over all workers and the steps so far."""
        self.last_skipped: SkippedStep | None = None
        self._max_in_a_row, self._loss_scaling, self._on_skipped = max_in_a_row, loss_scaling, on_skipped
        self._failed_in_a_row = self._overflowed_in_a_row = 0
        self._watched: tuple[int, int, StepNumbers] | None = None

    @property
    def gave_up(self) -> bool:
        """Whether too many steps in a row were skipped."""
        return (
            self._failed_in_a_row >= self._max_in_a_row
            or self._overflowed_in_a_row >= self._max_in_a_row + LOSS_SCALE_HALVINGS
        )

    def watch(
        self, *, step: int, epoch: int, loss_sum: Tensor, clips: Tensor, grad_norm: Tensor, broken: Tensor, stop: Tensor
    ) -> None:
        """Take a step's numbers over all workers, after its update; those of the step before have been checked."""
        numbers = StepNumbers(torch.stack([loss_sum, clips, grad_norm, broken, stop]).detach())
        self._watched = (step, epoch, numbers)
        if numbers.at_once:
            self.check_pending()

    def check_pending(self) -> None:
        """Act on the step that is being watched; to be called before the state changes again.

        The host reads a step's numbers this late so that it never waits for the device in between.
        """
        if self._watched is None:
            return
        step, epoch, numbers = self._watched
        self._watched = None
        loss_sum, clips, grad_norm, broken, stop = numbers.read()
        self.broken_videos += broken
        self.stop_requested = self.stop_requested or stop > 0
        if math.isfinite(loss_sum) and math.isfinite(grad_norm):
            self._failed_in_a_row = self._overflowed_in_a_row = 0
            return
        skipped = SkippedStep(step=step, epoch=epoch, loss=loss_sum / max(clips, 1), grad_norm=grad_norm)
        if self._loss_scaling and math.isfinite(loss_sum):
            self._overflowed_in_a_row += 1
            return
        self._failed_in_a_row += 1
        self.last_skipped = skipped
        self._on_skipped(skipped)
