"""The ledger: which videos every step consumed, written by the workers, and what it says about a run.

Files `<run folder>/ledger/<time ns>-<8 hex>-worker<rank>-of-<n>.jsonl`; all workers that started together share what
stands before `-worker`, an attempt. The first line says at which step the attempt began, every further line is a step.

A step's line is written when the worker takes its micro-batches, before it trains on them. So no step can get into the
weights without every worker's line; and a step that died half-way is discarded by the attempt that takes it again.
"""

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import Cursor, TrainPlan
from morphmlp.line_file import read_json_lines
from morphmlp.training.loop.loop import TrainClips

_FILE = re.compile(r"(?P<attempt>(?P<time>\d+)-[0-9a-f]{8})-worker(?P<worker>\d+)-of-(?P<of>\d+)\.jsonl")


class Ledger:
    """One worker's file of one attempt. Lines outlive the process, not a crash of its machine."""

    def __init__(self, folder: Path, *, worker: int, num_workers: int, first_step: int) -> None:
        """Begin a file; every worker does it at the same time, since they agree on the attempt's name."""
        attempt = [f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"]
        if dist.is_initialized():
            dist.broadcast_object_list(attempt, src=0)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{attempt[0]}-worker{worker}-of-{num_workers}.jsonl"
        self._file = path.open("a", encoding="utf-8", buffering=1)  # a line at a time
        self._write({"first_step": first_step, "worker": worker, "num_workers": num_workers})

    def add(self, *, step: int, epoch: int, videos: Sequence[str], broken: Sequence[str]) -> None:
        """Write a step (from 0, over all epochs): ids of the videos to train on, and of the broken ones left out."""
        self._write({"step": step, "epoch": epoch, "videos": list(videos), "broken": list(broken)})

    def close(self) -> None:
        """End the file; a process that ends does it too."""
        self._file.close()

    def _write(self, line: Mapping[str, int | list[str]]) -> None:
        self._file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class RecordedClips:
    """Clips whose every step is written to a ledger when it's handed over; what `fit` reads instead of them."""

    clips: TrainClips
    ledger: Ledger
    plan: TrainPlan
    videos: Manifest
    """The training videos that the plan's rows are of."""

    def train(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """Pass micro-batches on, each step written down first."""
        ids = self.videos.table["video_id"]
        for micro_batches in self.clips.train(cursor):
            if micro_batches:
                place = micro_batches[0].plan
                self.ledger.add(
                    step=self.plan.step_of(Cursor(epoch=place.epoch, step=place.step)),
                    epoch=place.epoch,
                    videos=[name for batch in micro_batches for name in ids.take(batch.rows).to_pylist()],
                    broken=[video.video_id for batch in micro_batches for video in batch.broken],
                )
            yield micro_batches


@dataclass(frozen=True, kw_only=True)
class StepVideos:
    """What one step consumed, over all workers; a video that stands in two lines stands here twice."""

    videos: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What the workers of one start wrote."""

    first_step: int
    num_workers: int
    steps: Mapping[int, StepVideos]


@dataclass(frozen=True, kw_only=True)
class History:
    """A run as its final weights saw it."""

    attempts: tuple[Attempt, ...]
    """In the order of their start."""
    steps: Mapping[int, StepVideos]
    """What counts of every step: an attempt that begins at step r discards what was written before of r and later."""

    @property
    def redone_steps(self) -> int:
        """Steps taken in vain: how often a step was taken (or begun) again. Work that was lost, not data."""
        taken = Counter(step for attempt in self.attempts for step in attempt.steps)
        return sum(taken.values()) - len(taken)


def read_history(folder: Path) -> History:
    """Read a run's ledger, none where there is none; what a worker wrote half when it was killed is left out."""
    files: dict[tuple[int, str], list[Path]] = {}
    for path in folder.glob("*.jsonl"):
        if name := _FILE.fullmatch(path.name):
            files.setdefault((int(name["time"]), name["attempt"]), []).append(path)
    read = [_read_attempt(sorted(paths)) for _, paths in sorted(files.items())]
    attempts = tuple(attempt for attempt in read if attempt is not None)
    steps: dict[int, StepVideos] = {}
    for attempt in attempts:
        steps = {step: videos for step, videos in steps.items() if step < attempt.first_step}
        steps.update(attempt.steps)
    return History(attempts=attempts, steps=steps)


def _read_attempt(paths: Sequence[Path]) -> Attempt | None:
    """The attempt of these workers' files; None where each of them was killed within its first line."""
    first_step = num_workers = None
    videos: dict[int, list[str]] = {}
    broken: dict[int, list[str]] = {}
    for path in paths:
        for line in read_json_lines(path):
            if "first_step" in line:
                first_step, num_workers = line["first_step"], line["num_workers"]
                continue
            videos.setdefault(line["step"], []).extend(line["videos"])
            broken.setdefault(line["step"], []).extend(line["broken"])
    if first_step is None or num_workers is None:
        return None
    steps = {step: StepVideos(videos=tuple(videos[step]), broken=tuple(broken[step])) for step in sorted(videos)}
    return Attempt(first_step=first_step, num_workers=num_workers, steps=steps)
