"""Where a run's time went, what it used and what held it up: hours, cost, rates, shares, and a verdict in words."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, Self

from pydantic import TypeAdapter

from morphmlp.config.values import Unit
from morphmlp.line_file import read_json_lines
from morphmlp.record import MetricPoint, Metrics

_STALL_LIMIT = 0.10
"""Share of the time waiting for data up to which ingest keeps up: a cure would gain less than the tenth that
measurements differ by."""
_ALL_REDUCE_LIMIT = 0.20
"""Share up to which communication is what one pays for several workers."""
_OTHER_LIMIT = 0.20
"""Share up to which validation, snapshots and reports are taken for granted."""
_START_LIMIT = 0.5
"""A run that spent more of its time than this on starting is too short to judge."""
_JUDGED_S = 60.0
"""Seconds after the first batch from which on shares of the time mean something; until then buffers fill, caches warm
up, and one slow batch is a tenth of all."""
_LOST_INGEST = "nodes that decode were lost (events.jsonl): keep more; with ingest.decode_elsewhere others stand in"
TRAINING_PASSES = 3
"""A training step computes about three forward passes: the gradients of activations and of weights take one each."""


@dataclass(frozen=True, kw_only=True)
class TimeWindow:
    """From one report of the first worker to the next; its times, seconds, stand for all workers of the group.

    Windows stand in the run's progress file, repeated and skipped steps included. MLflow's points don't have it all: of
    a step that was repeated after a failure they hold the first time only.
    """

    epoch: int
    """Counted from 1."""
    step: int
    """Steps taken at its end, over all epochs."""
    steps: int
    """Steps in it; none after a validation, say."""
    workers: int
    clips: float
    """Clips trained on, over all workers."""
    wall_s: float
    start_s: float
    """Of it: until the worker group's first batch was there."""
    wait_s: float
    """Of it: waiting for later batches."""
    compute_s: float
    all_reduce_s: float
    """Of it: exchanging gradients, and waiting for slower workers."""
    decode_cpu_s: float
    """CPU seconds that decoding the steps' videos took, over all workers."""
    worker_cpu_s: float = 0.0
    """CPU seconds of all workers' processes, their start included, and of decoding validation videos."""
    node_cpu_s: float = 0.0
    """CPU seconds that the first worker's node was busy, with whatever it does; 0 where the system doesn't tell."""

    @property
    def other_s(self) -> float:
        """The rest: validation, snapshots for checkpoints, reports."""
        return max(self.wall_s - self.start_s - self.wait_s - self.compute_s - self.all_reduce_s, 0.0)

    def to_plain(self) -> dict[str, float]:
        """As it stands in a report."""
        return asdict(self)

    @classmethod
    def from_plain(cls, numbers: Mapping[str, float]) -> Self:
        """Back from a report."""
        return TypeAdapter(cls).validate_python(numbers)


def node_busy_s() -> float:
    """CPU seconds that this machine has been busy since its start, over all cores; 0 where it doesn't tell as Linux."""
    try:
        first, *_ = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, interrupts, soft, *_ = map(int, first.split()[1:])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def without_repeats(windows: Sequence[TimeWindow]) -> list[TimeWindow]:
    """The windows that led to the end: those whose steps were taken again after a failure are left out."""
    kept: list[TimeWindow] = []
    for window in windows:
        while kept and kept[-1].step > window.step - window.steps:
            kept.pop()
        kept.append(window)
    return kept


def read_windows(progress: Path) -> list[TimeWindow]:
    """The windows of a run in order, over all its starts, from its progress file (`RunFolder.progress`).

    Without a file there are none.
    """
    return [TimeWindow.from_plain(line["window"]) for line in read_json_lines(progress) if line.get("window")]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the account needs besides the windows."""

    device: Literal["cpu", "cuda"]
    gmacs_per_view: float
    """Billion multiply-accumulates of one view, forward."""
    cpus_per_worker: int
    ingest_cpus: int
    """CPUs of decode tasks, over all workers."""
    gpu_hour_price: float | None
    cpu_hour_price: float | None
    unit: Unit = "epoch"
    """What the training's length is counted in."""
    ingest_lost: bool = False
    """Nodes that decode were missing for a time."""


