"""A store of many finished runs, and how long the tables take to read and print them.

Runs are invented: the experiments of this repository with other seeds, views, copies of the test videos and scores, as
many parameters, tags and metrics as a training records.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pydantic import JsonValue

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import fingerprint, flat_fields, load_config
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tasks.scores import scores_of
from morphmlp.tracking import RunWriter, open_run, prepare_store

ROOT = Path(__file__).parents[2]
DATASETS = ("k400", "ssv1", "ssv2", "imagenet", "ade20k")
COPIES = {
    "k400": ("19761:1f0c", "19796:8a2e", "19907:77b1"),
    "ssv1": ("11522:c01a",),
    "ssv2": ("24777:d11b", "24774:90ff"),
    "imagenet": ("50000:e22c",),
    "ade20k": ("2000:f33d",),
}
"""Test videos of different copies of a data set, `N:hash` as the record has them."""
_BEST = {"classification": {"top1": 78.0, "top5": 93.5}, "segmentation": {"miou": 44.0, "macc": 55.0, "aacc": 81.0}}


@dataclass(frozen=True, kw_only=True)
class TablesTime:
    """How long `pipelines/tables.py` takes, seconds: medians over the rounds."""

    runs: int
    rounds: int
    store_mb: float
    wall_s: dict[str, float]
    """By what was asked for."""
    cpu_s: dict[str, float]
    """User and system time of the process."""
    empty_wall_s: float
    """All tables, without any run and without a store."""
    page_mb: float

    def in_words(self) -> str:
        """A line for each command."""
        times = [f"{name}: {wall_s:.1f} s ({self.cpu_s[name]:.1f} CPU)" for name, wall_s in self.wall_s.items()]
        return "\n".join(
            [
                f"{self.runs} runs, {self.store_mb:.0f} MB; medians of {self.rounds} interleaved rounds",
                *times,
                f"without a record: {self.empty_wall_s:.1f} s; the page has {self.page_mb:.1f} MB",
            ]
        )


@dataclass(frozen=True, kw_only=True)
class InventedRun:
    """What one run records."""

    name: str
    dataset: str
    params: dict[str, JsonValue]
    tags: dict[str, str]
    metrics: list[MetricPoint]


def invented_runs(count: int, *, seed: int = 0) -> Iterator[InventedRun]:
    """So many finished runs, a fifth of them trials of sweeps."""
    random = Random(seed)
    for number, config in zip(range(count), _experiments(), strict=False):
        tags = _tags(config, random)
        videos = int(tags[Tags.DATA_TEST].partition(":")[0])
        trial = {Tags.PARENT: "0" * 32, Tags.KIND: "trial"} if number % 5 == 4 else {}
        yield InventedRun(
            name=f"{config.name}-{number}",
            dataset=config.dataset,
            params=flat_fields(config) | {"train.seed": number, "test.num_clips": random.choice((1, 4, 10))},
            tags=tags | trial,
            metrics=_metrics(config, random, videos),
        )


def fill_store(uri: str, *, runs: int, seed: int = 0, on_run: Callable[[], None] = lambda: None) -> None:
    """Write invented runs to a store."""
    prepare_store(uri)
    for run in invented_runs(runs, seed=seed):
        identity = open_run(uri, experiment=run.dataset, run_name=run.name, tags=run.tags, params=run.params)
        writer = RunWriter(uri, identity)
        writer.metrics(run.metrics)
        writer.finish("FINISHED")
        on_run()


def measure_tables(folder: Path, *, runs: int, rounds: int, on_round: Callable[[], None]) -> TablesTime:
    """Time the command over the store in a folder, in processes of their own."""
    store = folder / "mlruns" / "mlflow.db"
    asked: dict[str, Sequence[str]] = {
        "all tables": (),
        "one data set": ("--dataset", "k400"),
        "page": ("--html", str(folder / "tables.html")),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*asked, "empty")}
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    for _ in range(rounds):
        for name, arguments in asked.items():
            times[name].append(_timed(folder, arguments))
        times["empty"].append(_timed(empty, ()))
        on_round()
    middle = {name: [sorted(side)[len(side) // 2] for side in zip(*each, strict=True)] for name, each in times.items()}
    return TablesTime(
        runs=runs,
        rounds=rounds,
        store_mb=store.stat().st_size / 1e6,
        wall_s={name: middle[name][0] for name in asked},
        cpu_s={name: middle[name][1] for name in asked},
        empty_wall_s=middle["empty"][0],
        page_mb=(folder / "tables.html").stat().st_size / 1e6,
    )


def _timed(folder: Path, arguments: Sequence[str]) -> tuple[float, float]:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, str(ROOT / "pipelines" / "tables.py"), *arguments]
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    wall_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _experiments() -> Iterator[ExperimentConfig]:
    files = [file for dataset in DATASETS for file in sorted((ROOT / "experiments" / dataset).glob("*.yaml"))]
    configs = [load_config(file) for file in files]
    while True:
        yield from configs


def _tags(config: ExperimentConfig, random: Random) -> dict[str, str]:
    packages = ("torch", "ray", "mlflow", "numpy", "pandas", "pyarrow", "av", "morphmlp")
    return {
        Tags.EXPERIMENT: f"{config.name}-{random.randrange(40)}",
        Tags.FINGERPRINT: fingerprint(config),
        Tags.GIT_COMMIT: f"{random.getrandbits(160):040x}",
        Tags.GIT_DIRTY: random.choice(("true", "false")),
        Tags.DATA_TRAIN: "240000:0123456789ab",
        Tags.DATA_VAL: "19761:0123456789ab",
        Tags.DATA_TEST: random.choice(COPIES[config.dataset]),
        Tags.HARDWARE: json.dumps({"gpus": 8, "kind": "NVIDIA H200"}),
        Tags.TRAINED_ON: "8 workers on cuda",
        Tags.DECODER: "pyav 18.1.0",
        **{Tags.VERSION + name: "1.2.3" for name in packages},
    }


def _metrics(config: ExperimentConfig, random: Random, videos: int) -> list[MetricPoint]:
    worse = abs(random.gauss(0, 4))
    found = {score.test_metric: _BEST[config.task].get(score.key) for score in scores_of(config.task)}
    known = {name: value - worse for name, value in found.items() if value is not None}
    if config.task == "segmentation":
        known |= {f"{name}_{end}": value + by for name, value in known.items() for end, by in _ENDS}
    lost = random.choice((0, 0, 3, 11))
    once = {**known, Metrics.TEST_NUM_VIDEOS: videos - lost, Metrics.TEST_NUM_QUARANTINED: lost}
    once |= {name: random.uniform(0, 100) for key, name in vars(Metrics).items() if key.startswith(("RUN_", "EPOCH_"))}
    steps = {name: random.uniform(0, 5) for key, name in vars(Metrics).items() if key.startswith(("TRAIN_", "VAL_"))}
    points = [MetricPoint(name, value, 0, 1) for name, value in once.items()]
    return points + [MetricPoint(name, value, step, 1) for name, value in steps.items() for step in range(5)]


_ENDS = (("low", -1.1), ("high", 1.1))
