"""A manifest of ten million videos: reading and sharing it, and what a worker needs of time and memory for its plan."""

import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from morphmlp.data.manifest import Manifest, read_manifest, write_manifest
from morphmlp.data.stream.decode_task import REQUEST_COLUMNS, request_table
from morphmlp.data.stream.plan import Cursor, TrainPlan

_ALPHABET = np.frombuffer(b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
"""Characters of YouTube's ids, in ascending order."""
_FOLDER, _ENDING = b"/videos/kinetics/train/juggling balls/", b"_000010.mp4"
_CLASSES = 700
_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class PlanSize:
    """What so many videos cost: CPU seconds of all threads, and MB (2**20 bytes)."""

    videos: int
    read_s: float
    """Reading and checking the Parquet file, once a run."""
    fingerprint_s: float
    share_s: float
    """Putting it into Ray's object store, once a run."""
    worker_s: float
    """A worker's way from the shared manifest to its first requests: the permutation of the epoch, mostly."""
    worker_mb: float
    """Growth of the worker's resident memory at its peak, shared memory that it touches included."""
    step_us: float
    """A worker's part of a step, microseconds of CPU time."""

    @property
    def plan_s(self) -> float:
        """From the file to a worker's first requests."""
        return self.read_s + self.share_s + self.worker_s


def measure_plan_size(*, videos: int = 10_000_000) -> PlanSize:
    """Measure in the running Ray session, in a worker process of its own."""
    with tempfile.TemporaryDirectory(prefix="morphmlp-benchmark-") as folder:
        path = Path(folder) / "videos.parquet"
        write_manifest(synthetic_manifest(videos), path)
        began = time.process_time()
        manifest = read_manifest(path, only=REQUEST_COLUMNS).available()
        read_s = time.process_time() - began
    began = time.process_time()
    manifest.fingerprint()
    fingerprint_s = time.process_time() - began
    began = time.process_time()
    shared = ray.put(manifest)
    share_s = time.process_time() - began
    worker_s, worker_mb, step_us = ray.get(_plan_in_worker.remote([shared]))
    return PlanSize(
        videos=videos,
        read_s=read_s,
        fingerprint_s=fingerprint_s,
        share_s=share_s,
        worker_s=worker_s,
        worker_mb=worker_mb,
        step_us=step_us,
    )


def synthetic_manifest(videos: int) -> Manifest:
    """A manifest with ids of 11 letters and paths of 60, in the order of the ids."""
    numbers = np.arange(videos, dtype=np.int64)
    letters = np.stack([_ALPHABET[(numbers >> 6 * place) & 63] for place in reversed(range(11))], axis=1)
    paths = np.empty((videos, len(_FOLDER) + 11 + len(_ENDING)), dtype=np.uint8)
    paths[:, : len(_FOLDER)] = np.frombuffer(_FOLDER, dtype=np.uint8)
    paths[:, len(_FOLDER) : -len(_ENDING)] = letters
    paths[:, -len(_ENDING) :] = np.frombuffer(_ENDING, dtype=np.uint8)
    table = pa.table(
        {
            "video_id": _strings(letters),
            "path": _strings(paths),
            "label": (numbers % _CLASSES).astype(np.int32),
            "split": pa.array(["train"]).take(pa.array(np.zeros(videos, dtype=np.int32))),
            "available": np.ones(videos, dtype=bool),
            "size_bytes": np.full(videos, 700_000),
        }
    )
    return Manifest(table, tuple(f"class {number}" for number in range(_CLASSES)))


def _strings(letters: npt.NDArray[np.uint8]) -> pa.Array:
    count, width = letters.shape
    ends = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(letters)))


@ray.remote(num_cpus=1, max_calls=1, max_retries=0)
def _plan_in_worker(boxed: "list[ray.ObjectRef[Manifest]]") -> tuple[float, float, float]:
    before = _resident_mb("VmRSS")
    # Let the peak count from here on.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    began = time.process_time()
    manifest = ray.get(boxed[0])
    plan = TrainPlan(num_videos=len(manifest), global_batch_size=512, micro_batch_size=16, seed=0)
    micro_batches = plan.micro_batches(Cursor(), worker=0, num_workers=8)
    request_table(manifest, [next(micro_batches)])
    worker_s = time.process_time() - began
    began = time.process_time()
    taken = sum(1 for _ in islice(micro_batches, _STEPS * plan.micro_batches_per_step // 8))
    step_us = 1e6 * (time.process_time() - began) / taken * plan.micro_batches_per_step / 8
    return worker_s, _resident_mb("VmHWM") - before, step_us


def _resident_mb(name: str) -> float:
    """A line of /proc/self/status: `VmRSS` is what is resident, `VmHWM` the most that has been."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")
