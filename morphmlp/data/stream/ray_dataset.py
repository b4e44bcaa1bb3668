"""Each worker's own Ray Data pipeline over its slice of the plan.

Decode tasks run wherever the cluster has CPUs (or on the nodes labelled for ingest); order is preserved,
so that the stream is exactly the planned one whatever the number of workers, tasks and nodes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, tee

import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import DataContext, ExecutionResources

from morphmlp.data.clips.extract import ClipExtractor
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import ClipShape, MicroBatch, assemble
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import MicroBatchPlan
from morphmlp.data.stream.prefetch import chain_early, prefetch
from morphmlp.data.stream.ray_pace import pace

TASKS_AHEAD = 4
"""Tasks whose clips may wait in the object store, for each decode CPU."""
_TASKS_QUEUED = 2
"""Tasks that wait or run, for each decode CPU: with the next one waiting no CPU idles between two."""
_VIDEOS_PER_TASK, _IMAGES_PER_TASK = 16, 256
_IMAGE_TASK_BYTES = 40 * 2**20
"""Clips of images that a task hands over at most: of large ones fewer than `_IMAGES_PER_TASK`."""
SEGMENT_TASKS = 256
"""Tasks of one Ray Data execution. An epoch is a chain of them, so that neither its start nor the memory of the process
that reads it grows with the epoch."""
_ONE_VIDEO_BYTES = 512 * 2**20
"""A decode task's process and its decoder's (0.4 GiB between small videos), with packets and frames of one video."""
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class IngestShare:
    """What one worker's pipeline may use of the cluster."""

    policy: DecodePolicy
    cpus: int
    """Decode tasks at a time; each takes one CPU and one thread."""
    object_store_bytes: int | None
    """Decoded clips that may wait; None: `TASKS_AHEAD` tasks' clips for each CPU."""
    videos_per_task: int | None
    """None: as many as take a decode task some tenths of a second."""
    node_labels: dict[str, str]
    pin_memory: bool
    wait_for_clips_s: float | None = None
    """A pipeline that brings nothing for so long is given up; None: Ray Data decides."""

    def task_videos(self, extractor: ClipExtractor) -> int:
        """Videos of one decode task."""
        if self.videos_per_task is not None:
            return self.videos_per_task
        if extractor.clip.num_frames > 1:
            return _VIDEOS_PER_TASK
        return max(1, min(_IMAGES_PER_TASK, _IMAGE_TASK_BYTES // extractor.video_bytes))

    def task_bytes(self, extractor: ClipExtractor) -> int:
        """Memory of one decode task: its clips twice (as extracted and as sent), and room for one video."""
        return 2 * self.task_videos(extractor) * extractor.video_bytes + _ONE_VIDEO_BYTES

    def bytes_ahead(self, extractor: ClipExtractor) -> int:
        """Decoded clips that may wait in the object store."""
        return self.object_store_bytes or TASKS_AHEAD * self.cpus * self.task_videos(extractor) * extractor.video_bytes


def stream_micro_batches(
    manifest: Manifest,
    plans: Iterable[MicroBatchPlan],
    extractor: ClipExtractor,
    share: IngestShare,
    *,
    stage: str,
    device: torch.device = _CPU,
) -> Iterator[MicroBatch]:
    """The planned micro-batches, in order, decoded ahead by Ray Data tasks.

    Plans are read as they are needed. Clips that decode tasks don't finish are finished in this process, on `device`.
    """
    to_make, to_decode = tee(plans)  # both are read in one thread, that of `prefetch`
    groups = task_groups(to_decode, share.task_videos(extractor))
    segments = iter(lambda: list(islice(groups, SEGMENT_TASKS)), [])
    batches = assemble(
        chain_early(
            segments,
            lambda segment: _decoded(decoding_dataset(manifest, segment, extractor, share)),
            early=TASKS_AHEAD * share.cpus,
        ),
        to_make,
        manifest=manifest,
        stage=stage,
        shape=ClipShape.of(extractor),
        finish=extractor.finish_on(device),
        pin_memory=share.pin_memory,
    )
    return prefetch(batches, depth=2, wait_s=share.wait_for_clips_s)


def _decoded(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Begin to decode; one table a task, in planned order."""
    # Of several data blocks Ray pauses a task that nobody reads, and it keeps its CPU: those of training, which nobody
    # reads during a validation inside an epoch, would leave it none.
    dataset.context.target_max_block_size = None
    # Ray Data also counts the time in which nobody reads, such as a long validation; `prefetch` knows who waits.
    dataset.context.execution_no_progress_timeout_s = -1
    # `iter` starts the execution. Its thread waits for the next table while this one is taken apart.
    return prefetch(iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)), depth=1)


def decoding_dataset(
    manifest: Manifest, groups: Sequence[Sequence[MicroBatchPlan]], extractor: ClipExtractor, share: IngestShare
) -> ray.data.Dataset:
    """The lazy pipeline: requests in memory, one decode task per group of whole micro-batches."""
    requests = [request_table(manifest, group) for group in groups]
    dataset = ray.data.from_arrow(requests).map_batches(
        DecodeTask(extractor=extractor, policy=share.policy),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        # Stages that need different resources are never fused: a test's scorers, which may hold GPUs, must not
        # decode. And a node never starts more decoding than its memory holds.
        memory=share.task_bytes(extractor),
        label_selector=share.node_labels,
    )
    limit_execution(dataset.context, share, extractor)
    return dataset


def limit_execution(context: DataContext, share: IngestShare, extractor: ClipExtractor, *, actor_cpus: int = 0) -> None:
    """Keep a pipeline in order, inside its share of the cluster (and its actors' CPUs), quiet, and out of the way."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if share.wait_for_clips_s is not None:
        context.execution_no_progress_timeout_s = share.wait_for_clips_s
    pace(context)
    options = context.execution_options
    options.preserve_order = True  # `assemble` refuses any other order than the planned one
    options.verbose_progress = False
    options.resource_limits = ExecutionResources.for_limits(
        # The limit counts tasks that wait for a CPU too, and actors, which hold theirs from first to last.
        cpu=_TASKS_QUEUED * share.cpus + actor_cpus,
        object_store_memory=share.bytes_ahead(extractor),
    )


def task_groups(plans: Iterable[MicroBatchPlan], videos_per_task: int) -> Iterator[list[MicroBatchPlan]]:
    """Whole micro-batches for one decode task each; the first task is a single one, so that training starts soon."""
    group: list[MicroBatchPlan] = []
    videos = 0
    for number, plan in enumerate(plans):
        if group and (number == 1 or videos + len(plan.rows) > videos_per_task):
            yield group
            group, videos = [], 0
        group.append(plan)
        videos += len(plan.rows)
    if group:
        yield group
