"""CPU time of a thread by what it does, taken by functions that are replaced while it's measured."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

REST = "the rest"
"""What no named part takes."""

Place = tuple[Any, str]
"""A module or class, and the name of one of its functions."""


class PartClock:
    """Seconds by part. Inside of a part another one may begin: its time is its own."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)
        self._parts = [REST]
        self._since = 0.0

    @contextmanager
    def running(self, places: dict[str, Sequence[Place]]) -> Iterator[None]:
        """Count what this thread does until the end, where each part is what its functions do."""
        replaced = [(owner, name, getattr(owner, name)) for named in places.values() for owner, name in named]
        for part, named in places.items():
            for owner, name in named:
                setattr(owner, name, self._timed(part, getattr(owner, name)))
        self._since = time.thread_time()
        try:
            yield
        finally:
            self._note()
            for owner, name, function in replaced:
                setattr(owner, name, function)

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._note()
            self._parts.append(part)
            self.calls[part] += 1
            try:
                return function(*arguments, **named)
            finally:
                self._note()
                self._parts.pop()

        return timed

    def _note(self) -> None:
        now = time.thread_time()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now
