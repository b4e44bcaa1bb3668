"""The start of a test and of a training without morphmlp: what Ray and torch cost by themselves. Run as a program.

It joins the cluster of RAY_ADDRESS and has Ray start as many processes as a command does: decode tasks that import PyAV
and make clips of noise; scorers, or training workers in a gloo group, that import torch and put these through a single
layer. It needs no files, checks nothing and records nothing, and imports nothing from this package. Each function
imports what it needs itself, so that a process imports what its own work needs.
"""

# ruff: noqa: PLC0415

import json
import logging
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data
    import torch

_VIDEOS, _SHAPE = 16, (3, 16, 32, 32)


def main(what: str, answer: Path, *, workers: int, tasks: int) -> None:
    """Test or train; when the parts were over, seconds since 1970, goes into a JSON file.

    Args:
        what: "test" or "training".
        answer: That file.
        workers: Scorers or training workers.
        tasks: Decode tasks at a time, all workers together.
    """
    import ray

    if what == "test":
        import ray.data
    else:
        import ray.train.torch
    ends = {"imports": time.time()}
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    ends["Ray"] = time.time()
    if what == "test":
        ends |= test(scorers=workers, tasks=tasks)
        answer.write_text(json.dumps(ends), encoding="utf-8")
    else:
        train(answer, ends, workers=workers, tasks=max(1, tasks // workers))
    ray.shutdown()


def test(*, scorers: int, tasks: int) -> dict[str, float]:
    """Score all videos; when the first score was there."""
    import ray.data

    dataset = decoding(videos_per_task=1, tasks=tasks).map_batches(
        Scorer,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=scorers),
    )
    scored = [time.time() for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow")]
    return {"first scores": scored[0]}


class Scorer:
    """Holds a layer."""

    def __init__(self) -> None:
        """Make it."""
        self._network = layer()

    def __call__(self, rows: "pa.Table") -> "pa.Table":
        """One score of each clip."""
        import pyarrow as pa

        scores = self._network(clips_of(rows)).flatten(1).mean(1)
        return rows.drop_columns(["clip"]).append_column("score", pa.array(scores.tolist()))


def train(answer: Path, ends: dict[str, float], *, workers: int, tasks: int) -> None:
    """Take one step; the first worker says when."""
    import ray.train
    from ray.train.torch import TorchTrainer

    with tempfile.TemporaryDirectory(prefix="mmlp-bare-") as folder:
        TorchTrainer(
            work,
            train_loop_config={"answer": str(answer), "ends": ends, "tasks": tasks},
            scaling_config=ray.train.ScalingConfig(num_workers=workers),
            run_config=ray.train.RunConfig(storage_path=folder),
        ).fit()


def work(config: dict[str, Any]) -> None:
    """Take one step on this worker."""
    import ray.train
    import torch
    from torch.nn.parallel import DistributedDataParallel

    ends = {"worker": time.time()}
    network = DistributedDataParallel(layer())
    optimizer = torch.optim.AdamW(network.parameters())
    dataset = decoding(videos_per_task=_VIDEOS // 2, tasks=config["tasks"])
    clips = clips_of(next(iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))))
    ends["first clips"] = time.time()
    network(clips).square().mean().backward()
    optimizer.step()
    ends["first step"] = time.time()
    if ray.train.get_context().get_world_rank() == 0:
        Path(config["answer"]).write_text(json.dumps(config["ends"] | ends), encoding="utf-8")


def layer() -> "torch.nn.Module":
    """A network of one layer."""
    import torch

    torch.set_num_threads(1)
    return torch.nn.Conv3d(_SHAPE[0], 8, kernel_size=3)


def decoding(*, videos_per_task: int, tasks: int) -> "ray.data.Dataset":
    """Clips of all videos, so many decode tasks at a time."""
    import pyarrow as pa
    import ray.data

    requests = [pa.table({"row": [row] * videos_per_task}) for row in range(_VIDEOS // videos_per_task)]
    dataset = ray.data.from_arrow(requests).map_batches(
        DecodeTask(videos=videos_per_task),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        memory=2**20,  # what needs other resources isn't done in the scorers
        compute=ray.data.TaskPoolStrategy(size=tasks),
    )
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    return dataset


@dataclass(frozen=True, kw_only=True)
class DecodeTask:
    """Makes as much as clips of small videos."""

    videos: int

    def __call__(self, rows: "pa.Table") -> "pa.Table":
        """One clip of each."""
        import av  # noqa: F401 (what a decode task imports)
        import numpy as np
        import pyarrow as pa

        noise = np.random.default_rng(0).integers(0, 256, _SHAPE, dtype=np.uint8).tobytes()
        return rows.append_column("clip", pa.array([noise] * self.videos, pa.large_binary()))


def clips_of(rows: "pa.Table") -> "torch.Tensor":
    """Clips of a table, `[b c t h w]`."""
    import numpy as np
    import torch

    clips = np.stack([np.frombuffer(cell, np.uint8).reshape(_SHAPE) for cell in rows["clip"].to_pylist()])
    return torch.from_numpy(clips).float()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).absolute(), workers=int(sys.argv[3]), tasks=int(sys.argv[4]))
