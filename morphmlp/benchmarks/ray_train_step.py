"""What a run adds to a training step: its loop under Ray Train against a plain loop, on the same tensors.

The plain loop runs twice: in a process of its own, as a script would, and in Ray Train's worker, where everything
about the process is the same. The rounds of all three are interleaved, so that a busy neighbour hurts them alike.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.benchmarks.step_loop import (
    plain_steps,
    prepared_state,
    recipe_in_memory,
    request_line,
    run_steps,
    timed_round,
    wait_for_last,
)
from morphmlp.cluster.ray_cluster import Placement
from morphmlp.config import ExperimentConfig
from morphmlp.training.loop.loop import StepSummary
from morphmlp.training.record.reporter import Reporter

RUN, PLAIN, SCRIPT = "run", "plain", "script"


@dataclass(frozen=True, kw_only=True)
class StepComparison:
    """Times of interleaved rounds; each has the experiment's `execution.report_every_steps` steps."""

    ratio: float
    """A step of a run (loop, clock, sums, report) over one of a plain loop in a script of its own: median over the
    rounds, pair by pair."""
    loop_ratio: float
    """A step of a run over one of a plain loop in the same process: what the run's own code adds, without whatever two
    processes differ in."""
    run_step_s: float
    """Median seconds of a run's step, one report a round included."""
    plain_step_s: float
    """Median seconds of a step of the plain loop in the same process."""
    script_step_s: float
    """Median seconds of a step of the plain loop in a script of its own."""
    rounds: int
    steps_per_round: int
    clips_per_step: int
    micro_batches: int
    """Of a step."""
    device: str
    """Its name, where it has one."""
    precision: str
    """Arithmetic of the forward pass."""


def compare_train_step(config: ExperimentConfig, placement: Placement, *, rounds: int) -> StepComparison:
    """Run the comparison with one worker."""
    with tempfile.TemporaryDirectory(prefix="morphmlp-benchmark-") as folder:
        answer = Path(folder) / "rounds.json"
        TorchTrainer(
            _worker,
            train_loop_config={
                "config": config,
                "rounds": rounds,
                "threads": placement.cpus_per_worker,
                "answer": str(answer),
            },
            torch_config=TorchConfig(backend="nccl" if placement.device == "cuda" else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=1,
                use_gpu=placement.device == "cuda",
                resources_per_worker={
                    "CPU": placement.cpus_per_worker,
                    **({"GPU": 1} if placement.device == "cuda" else {}),
                },
            ),
            run_config=ray.train.RunConfig(name="train-step", storage_path=folder),
        ).fit()
        times = json.loads(answer.read_text(encoding="utf-8"))
    steps = config.execution.report_every_steps
    return StepComparison(
        ratio=median_ratio(times[RUN], times[SCRIPT]),
        loop_ratio=median_ratio(times[RUN], times[PLAIN]),
        run_step_s=median(times[RUN]) / steps,
        plain_step_s=median(times[PLAIN]) / steps,
        script_step_s=median(times[SCRIPT]) / steps,
        rounds=rounds,
        steps_per_round=steps,
        clips_per_step=config.train.global_batch_size * config.augment.repeats,
        micro_batches=config.train.micro_batches_per_step,
        device=times["device"],
        precision=times["precision"],
    )


def _worker(job: dict[str, Any]) -> None:
    """Run the rounds of all three, interleaved; the first round of each is warm-up."""
    config: ExperimentConfig = job["config"]
    device = ray.train.torch.get_device()
    torch.set_num_threads(job["threads"])
    steps = config.execution.report_every_steps
    reporter = Reporter(recipe=recipe_in_memory(config), first=True, gmacs_per_view=1.0)
    state = prepared_state(config, device)
    run = run_steps(config, state, device=device)
    plain = plain_steps(config, device=device)

    def report(summaries: list[StepSummary]) -> None:
        for summary in summaries:
            reporter.add_step(summary)
        ray.train.report(reporter.take())

    times: dict[str, list[float]] = {RUN: [], PLAIN: [], SCRIPT: []}
    with _Script(config, threads=job["threads"], device=str(device)) as script:
        for _, side in interleaved(list(times), job["rounds"] + 1):
            if side == RUN:
                times[side].append(timed_round(run, steps, after=report))
            elif side == PLAIN:
                times[side].append(timed_round(plain, steps, after=wait_for_last))
            else:
                times[side].append(script.round(steps))
    found = {side: rounds[1:] for side, rounds in times.items()} | {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": state.precision,
    }
    Path(job["answer"]).write_text(json.dumps(found), encoding="utf-8")


class _Script:
    """The plain loop in a process of its own."""

    def __init__(self, config: ExperimentConfig, *, threads: int, device: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "morphmlp.benchmarks.step_loop"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask(request_line(config, threads=threads, device=device))

    def __enter__(self) -> "_Script":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def round(self, steps: int) -> float:
        self._ask(str(steps))
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
