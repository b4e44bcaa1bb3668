"""The Ray Data path against a torch DataLoader over the same function, in steady state.

Each side reads clips in a process of its own, with two processes that decode; the rounds are interleaved. CPU time
is that of a side's whole process tree: the reading process (with Ray Data's executor in it), the decoding ones, and on
Ray's side the raylet, the store and the control service. What Ray keeps for people to look at, such as the dashboard's
agents, isn't counted.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Protocol

import ray

from morphmlp.benchmarks.clip_kinds import extractor_of
from morphmlp.benchmarks.process_cpu import cpu_between, cpu_clocks, process_tree
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.data.clips.extract import ClipExtractor
from morphmlp.data.manifest import Manifest, manifest_from_rows
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.data.stream.ray_dataset import IngestShare, stream_micro_batches

DECODE_CPUS = 2
VIDEOS_PER_TASK = 16
MICRO_BATCH = 8
WARM_UP_CLIPS = 5 * VIDEOS_PER_TASK
"""Read before a round is measured: the processes are there then, and as much is decoded ahead as will be."""
REST_CLIPS = 5 * VIDEOS_PER_TASK
"""Left to decode when a round has been measured: work ahead is part of steady state to its end."""
_IDLE_DAEMONS = ("ray/dashboard/", "log_monitor.py", "runtime_env/agent/", "monitor.py")


@dataclass(frozen=True, kw_only=True)
class IngestComparison:
    """Medians over the rounds."""

    ray_cpu_ratio: float
    """CPU time of a clip on the Ray Data path over the DataLoader's."""
    ray_wall_ratio: float
    """Clips a second on the Ray Data path over the DataLoader's."""
    ray_cpu_ms: float
    loader_cpu_ms: float
    ray_clips_per_s: float
    loader_clips_per_s: float
    ray_parts_cpu_ms: Mapping[str, float]
    """Where Ray's side spends it."""
    first_batch_s: float
    """From the request to the first micro-batch, with Ray and its decode processes running."""
    cold_first_batch_s: float
    """`first_batch_s` in the first round, where the decode processes don't run yet."""
    rounds: int
    clips_per_round: int


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured of images."""

    images: int
    """Files."""
    rounds: int
    read: int
    """Crops that are measured in a round, a multiple of the batch."""
    warm_up: int
    """Read before, and left to decode after it."""


class Side(Protocol):
    """One way from files to clips, in processes of its own."""

    def begin(self) -> float:
        """Start reading; seconds to the first micro-batch."""

    def read(self, clips: int) -> None:
        """Read so many clips."""

    def end(self) -> None:
        """Read what is left."""

    def processes(self) -> dict[int, str]:
        """Those whose CPU time counts, by id."""


def compare_ingest(
    videos: Sequence[str],
    share: IngestShare,
    *,
    rounds: int,
    clips: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> IngestComparison:
    """Compare in the running Ray session, which this process must have started.

    Args:
        videos: Files, read again and again.
        share: What a training worker would be given: `DECODE_CPUS` CPUs, `VIDEOS_PER_TASK` videos a task.
        rounds: Rounds of each side.
        clips: Clips that are measured in a round, a multiple of `VIDEOS_PER_TASK`.
        on_progress: Called with the number of finished rounds.
    """
    total = WARM_UP_CLIPS + clips + REST_CLIPS
    request = {
        "paths": list(videos),
        "items": total // VIDEOS_PER_TASK,
        "videos_per_item": VIDEOS_PER_TASK,
        "decoder": share.policy.decoder,
        "timeout_s": share.policy.limits.timeout_s,
        "workers": DECODE_CPUS,
    }
    sides: dict[str, Side] = {
        "ray": RaySide(rows_over(videos, total), share, extractor_of("train"), micro_batch=MICRO_BATCH),
        "loader": LoaderSide("morphmlp.benchmarks.loader_program", request),
    }
    times = time_sides(sides, rounds=rounds, warm_up=WARM_UP_CLIPS, clips=clips, on_progress=on_progress)
    ray_side, loader = times["ray"], times["loader"]
    return IngestComparison(
        ray_cpu_ratio=median_ratio(ray_side.cpu_s, loader.cpu_s),
        ray_wall_ratio=median_ratio(loader.wall_s, ray_side.wall_s),
        ray_cpu_ms=1000 * median(ray_side.cpu_s) / clips,
        loader_cpu_ms=1000 * median(loader.cpu_s) / clips,
        ray_clips_per_s=clips / median(ray_side.wall_s),
        loader_clips_per_s=clips / median(loader.wall_s),
        ray_parts_cpu_ms={part: 1000 * median(seconds) / clips for part, seconds in ray_side.parts_s.items()},
        first_batch_s=median(ray_side.first_s[1:] or ray_side.first_s),
        cold_first_batch_s=ray_side.first_s[0],
        rounds=rounds,
        clips_per_round=clips,
    )


@dataclass(frozen=True, kw_only=True)
class SideTimes:
    """Of one side, a number for each round, seconds."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    """To the first micro-batch."""
    parts_s: dict[str, list[float]] = field(default_factory=dict)
    """CPU time by what the processes are for (`cpu_by_part`)."""


def time_sides(
    sides: Mapping[str, Side], *, rounds: int, warm_up: int, clips: int, on_progress: Callable[[int], None]
) -> dict[str, SideTimes]:
    """Time interleaved rounds of every side, each over so many clips after those of its warm-up."""
    times = {name: SideTimes() for name in sides}
    for number, name in interleaved(list(sides), rounds):
        side, of_side = sides[name], times[name]
        of_side.first_s.append(side.begin())
        side.read(warm_up)
        before, began = cpu_clocks(side.processes()), time.perf_counter()
        side.read(clips)
        of_side.wall_s.append(time.perf_counter() - began)
        processes = side.processes()
        used = cpu_between(before, cpu_clocks(processes))
        of_side.cpu_s.append(sum(used.values()))
        side.end()
        for part, seconds in cpu_by_part(used, processes).items():
            of_side.parts_s.setdefault(part, []).append(seconds)
        on_progress(number + 1)
    return times


class RaySide:
    """A reader in a Ray process, as a training worker is one."""

    def __init__(self, manifest: Manifest, share: IngestShare, extractor: ClipExtractor, *, micro_batch: int) -> None:
        """Read each row of a manifest once a round."""
        self._reader = _Reader.remote(manifest, share, extractor, micro_batch)  # type: ignore[attr-defined]

    def begin(self) -> float:
        """Start reading."""
        return float(ray.get(self._reader.begin.remote()))

    def read(self, clips: int) -> None:
        """Read so many clips."""
        ray.get(self._reader.read.remote(clips))

    def end(self) -> None:
        """Read what is left."""
        ray.get(self._reader.end.remote())

    def processes(self) -> dict[int, str]:
        """All that Ray runs here; this process only asks."""
        tree = process_tree(os.getpid())
        return {pid: command for pid, command in tree.items() if pid != os.getpid() and not is_idle_daemon(command)}


@ray.remote(num_cpus=1)
class _Reader:
    """Reads micro-batches as a training worker does."""

    def __init__(self, manifest: Manifest, share: IngestShare, extractor: ClipExtractor, micro_batch: int) -> None:
        self._manifest, self._share, self._extractor = manifest, share, extractor
        self._plan = TrainPlan(
            num_videos=len(manifest), global_batch_size=micro_batch, micro_batch_size=micro_batch, seed=0
        )
        self._batches: Iterator[MicroBatch] = iter(())

    def begin(self) -> float:
        began = time.perf_counter()
        plans = self._plan.micro_batches(Cursor(), worker=0, num_workers=1)
        self._batches = stream_micro_batches(self._manifest, plans, self._extractor, self._share, stage="train")
        next(self._batches)
        return time.perf_counter() - began

    def read(self, clips: int) -> None:
        """Read, and look at nothing: training copies a micro-batch to its device."""
        for batch in islice(self._batches, clips // self._plan.micro_batch_size):
            if batch.broken:
                raise RuntimeError(f"{batch.broken[0].path}: {batch.broken[0].message}")

    def end(self) -> None:
        for _ in self._batches:
            pass


class LoaderSide:
    """A DataLoader in a process without Ray; a fresh one each round, so that none is there in others' rounds."""

    def __init__(self, module: str, request: Mapping[str, object]) -> None:
        """The module serves as a program: it reads the request, and then what to read of it."""
        self._module, self._request = module, request
        self._process: subprocess.Popen[str] | None = None

    def begin(self) -> float:
        """Start reading."""
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send(self._request)
        return time.perf_counter() - began

    def read(self, clips: int) -> None:
        """Read so many clips."""
        self._send({"clips": clips})
        assert self._process is not None
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())["clips"]
        if found != clips:
            raise RuntimeError(f"the DataLoader gave {found} clips of {clips}")

    def end(self) -> None:
        """Leave: what is ahead is dropped."""
        assert self._process is not None
        self._process.communicate()  # closes its input: it leaves, and its workers with it
        self._process = None

    def processes(self) -> dict[int, str]:
        """The loader's process and its workers."""
        assert self._process is not None
        return process_tree(self._process.pid)

    def _send(self, request: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()


def rows_over(
    videos: Sequence[str], count: int, *, as_stored: bool = False, maps: Sequence[str] | None = None
) -> Manifest:
    """So many rows over the files, each with an id, and so a clip, of its own.

    `as_stored`: images of a data set; `maps`: their label maps, whose 0 is ignored.
    """
    images: dict[str, Sequence[object]] = {"as_stored": [True] * count} if as_stored else {}
    if maps is not None:
        images["map_path"] = [maps[row % len(maps)] for row in range(count)]
        images |= {"map_crc32": [None] * count, "map_zero_is_ignored": [True] * count}
    return manifest_from_rows(
        video_ids=[f"video {row:06d}" for row in range(count)],
        paths=[videos[row % len(videos)] for row in range(count)],
        labels=[0] * count,
        splits=["train"] * count,
        sizes_bytes=[1] * count,
        class_names=["a class"],
        images=images or None,
    )


def is_idle_daemon(command: str) -> bool:
    """Whether a process of Ray's only shows or watches, by its command line."""
    # The raylet names its agents on its own command line.
    return _program(command) not in ("raylet", "gcs_server") and any(name in command for name in _IDLE_DAEMONS)


def _program(command: str) -> str:
    return command.partition(" ")[0].rpartition("/")[2]


def cpu_by_part(used: Mapping[int, float], processes: Mapping[int, str]) -> dict[str, float]:
    """CPU seconds by what the processes are for."""
    parts = {"reader": 0.0, "decode": 0.0, "raylet and store": 0.0, "other": 0.0}
    for pid, seconds in used.items():
        command = processes[pid]
        if "_Reader" in command:
            parts["reader"] += seconds
        elif command.startswith("ray::") or "morphmlp.data.decoding" in command:
            parts["decode"] += seconds
        elif _program(command) == "raylet":
            parts["raylet and store"] += seconds
        else:
            parts["other"] += seconds
    return parts