@dataclass(frozen=True, kw_only=True)
class RunAccount:
    """Sums over a run, or over an epoch of it. Shares are of the time of all workers, 0 to 1."""

    facts: RunFacts
    steps: int
    """Steps taken; one that was repeated after a failure counts each time."""
    clips: float
    wall_s: float
    """Time of the worker groups, from being ready to the last report; time between groups doesn't count."""
    worker_s: float
    """Time of all workers: that of each group times its workers."""
    start_share: float
    stall_share: float
    """Waiting for data once training had begun."""
    compute_share: float
    all_reduce_share: float
    other_share: float
    decode_cpu_s: float

    @property
    def workers(self) -> float:
        """Workers, on average over time."""
        return self.worker_s / self.wall_s if self.wall_s else 0.0

    @property
    def worker_hours(self) -> float:
        """Hours of one worker."""
        return self.worker_s / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU; 0 on CPUs."""
        return self.worker_hours if self.facts.device == "cuda" else 0.0

    @property
    def decode_core_hours(self) -> float:
        """Hours of one CPU core that decoding used, out of those it held."""
        return self.decode_cpu_s / 3600

    @property
    def cpu_hours(self) -> float:
        """Hours of one CPU core that workers and decode tasks held."""
        return (self.worker_s * self.facts.cpus_per_worker + self.wall_s * self.facts.ingest_cpus) / 3600

    @property
    def cost(self) -> float | None:
        """Of the GPUs and CPU cores that the run held, as far as they have a price; None where none has one."""
        gpu_price = self.facts.gpu_hour_price if self.facts.device == "cuda" else None
        priced = [(self.gpu_hours, gpu_price), (self.cpu_hours, self.facts.cpu_hour_price)]
        costs = [hours * price for hours, price in priced if price is not None]
        return sum(costs) if costs else None

    @property
    def clips_per_s(self) -> float:
        """Clips a second over all workers, without the time of starting."""
        seconds = self.wall_s * (1 - self.start_share)
        return self.clips / seconds if seconds > 0 else 0.0

    @property
    def gmacs_per_s(self) -> float:
        """Billion multiply-accumulates a second over all workers: `clips_per_s` with `TRAINING_PASSES`.

        What blocks that are recomputed in the backward pass add isn't counted.
        """
        return self.clips_per_s * self.facts.gmacs_per_view * TRAINING_PASSES

    @property
    def cpu_s_per_clip(self) -> float:
        """CPU core-seconds of decoding, for each clip."""
        return self.decode_cpu_s / self.clips if self.clips else 0.0

    def points(self) -> list[MetricPoint]:
        """The run's metrics for the record."""
        values = {
            Metrics.RUN_WORKER_HOURS: self.worker_hours,
            Metrics.RUN_GPU_HOURS: self.gpu_hours,
            Metrics.RUN_DECODE_CORE_HOURS: self.decode_core_hours,
            Metrics.RUN_COST: self.cost,
            Metrics.RUN_STALL_SHARE: self.stall_share,
            Metrics.RUN_ALL_REDUCE_SHARE: self.all_reduce_share,
            Metrics.RUN_CLIPS_PER_S: self.clips_per_s,
            Metrics.RUN_GMACS_PER_S: self.gmacs_per_s,
            Metrics.RUN_CPU_S_PER_CLIP: self.cpu_s_per_clip,
        }
        return [MetricPoint.now(key, value) for key, value in values.items() if value is not None]

    def verdict(self) -> str:
        """One line: what held the run up, the arithmetic, and what would help."""
        if not self.steps:
            return "no step was taken"
        if self.start_share > _START_LIMIT:
            return (
                f"mostly start-up: {self.start_share:.0%} of the time went by before the first batch; "
                "too short a run to judge its speed"
            )
        cure = "use fewer workers, a number that divides the micro-batches, or a faster network"
        communication = (
            f"communication-bound: {self.all_reduce_share:.0%} of the time went into exchanging gradients and waiting "
            f"for slower workers: {_LOST_INGEST if self.facts.ingest_lost else cure}"
        )
        other = (
            f"held up outside of steps: {self.other_share:.0%} of the time went into validation, snapshots and "
            f"reports: raise execution.validate_every_{self.facts.unit}s or checkpoint.every_minutes"
        )
        busy = self.compute_share / (1 - self.start_share)
        who = "GPUs are" if self.facts.device == "cuda" else "workers' CPUs are"
        computes = f"compute-bound: the {who} busy {busy:.0%} of the time ({_number(self.gmacs_per_s)} GMAC/s)"
        limits = [
            (self.stall_share, _STALL_LIMIT, self._waits_for_data()),
            (self.all_reduce_share, _ALL_REDUCE_LIMIT, communication),
            (self.other_share, _OTHER_LIMIT, other),
        ]
        over = [(share, words) for share, limit, words in limits if share > limit]
        judged_s = self.wall_s * (1 - self.start_share)
        if over and judged_s < _JUDGED_S:
            needed = f"{_JUDGED_S:.0f} are needed"
            return f"too short a run to judge its speed: {judged_s:.0f} s after its first batch, {needed}"
        return max(over, key=lambda found: found[0])[1] if over else computes

    def _waits_for_data(self) -> str:
        waiting = f"training waited for data {self.stall_share:.0%} of the time"
        rate = self.clips_per_s * (1 - self.start_share) / max(1 - self.start_share - self.stall_share, 1e-9)
        needed, held = self.cpu_s_per_clip * rate, self.facts.ingest_cpus
        each = f"{_number(self.cpu_s_per_clip)} CPU-seconds a clip"
        estimate = f"{each} x {_number(rate)} clips/s without waiting = {needed:.1f}"
        if needed <= held:
            cure = "look at the storage's speed, or raise ingest.object_store_mb"
            cure = _LOST_INGEST if self.facts.ingest_lost else cure
            return f"data-bound: {waiting}, yet its {held} decode cores should do ({estimate}): {cure}"
        more = math.ceil((needed - held) / max(self.workers, 1))
        cores = "core" if more == 1 else "cores"
        return (
            f"decode-bound: {waiting}; {estimate} cores, {held} now: add about {more} {cores} per worker "
            "or transcode (`python pipelines/prepare.py transcode`)"
        )


