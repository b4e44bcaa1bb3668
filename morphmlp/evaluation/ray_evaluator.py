"""The multi-view test over the cluster: decode tasks feed a pool of scorers, one per worker.

Every video is scored exactly once, or there is no number.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from torch import Tensor

from morphmlp.data.manifest import Manifest
from morphmlp.data.quarantine import BrokenVideo, too_many_broken
from morphmlp.data.stream.batches import ClipShape, broken_videos, stored_clips
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.data.stream.ray_dataset import IngestShare, decoding_dataset, limit_execution, task_groups
from morphmlp.errors import EvaluationError
from morphmlp.tasks.task import Task


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
    """As the task makes them (`Task.predictions`)."""
    broken: list[BrokenVideo]
    concealed: int
    """Decoded frames that stand in for damaged ones."""
    retried: int
    """Videos that only a second decoder could read."""
    cpu_s: float
    """CPU core-seconds of decoding and scoring."""


def score_views(
    task: Task,
    weights: Mapping[str, Tensor],
    manifest: Manifest,
    *,
    pool: ScorerPool,
    share: IngestShare,
    videos_at_once: int,
    broken_limit: float,
    progress: Callable[[int], None],
) -> TestResult:
    """Score every video of a manifest on what the task tests it on; ends where more are broken than may be.

    `share` is what decoding may use of the cluster, all scorers together; `videos_at_once` are decoded by a task and go
    through the network in one pass, where they have one size. At most `broken_limit` of the videos may be broken (a
    share, 0-1).

    Raises:
        EvaluationError: A video was neither scored nor quarantined.
    """
    dataset = scoring_dataset(task, weights, manifest, pool=pool, share=share, videos_at_once=videos_at_once)
    return _collected(dataset, manifest, task, broken_limit=broken_limit, progress=progress)


def scoring_dataset(
    task: Task,
    weights: Mapping[str, Tensor],
    manifest: Manifest,
    *,
    pool: ScorerPool,
    share: IngestShare,
    videos_at_once: int,
) -> ray.data.Dataset:
    """The lazy pipeline of `score_views`."""
    extractor = task.test_clips()
    if extractor.own_sizes:  # they don't go together anyway, and may be large
        videos_at_once = replace(share, videos_per_task=None).task_videos(extractor)
    rows = np.arange(len(manifest), dtype=np.int64)
    plans = [
        MicroBatchPlan(epoch=0, step=0, index=index, rows=part)
        for index, part in enumerate(np.split(rows, range(videos_at_once, len(rows), videos_at_once)))
    ]
    share = replace(share, videos_per_task=videos_at_once)
    scorers = min(pool.num_workers, len(plans))  # one without work would only take its start's time
    groups = list(task_groups(plans, videos_at_once))
    dataset = decoding_dataset(manifest, groups, extractor, share).map_batches(
        Scorer,
        fn_constructor_kwargs={"task": task, "weights": weights, "pool": pool},
        batch_size=videos_at_once,  # whole tables of a decode task; Ray asks for a number where there are GPUs
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=scorers),
        num_cpus=pool.cpus_per_worker,
        num_gpus=1 if pool.device == "cuda" else 0,
        label_selector=pool.node_labels,
    )
    limit_execution(dataset.context, share, extractor, actor_cpus=scorers * pool.cpus_per_worker)
    return dataset


def _collected(
    dataset: ray.data.Dataset,
    manifest: Manifest,
    task: Task,
    *,
    broken_limit: float,
    progress: Callable[[int], None],
) -> TestResult:
    """What the scorers found, and the proof that no video is missing."""
    outcomes: dict[int, bytes] = {}
    broken: list[BrokenVideo] = []
    scored: list[int] = []
    concealed = retried = 0
    cpu_s = 0.0
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        table = cast(pa.Table, batch)
        broken.extend(broken_videos(table, manifest, stage="test"))
        cpu_s += pc.sum(table["cpu_s"]).as_py() + pc.sum(table["scorer_cpu_s"]).as_py()
        for row in table.select(["row", "error", "concealed", "retried", "outcome"]).to_pylist():
            if not row["error"]:
                scored.append(row["row"])
                outcomes[row["row"]] = row["outcome"]
                concealed += row["concealed"]
                retried += row["retried"]
        progress(len(scored) + len(broken))
        if too_many_broken("test", len(broken), num_videos=len(manifest), limit=broken_limit):
            break
    else:
        check_coverage(manifest, scored=scored, broken=[video.video_id for video in broken])
    return TestResult(
        predictions=task.predictions(manifest, outcomes),
        broken=broken,
        concealed=concealed,
        retried=retried,
        cpu_s=cpu_s,
    )


def check_coverage(manifest: Manifest, *, scored: Iterable[int], broken: Iterable[str]) -> None:
    """Make sure that every video was either scored once or quarantined.

    Raises:
        EvaluationError: A video is missing; a score over the rest would be another test set's.
    """
    ids = manifest.table["video_id"].to_pylist()
    scored_rows = list(scored)
    twice = len(scored_rows) - len(set(scored_rows))
    missing = set(ids) - {ids[row] for row in scored_rows} - set(broken)
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
    shared out over them.
    """

    def __init__(self, task: Task, weights: Mapping[str, Tensor], pool: ScorerPool) -> None:
        self._cpu_s = 0.0  # the process is this scorer's alone, so that its start counts
        torch.set_num_threads(pool.cpus_per_worker)
        self._device = torch.device(pool.device)
        self._task, self._shape = task, ClipShape.of(task.test_clips())
        self._model = task.network()
        self._model.load_state_dict(weights)
        self._model.to(self._device).eval()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The outcome of every video; a broken one has none."""
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
        return scored.append_column("scorer_cpu_s", shared)

    def _outcomes(self, rows: pa.Table) -> list[bytes]:
        clips, maps = stored_clips(rows, self._shape)
        by_video = clips.view(-1, self._shape.clips_per_video, *clips.shape[1:])
        return self._task.outcomes(self._model, by_video, maps, self._device)

    def _shares_of_cpu_s(self, rows: int) -> list[float]:
        spent = time.process_time() - self._cpu_s
        self._cpu_s += spent if rows else 0.0
        return [spent / rows for _ in range(rows)]
