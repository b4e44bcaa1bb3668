"""The simulation against real runs whose workers and decode tasks share a machine's cores.

A simulation starts from CPU seconds, which are measured whoever else waits for a core, and finds how long a step takes.
They are the run's own, or those of another run with fewer workers. CPU seconds themselves grow with what else a machine
does; where that was measured (`Contention`), what each piece of work takes alone is worked out first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from tabulate import tabulate

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.errors import ConfigError
from morphmlp.sizing.contention import COMPUTING, DECODING, Contention
from morphmlp.sizing.inputs import Work, work_of
from morphmlp.sizing.steps import Setting, SimulatedSteps, simulate_steps
from morphmlp.training.record.accounting import TimeWindow, read_windows

OTHER_SHARE = 0.05
"""Of a window's seconds: most that isn't spent on steps, where the window tells what steps cost."""
ROUNDS = 4
"""Of working out what costs are alone: growth depends on them, but little."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run's folder says of it."""

    name: str
    config: ExperimentConfig
    work: Work
    windows: Sequence[TimeWindow]
    """With steps and little else: without the start, and without a snapshot or a validation, whose CPU times can't be
    told from those of steps."""

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """By its folder.

        Raises:
            ConfigError: It is none, or doesn't say what the simulation needs.
        """
        if not (folder / "experiment.yaml").is_file():
            raise ConfigError([f"--check {folder}: is no run's folder: it has no experiment.yaml"])
        config = load_config(folder / "experiment.yaml")
        windows = [window for window in read_windows(folder / "progress.jsonl") if _is_steps(window)]
        faults = []
        if config.ingest.cpus is None:
            faults.append(f"--check {folder}: the run left its decode cores open; train with --ingest.cpus NUMBER")
        if len(windows) < 2 or len({window.workers for window in windows}) > 1:
            faults.append(f"--check {folder}: needs two reports or more of steps alone, all by as many workers")
        if config.cluster.device == "cuda" or config.cluster.cpus_per_worker > 1:
            faults.append(f"--check {folder}: is for workers that compute on one CPU each")
        if faults:
            raise ConfigError(faults)
        return cls(name=folder.name, config=config, work=work_of(config, videos=None, val_videos=0), windows=windows)

    @property
    def workers(self) -> int:
        """As many all the time."""
        return self.windows[0].workers

    @property
    def steps(self) -> int:
        """Over all windows."""
        return sum(window.steps for window in self.windows)

    def begins_epoch(self, window: TimeWindow) -> bool:
        """Whether the window's first step is an epoch's: its stream of clips begins anew."""
        return (window.step - window.steps) % self.work.steps_per_epoch == 0


def _is_steps(window: TimeWindow) -> bool:
    return window.steps > 0 and window.start_s + window.other_s <= OTHER_SHARE * window.wall_s


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What `benchmark.py shared-cores` found."""

    processes: int
    """As many as it has cores."""
    exchange_cpu_s: float
    """Of one of them, for exchanging gradients with the others."""
    contention: Contention | None = None
    """What `benchmark.py busy-cores` found, where that was asked."""

    @classmethod
    def read(cls, *paths: Path) -> "Machine":
        """From the benchmark's JSON, and where it was measured, that of `benchmark.py busy-cores`, in any order.

        Raises:
            ConfigError: They are others, or of different machines.
        """
        busy = {path: found for path in paths if (found := Contention.find(path)) is not None}
        shared = [path for path in paths if path not in busy]
        if len(shared) != 1 or len(busy) > 1:
            raise ConfigError(
                [
                    f"--measured {', '.join(map(str, paths))}: --check needs one result of `benchmark.py shared-cores "
                    "--json FILE`, and takes one of `busy-cores`"
                ]
            )
        contention = next(iter(busy.values()), None)
        try:
            content = json.loads(shared[0].read_text(encoding="utf-8"))
            machine = cls(
                processes=content["processes"], exchange_cpu_s=content["exchange_cpu_s"], contention=contention
            )
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                [
                    f"--measured {shared[0]}: isn't a result of `benchmark.py shared-cores --json FILE`, which --check "
                    "needs"
                ]
            ) from None
        faults = [
            fault
            for path, found in busy.items()
            for fault, holds in (
                (f"is of {found.cores} cores, {shared[0]} of {machine.processes}", found.cores != machine.processes),
                (
                    "has no optimiser steps and decoding; leave --work out",
                    not {COMPUTING, DECODING} <= found.alone_s.keys(),
                ),
            )
            if holds
        ]
        if faults:
            raise ConfigError([f"--measured {next(iter(busy))}: {fault}" for fault in faults])
        return machine

    def exchange_of(self, workers: int) -> float:
        """CPU seconds of one of so many workers: a ring sends 2 (n - 1) / n of the gradients."""
        return self.exchange_cpu_s * (1 - 1 / workers) / (1 - 1 / self.processes) if self.processes > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class SharedCosts:
    """What a run took, where workers and ingest share cores: CPU seconds, and the wait at an epoch's start.

    With a measured contention they are what the same work takes alone.
    """

    workers: int
    micro_batch: int
    micro_s: float
    """Of a micro-batch, in its worker's process: computing, and taking clips over, which Python does one by one.
    Exchanging gradients isn't in it."""
    optimiser_s: float = 0.0
    """Of a worker's step, whatever its micro-batches; 0 where that wasn't measured, and is part of `micro_s`."""
    decode_s: float
    """Of a video, in its decode task."""
    besides_s: float
    """Of a video, for whatever else the machine did meanwhile, Ray's own processes first of all."""
    epoch_start_s: float
    """Until an epoch's first decode task begins; 0 for a run of one epoch."""

    @classmethod
    def of(cls, run: Run, machine: Machine) -> "SharedCosts":
        """By a run's windows.

        What work takes alone is what it took, over what it grows by where that run is simulated with it.

        Raises:
            ConfigError: They don't tell.
        """
        found = cls._of(run, machine, {})
        for _ in range(0 if machine.contention is None else ROUNDS):
            found = cls._of(run, machine, simulate(run, found, machine).grown)
        return found

    @classmethod
    def _of(cls, run: Run, machine: Machine, grown: Mapping[str, float]) -> "SharedCosts":
        videos = run.steps * run.work.videos_per_step
        worker_s, decode_s, node_s = (
            sum(getattr(window, name) for window in run.windows)
            for name in ("worker_cpu_s", "decode_cpu_s", "node_cpu_s")
        )
        if not worker_s or not node_s:
            raise ConfigError([f"--check {run.name}: recorded no CPU times of its workers and their node"])
        besides_s = max(0.0, node_s - worker_s - decode_s)
        compute_s = worker_s / run.steps - run.workers * machine.exchange_of(run.workers)  # of a step, over all workers
        optimiser_s = 0.0 if machine.contention is None else machine.contention.optimiser_s
        batches_s = compute_s / grown.get(COMPUTING, 1.0) - run.workers * optimiser_s
        starts = [window.wait_s for window in run.windows if run.begins_epoch(window)]
        first_s = run.work.task_videos * (decode_s + besides_s) / videos
        return cls(
            workers=run.workers,
            micro_batch=run.work.micro_batch,
            micro_s=max(0.0, batches_s) / run.work.micro_batches,
            optimiser_s=optimiser_s,
            decode_s=decode_s / videos / grown.get(DECODING, 1.0),
            besides_s=besides_s / videos / grown.get(DECODING, 1.0),
            epoch_start_s=max(0.0, mean(starts) - first_s) if starts else 0.0,
        )


