"""Discrete events in order of time, cores that jobs share, and a queue: all that the simulations are made of."""

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
Growth = Callable[[str, Mapping[str, int]], float]
"""CPU time that work of a kind takes over what it takes alone, by the kind, and by the jobs there are of each kind, it
included."""


@dataclass
class _Kind:
    """The jobs of one kind of work."""

    got_s: float = 0.0
    """Work that a job has got that was there from the start."""
    jobs: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    """A heap by the work at which they are done."""
    speed: float = 1.0
    """Work of each job in a second, as long as no job comes or goes."""
    work_s: float = 0.0
    """Done so far, in the CPU seconds that it takes alone."""
    cpu_s: float = 0.0
    """Spent on it so far."""


class SharedCores:
    """Cores that all running jobs share evenly, each at most one: processor sharing, as an operating system does it.

    With as many jobs as cores, or fewer, each has a core of its own. What a job has of a core does `growth` times less
    work than it would alone, by what else is there at that moment; without it, as much.
    """

    def __init__(self, events: Events, cores: int, growth: Growth | None = None) -> None:
        self._events, self._cores, self._growth = events, cores, growth
        self._since = 0.0
        self._kinds: dict[str, _Kind] = {}
        self._share = 1.0
        """Of a core, for each job."""
        self._known: dict[tuple[int, ...], list[float]] = {}
        """Growths of all kinds by their numbers of jobs: the same few come again and again."""
        self._number = count()
        self._plan = 0  # only the latest plan counts

    def run(self, cpu_s: float, done: Callable[[], None], kind: str = "") -> None:
        """Compute what takes so long on one core alone, then call `done`."""
        self._advance()
        if self._growth is None:
            kind = ""
        if kind not in self._kinds:
            self._kinds[kind] = _Kind()
            self._known.clear()
        its = self._kinds[kind]
        heapq.heappush(its.jobs, (its.got_s + cpu_s, next(self._number), done))
        self._plan_next()

    def spent(self) -> dict[str, tuple[float, float]]:
        """By kind, until the last job came or went: CPU seconds, and those that the same work takes alone."""
        return {name: (kind.cpu_s, kind.work_s) for name, kind in self._kinds.items()}

    def _advance(self) -> None:
        passed_s = self._events.now - self._since
        for kind in self._kinds.values():
            if kind.jobs:
                kind.got_s += passed_s * kind.speed
                kind.work_s += passed_s * kind.speed * len(kind.jobs)
                kind.cpu_s += passed_s * self._share * len(kind.jobs)
        self._since = self._events.now

    def _plan_next(self) -> None:
        self._plan += 1
        jobs = sum(len(kind.jobs) for kind in self._kinds.values())
        if not jobs:
            return
        self._share = min(1.0, self._cores / jobs)
        for kind, growth in zip(self._kinds.values(), self._growths(), strict=True):
            kind.speed = self._share / growth
        left_s, first = min(
            (
                (max(0.0, kind.jobs[0][0] - kind.got_s) / kind.speed, name)
                for name, kind in self._kinds.items()
                if kind.jobs
            )
        )
        self._events.after(left_s, lambda plan=self._plan: self._end_first(first, plan))  # type: ignore[misc]

    def _growths(self) -> list[float]:
        if self._growth is None:
            return [1.0] * len(self._kinds)
        numbers = tuple(len(kind.jobs) for kind in self._kinds.values())
        if numbers not in self._known:
            jobs = dict(zip(self._kinds, numbers, strict=True))
            self._known[numbers] = [self._growth(name, jobs) if jobs[name] else 1.0 for name in jobs]
        return self._known[numbers]

    def _end_first(self, name: str, plan: int) -> None:
        if plan == self._plan:
            self._advance()
            kind = self._kinds[name]
            kind.got_s, _, done = heapq.heappop(kind.jobs)
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
