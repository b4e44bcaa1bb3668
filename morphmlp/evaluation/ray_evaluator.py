"""The multi-view test over the cluster: decode tasks feed a pool of scorers, one per worker.

Every video is scored exactly once, or there is no number. What is scored is put into a store at once, and what the
store has isn't scored again: a test continues where it stopped, whatever stopped it.
"""

import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from torch import Tensor

from morphmlp.data.columns import SCORED
from morphmlp.data.manifest import Manifest
from morphmlp.data.quarantine import BrokenVideo, too_many_broken
from morphmlp.data.stream.batches import ClipShape, broken_videos, stored_clips
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.data.stream.ray_dataset import IngestShare, decoding_dataset, limit_execution
from morphmlp.errors import EvaluationError
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.start_marks import Part
from morphmlp.tasks.task import Task

SCORER_START = "scorer_start"
"""Column of scored rows: when a scorer had come to `_SCORER_PARTS`, seconds since 1970."""
_SCORER_PARTS = (Part.WORKER, Part.MODEL, Part.CLIPS)
_TASK_BYTES = 256 * 2**20
"""Clips that a decode task hands over at most, of several videos: all views of one may be more."""


@dataclass(frozen=True, kw_only=True)
class ScorerPool:
    """Processes that hold the model during a test."""

    num_workers: int
    cpus_per_worker: int
    device: str
    """`cpu` or `cuda`; a cuda scorer takes one GPU."""
    node_labels: dict[str, str]
    """Ray label selector of the nodes that may score."""


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """What a test found; of every video a score or a reason, unless so many are broken that it ended early."""

    predictions: pa.Table
    """As the task makes them (`Task.predictions`); the logits of each view are empty lists, the store has them."""
    broken: list[BrokenVideo]
    concealed: int
    """Decoded frames that stand in for damaged ones."""
    retried: int
    """Videos that only a second decoder could read."""
    cpu_s: float
    """CPU core-seconds of decoding and scoring, over all commands that added to the store."""
    num_scored_now: int
    """Videos that this command scored; the others were in the store."""
    start: Mapping[Part, float]
    """When the parts of the start were over up to the first scores, seconds since 1970; none where all were there."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A test under way: its processes start and work while the caller does something else."""

    tables: Iterable[pa.Table]
    """What scorers hand back, as it comes."""
    task: Task
    manifest: Manifest
    store: ScoreStore
    broken_limit: float

    def collect(self, progress: Callable[[int], None]) -> TestResult:
        """Put all that is found into the store; ends where more videos are broken than may be.

        Raises:
            EvaluationError: A video was neither scored nor quarantined.
        """
        return _collected(
            self.tables,
            self.manifest,
            self.task,
            store=self.store,
            broken_limit=self.broken_limit,
            progress=progress,
        )


