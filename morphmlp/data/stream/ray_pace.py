"""Keeps Ray Data's scheduling loop from running in circles.

The loop (Ray 2.60, `StreamingExecutor.run`) waits for its tasks. Where all of them are done and their outputs may not
be read yet, because the consumer is slower, that wait returns at once: the loop then takes a whole core, and holds the
interpreter's lock, in the very process that trains. `python pipelines/benchmark.py ingest-ahead` measures it.
"""

import time
from typing import TYPE_CHECKING

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

LEAST_STEP_S = 0.002
"""Least time of a step of the loop that has started a task, or read what one has made."""
LONGEST_REST_S = 0.05
"""The least time of a step doubles with every one that does neither, up to this."""


class Pace(ExecutionCallback):
    """Lets the scheduling loop's thread sleep where its step was shorter than that."""

    def __init__(self) -> None:
        """Begin with a step that may be as short as it likes."""
        self._began_s = 0.0
        self._least_s = LEAST_STEP_S
        self._done: tuple[int, ...] = ()

    def on_execution_step(self, executor: "StreamingExecutor") -> None:
        """A step has ended."""
        done = _done_so_far(executor)
        self._least_s = LEAST_STEP_S if done != self._done else min(2 * self._least_s, LONGEST_REST_S)
        self._done = done
        time.sleep(max(0.0, self._began_s + self._least_s - time.perf_counter()))
        self._began_s = time.perf_counter()


def pace(context: DataContext) -> None:
    """Let the executions of a dataset with this context keep the pace."""
    others = [kind for kind in context.custom_execution_callback_classes if kind is not Pace]
    context.custom_execution_callback_classes = [*others, Pace]


def _done_so_far(executor: "StreamingExecutor") -> tuple[int, ...]:
    """Tasks that were started and ended, and the blocks that were read of them; by operator."""
    metrics = [operator.metrics for operator in executor._topology or ()]
    return tuple(
        count
        for one in metrics
        for count in (one.num_tasks_submitted, one.num_tasks_finished, one.num_task_outputs_generated)
    )
