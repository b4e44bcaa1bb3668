"""How a group of training workers ended, and how often that may happen."""

import re
from dataclasses import dataclass
from enum import Enum, auto

from morphmlp.errors import ClusterError, MorphMLPError, StorageError

_RANDOM = re.compile(r"(?<![0-9A-Za-z])(?=[0-9a-f]*[0-9])[0-9a-f]{8,}(?![0-9A-Za-z])")
"""Parts of names that differ between two tries of the same."""


class Ending(Enum):
    """How a group of workers ended."""

    RETURNED = auto()
    """Each one came to the end of its function: the plan's end, or a reason to stop that it reported."""
    NOT_STARTED = auto()
    """They didn't get their places."""
    FAILED = auto()
    """At least one raised or died."""
    NODE_LOST = auto()
    """A machine was taken away, announced or not."""


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a group of workers."""

    ending: Ending
    reason: str = ""
    """In a line; empty where they returned."""
    fault: MorphMLPError | None = None
    """What a worker raised for the user to fix."""
    recorded: bool = True
    """Whether a failure is in the run's record already: the workers' controller writes it, where it lives."""


class Budget:
    """Restarts that a run has left, failures and losses of nodes counted apart."""

    def __init__(self, *, max_failures: int, max_preemptions: int | None) -> None:
        self._max_failures = max_failures
        self._max_preemptions = max_preemptions
        self._failures = 0
        self._preemptions = 0
        self._last_fault: tuple[str, ...] | None = None

    def charge(self, end: End) -> None:
        """Count an end.

        Raises:
            StorageError: Storage failed; workers that start again would take steps again, and fail again.
            MorphMLPError: What a worker raised, where it says the same as the time before or the budget is spent.
            ClusterError: The budget is spent.
        """
        if end.ending is Ending.NODE_LOST:
            self._preemptions += 1
            if self._max_preemptions is not None and self._preemptions > self._max_preemptions:
                raise ClusterError(
                    f"training failed: nodes were lost {self._preemptions} times, cluster.max_preemptions is "
                    f"{self._max_preemptions}; the last time: {end.reason}"
                )
        if end.ending is not Ending.FAILED:
            return
        self._failures += 1
        spent = self._failures > self._max_failures
        if isinstance(end.fault, StorageError):
            raise end.fault
        if end.fault is not None:
            said = (type(end.fault).__name__, *_RANDOM.split(str(end.fault)))
            if spent or said == self._last_fault:
                raise end.fault
            self._last_fault = said
        elif spent:
            raise ClusterError(
                f"training failed: workers failed {self._failures} times, cluster.max_failures is "
                f"{self._max_failures}; the last time: {end.reason}"
            )
