"""Discrete events in order of time, cores that jobs share, and a queue: all that the simulations are made of."""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count


class Events:
    """Calls in order of their time; those of one time in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds."""
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call this so much later."""
        heapq.heappush(self._planned, (self.now + delay_s, next(self._number), call))

    def run(self, done: Callable[[], bool]) -> None:
        """Go from call to call until `done`, or until nothing is planned."""
        while self._planned and not done():
            self.now, _, call = heapq.heappop(self._planned)
            call()


Serve = Callable[[float, Callable[[], None]], None]
"""Do so many seconds of work, then call."""


class SharedCores:
    """Cores that all running jobs share evenly, each at most one: processor sharing, as an operating system does it.

    With as many jobs as cores, or fewer, each has a core of its own.
    """

    def __init__(self, events: Events, cores: int) -> None:
        self._events, self._cores = events, cores
        self._work_s = 0.0  # what a job that is there from the start has got so far
        self._since = 0.0
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []  # by the work at which they are done
        self._number = count()
        self._plan = 0  # only the latest plan counts

    def run(self, cpu_s: float, done: Callable[[], None]) -> None:
        """Compute for so long on one core, then call `done`."""
        self._advance()
        heapq.heappush(self._jobs, (self._work_s + cpu_s, next(self._number), done))
        self._plan_next()

    def _speed(self) -> float:
        return min(1.0, self._cores / len(self._jobs))

    def _advance(self) -> None:
        if self._jobs:
            self._work_s += (self._events.now - self._since) * self._speed()
        self._since = self._events.now

    def _plan_next(self) -> None:
        self._plan += 1
        if self._jobs:
            left = max(0.0, self._jobs[0][0] - self._work_s)
            self._events.after(left / self._speed(), lambda plan=self._plan: self._end_first(plan))  # type: ignore[misc]

    def _end_first(self, plan: int) -> None:
        if plan == self._plan:
            self._advance()
            self._work_s, _, done = heapq.heappop(self._jobs)
            self._plan_next()
            done()


class Queue:
    """First come, first served, by so many servers: decode cores, or one network link."""

    def __init__(self, events: Events, servers: int, serve: Serve | None = None) -> None:
        """`serve`: where the servers' work is done, such as on shared cores; else each has all that it needs."""
        self._events = events
        self._serve = serve or events.after
        self._free = servers
        self._waiting: deque[tuple[float, float, Callable[[], None]]] = deque()
        self.served = 0
        self.busy_s = 0.0
        """Service times begun, over all servers."""
        self.waited_s = 0.0
        """Time in the queue before service, over all that were served."""

    def submit(self, service_s: float, done: Callable[[], None]) -> None:
        """Serve this as soon as a server is free, then call `done`."""
        self._waiting.append((self._events.now, service_s, done))
        self._start()

    def _start(self) -> None:
        while self._free and self._waiting:
            since, service_s, done = self._waiting.popleft()
            self._free -= 1
            self.served += 1
            self.busy_s += service_s
            self.waited_s += self._events.now - since
            self._serve(service_s, lambda done=done: self._finish(done))  # type: ignore[misc]

    def _finish(self, done: Callable[[], None]) -> None:
        self._free += 1
        done()
        self._start()