def simulate(run: Run, costs: SharedCosts, machine: Machine) -> SimulatedSteps:
    """The steps of a run, after those until its first report."""
    before = run.windows[0].step - run.windows[0].steps
    return simulate_steps(
        Setting(
            workers=run.workers,
            micro_batches=run.work.micro_batches,
            micro_batch=run.work.micro_batch,
            micro_s=costs.micro_s,
            optimiser_s=costs.optimiser_s,
            exchange_s=machine.exchange_of(run.workers),
            decode_s=costs.decode_s,
            cores=max(1, (run.config.ingest.cpus or run.workers) // run.workers),
            task_videos=run.work.task_videos,
            workers_per_node=run.workers,
            shared_cores=machine.processes,
            hand_over_s=costs.besides_s,
            epoch_steps=run.work.steps_per_epoch,
            epoch_start_s=costs.epoch_start_s,
            growth=None if machine.contention is None else machine.contention.growth,
        ),
        warm_up=before,
        steps=run.windows[-1].step - before,
    )


def costs_by(known: Run | None, run: Run, machine: Machine) -> SharedCosts:
    """The costs to simulate a run by: those of another one, or its own.

    Raises:
        ConfigError: The other's are of other micro-batches.
    """
    found = SharedCosts.of(known or run, machine)
    if found.micro_batch != run.work.micro_batch:
        raise ConfigError(
            [f"--check {run.name}: has micro-batches of {run.work.micro_batch} videos, --by of {found.micro_batch}"]
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Check:
    """Steps of a run with one number of workers, validations and starts left out."""

    name: str
    workers: int
    micro_batch: int
    steps: int
    costs: SharedCosts
    grown: Mapping[str, float]
    """By kind of work: CPU seconds in the simulation over those that it takes alone."""
    measured_step_s: float
    simulated_step_s: float
    measured_wait_share: float
    """Of a step: waiting for data."""
    simulated_wait_share: float

    @property
    def error(self) -> float:
        """Of the simulated step, over the measured one."""
        return self.simulated_step_s / self.measured_step_s - 1


def check_run(run: Run, costs: SharedCosts, machine: Machine) -> Check:
    """Simulate the steps of a run by these costs."""
    found = simulate(run, costs, machine)
    measured = sum(window.compute_s + window.wait_s + window.all_reduce_s for window in run.windows) / run.steps
    return Check(
        name=run.name,
        workers=run.workers,
        micro_batch=run.work.micro_batch,
        steps=run.steps,
        costs=costs,
        grown=found.grown,
        measured_step_s=measured,
        simulated_step_s=found.step_s,
        measured_wait_share=sum(window.wait_s for window in run.windows) / run.steps / measured,
        simulated_wait_share=found.data_wait_share,
    )


def check_table(checks: Sequence[Check]) -> str:
    """As Markdown, a run a row; costs in CPU milliseconds."""
    rows = [
        [
            check.name,
            check.workers,
            check.micro_batch,
            _cost(check.costs.micro_s, check.grown.get(COMPUTING)),
            _cost(check.costs.decode_s, check.grown.get(DECODING)),
            _cost(check.costs.besides_s, check.grown.get(DECODING)),
            f"{check.measured_step_s * 1000:.1f}",
            f"{check.simulated_step_s * 1000:.1f}",
            f"{check.error:+.1%}",
            f"{check.measured_wait_share:.1%}",
            f"{check.simulated_wait_share:.1%}",
        ]
        for check in checks
    ]
    heads = ["run", "workers", "micro-batch (videos)", "its cost", "decoding", "besides", "a step (ms)", "simulated"]
    heads += ["error", "waiting for data", "simulated"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def _cost(seconds: float, grown: float | None) -> str:
    """In milliseconds, with what it grows by in the simulation."""
    return f"{seconds * 1000:.3g}" if grown in (None, 1.0) else f"{seconds * 1000:.3g} x {grown:.2f}"
