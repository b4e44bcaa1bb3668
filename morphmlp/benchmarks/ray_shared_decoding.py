"""What trials save that share decoded clips, and what the two ways to share cost.

Eight readers, as the training workers of eight trials, read the same clips at the same time: each decoding for itself,
and all through one clip cache. CPU time is that of all that Ray runs here, as in `ray_ingest`.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import ray

from morphmlp.benchmarks.clip_kinds import extractor_of
from morphmlp.benchmarks.process_cpu import cpu_between, cpu_clocks, process_tree
from morphmlp.benchmarks.ray_ingest import is_idle_daemon, rows_over
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.benchmarks.stored_forms import real_size_videos
from morphmlp.cluster.address import require_no_cluster
from morphmlp.cluster.ray_cluster import ray_session
from morphmlp.config.operation import ClusterConfig, IngestConfig
from morphmlp.data.clips.extract import ExtractedClips
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.clip_cache import ClipCache
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import Cursor, MicroBatchPlan, TrainPlan
from morphmlp.data.stream.ray_dataset import IngestShare, stream_micro_batches
from morphmlp.progress import Progress

TRIALS = 8
MICRO_BATCH = 8
CACHE_BYTES = 2**34
REST_S = 1.0
CLIP_ROUNDS = 5
"""Rounds of what a single clip costs each way."""
WARM_UP_STEPS = 4
"""Micro-batches that every reader reads before the first round."""
SEPARATE, SHARED = "separate", "shared"


@dataclass(frozen=True, kw_only=True)
class SharedDecoding:
    """Medians over the rounds."""

    eight_trials_ratio: float
    """CPU time of ingest for eight trials that share clips over that of eight that decode for themselves."""
    decodes_ratio: float
    """Decodes of the eight together over those of one trial."""
    separate_cpu_ms: float
    """CPU milliseconds of a trial's clip, each trial decoding for itself; the next with a shared cache."""
    shared_cpu_ms: float
    decode_cpu_ms: float
    """A clip decoded in a decode task, without a cache."""
    miss_cpu_ms: float
    """CPU milliseconds of a clip that a cache doesn't have yet: it is decoded and written."""
    hit_cpu_ms: float
    """With a cache that has it."""
    object_store_cpu_ms: float
    """The other way to share: what one pipeline would need to hand a clip to one more trial by Ray's object store."""
    clip_mb: float
    trials: int
    videos: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class CountedCache(ClipCache):
    """A cache that notes every decode in a file."""

    log: str

    def get(self, key: str, decode: Callable[[], ExtractedClips]) -> ExtractedClips:
        """As the cache itself."""

        def counted() -> ExtractedClips:
            with Path(self.log).open("a", encoding="utf-8") as file:
                file.write(key + "\n")
            return decode()

        return super().get(key, counted)