def run_account(windows: Sequence[TimeWindow], facts: RunFacts) -> RunAccount:
    """Add up a run's windows, over all its starts and worker counts."""
    worker_s = sum(window.wall_s * window.workers for window in windows)

    def share(part: Callable[[TimeWindow], float]) -> float:
        return sum(part(window) * window.workers for window in windows) / worker_s if worker_s else 0.0

    return RunAccount(
        facts=facts,
        steps=sum(window.steps for window in windows),
        clips=sum(window.clips for window in windows),
        wall_s=sum(window.wall_s for window in windows),
        worker_s=worker_s,
        start_share=share(lambda window: window.start_s),
        stall_share=share(lambda window: window.wait_s),
        compute_share=share(lambda window: window.compute_s),
        all_reduce_share=share(lambda window: window.all_reduce_s),
        other_share=share(lambda window: window.other_s),
        decode_cpu_s=sum(window.decode_cpu_s for window in windows),
    )


def training_cpu_s(windows: Sequence[TimeWindow]) -> float:
    """CPU core-seconds of training workers and of decoding for them, over all starts of a run.

    Of a run that ends early, too, up to its workers' last report; what a killed worker did after that nobody knows.
    """
    return sum(window.worker_cpu_s + window.decode_cpu_s for window in windows)


def epoch_points(windows: Sequence[TimeWindow], facts: RunFacts) -> list[MetricPoint]:
    """The metrics of each epoch for the record, its number as the step."""
    points = []
    by_epoch = groupby(sorted(windows, key=lambda window: window.epoch), key=lambda window: window.epoch)
    for epoch, its in by_epoch:
        found = run_account(list(its), facts)
        values = {
            Metrics.EPOCH_CLIPS_PER_S: found.clips_per_s,
            Metrics.EPOCH_GMACS_PER_S: found.gmacs_per_s,
            Metrics.EPOCH_STALL_SHARE: found.stall_share,
            Metrics.EPOCH_CPU_S_PER_CLIP: found.cpu_s_per_clip,
            Metrics.EPOCH_WORKER_HOURS: found.worker_hours,
        }
        points += [MetricPoint.now(key, value, epoch) for key, value in values.items()]
    return points


def account_table(account: RunAccount) -> str:
    """The account for the terminal, one quantity a line, the verdict last."""
    hours = "GPU-hours" if account.facts.device == "cuda" else "worker-hours"
    rows = [
        ("steps, clips", f"{account.steps:,}, {account.clips:,.0f}"),
        ("training time", f"{_number(account.wall_s / 3600)} h with {_number(account.workers)} workers"),
        (hours, _number(account.worker_hours)),
        (
            "decode core-hours",
            f"{_number(account.decode_core_hours)} ({_number(account.cpu_s_per_clip)} core-seconds a clip)",
        ),
        *([] if account.cost is None else [("cost", f"{account.cost:,.2f}")]),
        ("speed", f"{_number(account.clips_per_s)} clips/s, {_number(account.gmacs_per_s)} GMAC/s"),
        (
            "time",
            f"computing {account.compute_share:.0%}, waiting for data {account.stall_share:.0%}, "
            f"all-reduce {account.all_reduce_share:.0%}, other {account.other_share:.0%}, "
            f"start {account.start_share:.0%}",
        ),
        ("verdict", account.verdict()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
