"""Discrete events in order of time, and a queue with servers: all that the simulations are made of."""

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


class Queue:
    """First come, first served, by so many servers: decode cores, or one network link."""

    def __init__(self, events: Events, servers: int) -> None:
        self._events = events
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
            self._events.after(service_s, lambda done=done: self._finish(done))  # type: ignore[misc]

    def _finish(self, done: Callable[[], None]) -> None:
        self._free += 1
        done()
        self._start()