def measure_shared_decoding(folder: Path, *, videos: int, rounds: int, progress: Progress) -> SharedDecoding:
    """Measure on this machine.

    Args:
        folder: Where the videos are made and kept.
        videos: Videos that every trial reads.
        rounds: Of eight trials, each way.
        progress: Shows how far it is.

    Raises:
        ClusterError: `RAY_ADDRESS` names a cluster; CPU times of other machines can't be read.
    """
    require_no_cluster()
    progress.line(f"making videos in {folder}, where they aren't there yet")
    manifest = rows_over(real_size_videos(folder.absolute()), videos)
    ingest = IngestConfig(cpus=1, videos_per_task=2 * MICRO_BATCH)
    cpu_s: dict[str, list[float]] = {SEPARATE: [], SHARED: []}
    decodes: list[int] = []
    with (
        tempfile.TemporaryDirectory(prefix="shared-decoding-") as work,
        ray_session(ClusterConfig(num_workers=1, device="cpu"), ingest, micro_batches=1, trials=TRIALS) as placement,
    ):
        share = placement.ingest_share(ingest, pipelines=1)
        progress.phase("single clips", total=1, unit="rounds")
        decode, miss, hit, size = _clip_costs(manifest, share.policy, Path(work) / "single")
        handing = _object_store_cost(size)
        readers = [_Reader.remote(manifest) for _ in range(TRIALS)]  # type: ignore[attr-defined]
        ray.get([reader.read.remote(share, WARM_UP_STEPS) for reader in readers])  # starts all processes
        progress.phase(f"{TRIALS} trials", total=rounds, unit="rounds")
        for number, way in interleaved([SEPARATE, SHARED], rounds):
            cache = CountedCache(folder=f"{work}/{number}", max_bytes=CACHE_BYTES, log=f"{work}/{number}.log")
            policy = share.policy if way == SEPARATE else replace(share.policy, cache=cache)
            before = cpu_clocks(_processes())
            ray.get([reader.read.remote(replace(share, policy=policy), None) for reader in readers])
            cpu_s[way].append(sum(cpu_between(before, cpu_clocks(_processes())).values()))
            if way == SHARED:
                decodes.append(len(Path(cache.log).read_text(encoding="utf-8").splitlines()))
            progress.update(number + 1)
    clips = TRIALS * videos
    return SharedDecoding(
        eight_trials_ratio=median_ratio(cpu_s[SHARED], cpu_s[SEPARATE]),
        decodes_ratio=median(decodes) / videos,
        separate_cpu_ms=1000 * median(cpu_s[SEPARATE]) / clips,
        shared_cpu_ms=1000 * median(cpu_s[SHARED]) / clips,
        decode_cpu_ms=1000 * decode,
        miss_cpu_ms=1000 * miss,
        hit_cpu_ms=1000 * hit,
        object_store_cpu_ms=1000 * handing,
        clip_mb=size / 1e6,
        trials=TRIALS,
        videos=videos,
        rounds=rounds,
    )


@ray.remote(num_cpus=1)
class _Reader:
    """Reads micro-batches as a training worker of a trial does."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._plan = TrainPlan(
            num_videos=len(manifest), global_batch_size=MICRO_BATCH, micro_batch_size=MICRO_BATCH, seed=0
        )

    def read(self, share: IngestShare, steps: int | None) -> None:
        """Read so many micro-batches of the epoch, or all of them."""
        wanted = islice(self._plan.micro_batches(Cursor(), worker=0, num_workers=1), steps)
        for batch in stream_micro_batches(self._manifest, wanted, extractor_of("train"), share, stage="train"):
            if batch.broken:
                raise RuntimeError(f"{batch.broken[0].path}: {batch.broken[0].message}")


def _clip_costs(manifest: Manifest, policy: DecodePolicy, folder: Path) -> tuple[float, float, float, int]:
    """CPU seconds of a clip without a cache, with one that lacks it and with one that has it; bytes of a clip."""
    plan = MicroBatchPlan(epoch=0, step=0, index=0, rows=np.arange(MICRO_BATCH, dtype=np.int64))
    request, extractor = request_table(manifest, [plan]), extractor_of("train")

    def task(cache: str | None) -> DecodeTask:
        found = None if cache is None else ClipCache(folder=str(folder / cache), max_bytes=CACHE_BYTES)
        return DecodeTask(extractor=extractor, policy=replace(policy, cache=found))

    filled = "filled"
    size = len(task(filled)(request)["clips"][0].as_py())  # starts the decoder
    cpu_s: dict[str, list[float]] = {"decode": [], "miss": [], "hit": []}
    for number, way in interleaved(list(cpu_s), CLIP_ROUNDS):
        time.sleep(REST_S)  # the decoder's process ends its work on the last video
        table = task({"decode": None, "miss": str(number), "hit": filled}[way])(request)
        cpu_s[way] += table["cpu_s"].to_pylist()
    return median(cpu_s["decode"]), median(cpu_s["miss"]), median(cpu_s["hit"]), size


def _object_store_cost(size: int) -> float:
    """CPU seconds of this process to put a clip into the store and take a copy out of it."""
    clip, times = np.zeros(size, dtype=np.uint8), []
    for _ in range(20):
        began = time.process_time()
        np.array(ray.get(ray.put(clip)))
        times.append(time.process_time() - began)
    return median(times)


def _processes() -> dict[int, str]:
    """All that Ray runs here; this process only asks."""
    tree = process_tree(os.getpid())
    return {pid: command for pid, command in tree.items() if pid != os.getpid() and not is_idle_daemon(command)}
