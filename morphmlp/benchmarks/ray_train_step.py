"""A training step under Ray Train against the same loop in a bare process, on the same tensors.

Both live in one session on one machine and take turns, so that a busy neighbour hurts both alike.
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

from morphmlp.benchmarks.step_loop import request_line, step_summaries, timed_round
from morphmlp.config import ExperimentConfig
from morphmlp.ray_cluster import Placement
from morphmlp.training.loop import StepSummary
from morphmlp.training.report import Report


@dataclass(frozen=True, kw_only=True)
class StepComparison:
    """Times of interleaved rounds; each has the experiment's `execution.report_every_steps` steps."""

    ratio: float
    """Median over the rounds of (under Ray Train / bare), pair by pair."""
    ray_step_s: float
    """Median seconds of a step under Ray Train, one report a round included."""
    bare_step_s: float
    rounds: int
    steps_per_round: int
    device: str


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
        ratio=median(under_ray / bare for under_ray, bare in zip(times["ray"], times["bare"], strict=True)),
        ray_step_s=median(times["ray"]) / steps,
        bare_step_s=median(times["bare"]) / steps,
        rounds=rounds,
        steps_per_round=steps,
        device=placement.device,
    )


def _worker(job: dict[str, Any]) -> None:
    """Take turns with a bare process; the first round of each is warm-up."""
    config: ExperimentConfig = job["config"]
    device = ray.train.torch.get_device()
    torch.set_num_threads(job["threads"])
    steps = config.execution.report_every_steps
    summaries = step_summaries(config, device)
    times: dict[str, list[float]] = {"ray": [], "bare": []}
    with _BareProcess(config, threads=job["threads"], device=str(device)) as bare:
        for _ in range(job["rounds"] + 1):
            times["bare"].append(bare.round(steps))
            times["ray"].append(timed_round(summaries, steps, after=_report))
    Path(job["answer"]).write_text(json.dumps({side: rounds[1:] for side, rounds in times.items()}), encoding="utf-8")


def _report(steps: list[StepSummary]) -> None:
    numbers = [float(step.totals[0]) for step in steps]
    ray.train.report(Report(points=[("train/loss", sum(numbers), steps[-1].step, 0)]))


class _BareProcess:
    def __init__(self, config: ExperimentConfig, *, threads: int, device: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "morphmlp.benchmarks.step_loop"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask(request_line(config, threads=threads, device=device))

    def __enter__(self) -> "_BareProcess":
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
