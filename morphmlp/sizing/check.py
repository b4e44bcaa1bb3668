"""The simulation against a real run: its step time, from what its parts took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.errors import ConfigError
from morphmlp.sizing.inputs import Work, work_of
from morphmlp.sizing.steps import Setting, scattered, simulate_steps
from morphmlp.training.record.accounting import TimeWindow, read_windows


@dataclass(frozen=True, kw_only=True)
class Check:
    """Steps of a run with one number of workers, validations and starts left out."""

    workers: int
    steps: int
    measured_step_s: float
    simulated_step_s: float
    measured_wait_share: float
    """Of a step: waiting for data."""
    simulated_wait_share: float

    @property
    def error(self) -> float:
        """Of the simulated step, over the measured one."""
        return self.simulated_step_s / self.measured_step_s - 1

    def in_words(self) -> str:
        """One line."""
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return (
            f"{workers}, {self.steps} steps: a step took {self.measured_step_s * 1000:.4g} ms, simulated "
            f"{self.simulated_step_s * 1000:.4g} ({self.error:+.1%}); waiting for data {self.measured_wait_share:.1%}, "
            f"simulated {self.simulated_wait_share:.1%}"
        )


def check_run(folder: Path) -> Check:
    """Compare a run, by its folder, with a simulation of its own parts.

    Raises:
        ConfigError: It isn't a run's folder, or doesn't say what the simulation needs.
    """
    if not (folder / "experiment.yaml").is_file():
        raise ConfigError([f"--check {folder}: is no run's folder: it has no experiment.yaml"])
    config = load_config(folder / "experiment.yaml")
    if config.ingest.cpus is None:
        raise ConfigError([f"--check {folder}: the run left its decode cores open; train with --ingest.cpus NUMBER"])
    windows = [window for window in read_windows(folder / "progress.jsonl") if window.steps and not window.start_s]
    return compare(config, work_of(config, videos=None, val_videos=0), windows, name=str(folder))


def compare(config: ExperimentConfig, work: Work, windows: Sequence[TimeWindow], *, name: str) -> Check:
    """A run's windows against a simulation of their means.

    Time of computing and of decoding are the run's own, as is its fastest exchange of gradients; waits and the step as
    a whole are the simulation's.

    Raises:
        ConfigError: Fewer than two windows, or several numbers of workers.
    """
    if len(windows) < 2 or len({window.workers for window in windows}) > 1:
        raise ConfigError([f"--check {name}: needs two reports or more after the first, all by as many workers"])
    workers, steps = windows[0].workers, sum(window.steps for window in windows)
    each = -(-work.micro_batches // workers)
    compute = np.array([window.compute_s / window.steps for window in windows])
    measured = sum(window.compute_s + window.wait_s + window.all_reduce_s for window in windows) / steps
    waited = sum(window.wait_s for window in windows) / steps
    variation = float(compute.std() / compute.mean() * np.sqrt(steps / len(windows) * each))
    found = simulate_steps(
        Setting(
            workers=workers,
            micro_batches=work.micro_batches,
            micro_batch=work.micro_batch,
            micro_s=sum(window.compute_s for window in windows) / steps / each,
            exchange_s=min(window.all_reduce_s / window.steps for window in windows),
            decode_s=sum(window.decode_cpu_s for window in windows)
            / sum(window.clips for window in windows)
            * work.clips_per_video,
            cores=max(1, (config.ingest.cpus or workers) // workers),
            task_videos=work.task_videos,
        ),
        warm_up=200,
        steps=2000,
        compute=scattered(np.random.default_rng(0), variation),
    )
    return Check(
        workers=workers,
        steps=steps,
        measured_step_s=measured,
        simulated_step_s=found.step_s,
        measured_wait_share=waited / measured,
        simulated_wait_share=found.data_wait_share,
    )
