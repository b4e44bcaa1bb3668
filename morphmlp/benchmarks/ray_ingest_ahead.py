"""What ingest takes from training once it is ahead, and has nothing to do but wait.

The same work, as a training step's host has it (many small operations of PyTorch), is timed in the process that reads
the clips: without ingest, next to waiting ingest as runs have it, and next to the same without the pace that runs keep
(`morphmlp.data.stream.ray_pace`).
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.cluster.address import require_no_cluster
from morphmlp.cluster.ray_cluster import ray_session
from morphmlp.config.clip import ClipConfig
from morphmlp.config.operation import ClusterConfig, IngestConfig
from morphmlp.data.clips.extract import SINGLE_VIEW, ViewClips
from morphmlp.data.manifest import read_manifest
from morphmlp.data.stream import ray_pace
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.data.stream.ray_dataset import stream_micro_batches
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.progress import Progress

ALONE, PACED, UNPACED = "alone", "paced", "unpaced"
VIDEOS, MICRO_BATCH = 800, 8
OPERATIONS = 100_000
"""Small operations of a round."""
LEAD_S = 2.0
"""Time in which ingest gets ahead before its round begins."""
CLIP = ClipConfig(sampling="dense", num_frames=8, frame_stride=1, crop_size=32, short_edge=36, channel_order="rgb")


@dataclass(frozen=True, kw_only=True)
class IngestAhead:
    """Medians over the rounds."""

    ratio: float
    """Time of the work next to waiting ingest over its time alone, pair by pair."""
    unpaced_ratio: float
    """`ratio` where Ray Data's scheduling loop isn't slowed down."""
    work_s: float
    """Seconds of the work alone."""
    rounds: int


def measure_ingest_ahead(*, rounds: int, progress: Progress) -> IngestAhead:
    """Measure on this machine.

    Raises:
        ClusterError: `RAY_ADDRESS` names a cluster, whose other users would disturb.
    """
    require_no_cluster()
    torch.set_num_threads(1)
    ingest = IngestConfig(cpus=1)
    times: dict[str, list[float]] = {ALONE: [], PACED: [], UNPACED: []}
    with tempfile.TemporaryDirectory(prefix="ingest-ahead-") as folder:
        progress.line("making videos")
        write_demo_dataset(folder, train=VIDEOS, val=0, test=0)
        manifest = read_manifest(Path(folder) / "train.parquet").available()
        plan = TrainPlan(num_videos=VIDEOS, global_batch_size=MICRO_BATCH, micro_batch_size=MICRO_BATCH, seed=0)
        progress.phase("work next to ingest", total=rounds + 1, unit="rounds")
        with ray_session(ClusterConfig(num_workers=1, device="cpu"), ingest, micro_batches=1) as placement:
            share = placement.ingest_share(ingest, pipelines=1)
            for number, side in interleaved(list(times), rounds + 1):
                with _pace_of(side):
                    plans = plan.micro_batches(Cursor(epoch=number), worker=0, num_workers=1)
                    extractor = ViewClips(clip=CLIP, views=SINGLE_VIEW)
                    batches = stream_micro_batches(manifest, plans, extractor, share, stage="train")
                    if side != ALONE:
                        next(batches)
                        time.sleep(LEAD_S)
                    times[side].append(_work_s())
                    batches.close()  # type: ignore[attr-defined]  # a generator
                progress.update(number + 1)
    alone, paced, unpaced = (times[side][1:] for side in (ALONE, PACED, UNPACED))  # the first one warms up
    return IngestAhead(
        ratio=median_ratio(paced, alone),
        unpaced_ratio=median_ratio(unpaced, alone),
        work_s=median(alone),
        rounds=rounds,
    )


@contextmanager
def _pace_of(side: str) -> Iterator[None]:
    """Take the pace away from this process's pipelines, where the side is the one without."""
    before = ray_pace.LEAST_STEP_S, ray_pace.LONGEST_REST_S
    if side == UNPACED:
        ray_pace.LEAST_STEP_S = ray_pace.LONGEST_REST_S = 0.0
    try:
        yield
    finally:
        ray_pace.LEAST_STEP_S, ray_pace.LONGEST_REST_S = before


def _work_s() -> float:
    numbers = torch.zeros(64)
    began = time.perf_counter()
    for _ in range(OPERATIONS):
        numbers = torch.add(numbers, 1.0)
    return time.perf_counter() - began