def begin_scoring(
    task: Task,
    weights: Mapping[str, Tensor],
    manifest: Manifest,
    *,
    store: ScoreStore,
    pool: ScorerPool,
    share: IngestShare,
    videos_at_once: int,
    broken_limit: float,
) -> Scoring:
    """Begin to score every video of a manifest on what the task tests it on.

    Videos whose scores are in the store are neither decoded nor scored; those that were broken are tried again. A
    scorer that dies is started again by Ray Data, and gets the videos again that it had.

    `share` is what decoding may use of the cluster, all scorers together; `videos_at_once` are decoded by a task and go
    through the network in one pass, where they have one size. At most `broken_limit` of the videos may be broken (a
    share, 0-1).

    Raises:
        ScoreStoreError: The store is damaged.
    """
    ids = store.ids()
    missing = np.array([name not in ids for name in manifest.table["video_id"].to_pylist()], dtype=bool)
    tables: Iterable[pa.Table] = ()
    if missing.any():
        dataset = scoring_dataset(
            task, weights, manifest, missing=missing, pool=pool, share=share, videos_at_once=videos_at_once
        )
        # `iter` starts the execution.
        tables = cast(Iterator[pa.Table], iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow")))
    return Scoring(tables=tables, task=task, manifest=manifest, store=store, broken_limit=broken_limit)


def scoring_dataset(
    task: Task,
    weights: Mapping[str, Tensor],
    manifest: Manifest,
    *,
    missing: npt.NDArray[np.bool_],
    pool: ScorerPool,
    share: IngestShare,
    videos_at_once: int,
) -> ray.data.Dataset:
    """The lazy pipeline of `begin_scoring` over the rows that are missing."""
    extractor = task.test_clips()
    most = replace(share, videos_per_task=None).task_videos(extractor) if extractor.own_sizes else videos_at_once
    videos_at_once = max(1, min(most, _TASK_BYTES // extractor.video_bytes))
    # A video's scores depend, in their last bits, on which ones go through the network with it: these stay the same
    # where a test continues.
    rows = np.arange(len(manifest), dtype=np.int64)
    parts = (part[missing[part]] for part in np.split(rows, range(videos_at_once, len(rows), videos_at_once)))
    plans = [
        MicroBatchPlan(epoch=0, step=0, index=index, rows=part)
        for index, part in enumerate(part for part in parts if len(part))
    ]
    share = replace(share, videos_per_task=videos_at_once)
    scorers = min(pool.num_workers, len(plans))  # one without work would only take its start's time
    # Each decode task is one micro-batch: the scorers see whole ones.
    dataset = decoding_dataset(manifest, [[plan] for plan in plans], extractor, share).map_batches(
        Scorer,
        fn_constructor_kwargs={"task": task, "weights": ray.put(dict(weights)), "pool": pool},
        batch_size=videos_at_once,  # whole tables of a decode task; Ray asks for a number where there are GPUs
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=scorers),
        num_cpus=pool.cpus_per_worker,
        num_gpus=1 if pool.device == "cuda" else 0,
        label_selector=pool.node_labels,
    )
    limit_execution(dataset.context, share, extractor, actor_cpus=scorers * pool.cpus_per_worker)
    dataset.context.target_max_block_size = None  # a task's table stays whole
    dataset.context.execution_options.preserve_order = False  # a slow video holds nobody up: the store knows the order
    return dataset


def _collected(
    tables: Iterable[pa.Table],
    manifest: Manifest,
    task: Task,
    *,
    store: ScoreStore,
    broken_limit: float,
    progress: Callable[[int], None],
) -> TestResult:
    """Put what the scorers find into the store, and prove that no video is missing."""
    broken: list[BrokenVideo] = []
    before = len(store.ids())
    broken_cpu_s = 0.0
    start: dict[Part, float] = {}
    progress(before)
    for table in tables:
        found = broken_videos(table, manifest, stage="test")
        scored, without = _scored_rows(table, manifest, task)
        store.append(scored, found)
        broken.extend(found)
        broken_cpu_s += without
        start = start or _start_of(table)
        progress(len(store.ids()) + len(broken))
        if too_many_broken("test", len(broken), num_videos=len(manifest), limit=broken_limit):
            break
    else:
        check_coverage(manifest, scored=store.ids(), broken=[video.video_id for video in broken])
    result = stored_result(store)
    return replace(
        result,
        broken=sorted(broken, key=lambda video: video.video_id),
        cpu_s=result.cpu_s + broken_cpu_s,
        num_scored_now=len(store.ids()) - before,
        start=start,
    )


def stored_result(store: ScoreStore) -> TestResult:
    """What a store holds."""
    facts = store.read([field.name for field in SCORED])
    return TestResult(
        predictions=store.read_without_views(),
        broken=store.broken(),
        concealed=pc.sum(facts["concealed"]).as_py() or 0,
        retried=pc.sum(facts["retried"]).as_py() or 0,
        cpu_s=pc.sum(facts["cpu_s"]).as_py() or 0.0,
        num_scored_now=0,
        start={},
    )


def _start_of(table: pa.Table) -> dict[Part, float]:
    """When the start's parts were over in the scorer of a table whose scores are in the store just now."""
    times = table[SCORER_START][0].as_py() if table.num_rows else []
    return dict(zip((*_SCORER_PARTS, Part.SCORES), (*times, time.time()), strict=True)) if times else {}


def _scored_rows(table: pa.Table, manifest: Manifest, task: Task) -> tuple[pa.Table, float]:
    """What the store gets of a scorer's table, and the CPU seconds that its broken videos took."""
    cpu_s = pc.add(table["cpu_s"], table["scorer_cpu_s"])
    table = table.set_column(table.column_names.index("cpu_s"), "cpu_s", cpu_s)
    is_good = pc.equal(table["error"], "")
    good = table.filter(is_good).sort_by("row")
    scored = task.predictions(manifest, dict(zip(good["row"].to_pylist(), good["outcome"].to_pylist(), strict=True)))
    for field in SCORED:
        scored = scored.append_column(field, good[field.name].cast(field.type))
    return scored, pc.sum(table.filter(pc.invert(is_good))["cpu_s"]).as_py() or 0.0


def check_coverage(manifest: Manifest, *, scored: Collection[str], broken: Iterable[str]) -> None:
    """Make sure that every video was either scored once or quarantined.

    Raises:
        EvaluationError: A video is missing; a score over the rest would be another test set's.
    """
    ids = manifest.table["video_id"].to_pylist()
    twice = len(scored) - len(set(scored))
    missing = set(ids) - set(scored) - set(broken)
    if twice or missing:
        examples = ", ".join(sorted(missing)[:3])
        raise EvaluationError(
            f"no score: of {len(ids)} videos {len(missing)} were neither scored nor quarantined"
            f"{f' ({examples})' if examples else ''} and {twice} were scored twice"
        )


class Scorer:
    """Holds the model on its device and scores decoded rows.

    Columns in: `morphmlp.data.columns.DECODED`. Columns out: the same with `outcome`, what the task hands back of a
    video, in the place of `clips` and `maps`, and `scorer_cpu_s`, CPU seconds of this process since the last rows,
    shared out over them, and `SCORER_START`.
    """

    def __init__(self, task: Task, weights: Mapping[str, Tensor], pool: ScorerPool) -> None:
        self._cpu_s = 0.0  # the process is this scorer's alone, so that its start counts
        self._start = [time.time()]
        torch.set_num_threads(pool.cpus_per_worker)
        self._name, self._device = f"{socket.gethostname()}:{os.getpid()}", torch.device(pool.device)
        self._task, self._shape = task, ClipShape.of(task.test_clips())
        self._model = task.network()
        self._model.load_state_dict(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
        self._model.fit_to(self._device).eval()
        self._start.append(time.time())

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The outcome of every video; a broken one has none."""
        if len(self._start) < len(_SCORER_PARTS):
            self._start.append(time.time())
        cells = [b""] * rows.num_rows
        good = [place for place, error in enumerate(rows["error"].to_pylist()) if not error]
        if self._shape.own_sizes:
            for place in good:
                (cells[place],) = self._outcomes(rows.slice(place, 1))
        elif good:
            for place, outcome in zip(good, self._outcomes(rows), strict=True):
                cells[place] = outcome
        shared = pa.array(self._shares_of_cpu_s(rows.num_rows), pa.float64())
        scored = rows.drop_columns(["clips", "maps"]).append_column("outcome", pa.array(cells, pa.large_binary()))
        named = pa.array([self._name] * rows.num_rows, pa.string())
        start = pa.array([self._start] * rows.num_rows, pa.list_(pa.float64()))
        return (
            scored.append_column("scorer", named)
            .append_column("scorer_cpu_s", shared)
            .append_column(SCORER_START, start)
        )

    def _outcomes(self, rows: pa.Table) -> list[bytes]:
        clips, maps = stored_clips(rows, self._shape)
        by_video = clips.view(-1, self._shape.clips_per_video, *clips.shape[1:])
        return self._task.outcomes(self._model, by_video, maps, self._device)

    def _shares_of_cpu_s(self, rows: int) -> list[float]:
        spent = time.process_time() - self._cpu_s
        self._cpu_s += spent if rows else 0.0
        return [spent / rows for _ in range(rows)]
