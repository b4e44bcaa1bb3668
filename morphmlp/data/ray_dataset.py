"""Each worker's own Ray Data pipeline over its slice of the plan.

Decode tasks run wherever the cluster has CPUs (or on the nodes labelled for ingest); order is preserved,
so that the stream is exactly the planned one whatever the number of workers, tasks and nodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import DataContext, ExecutionResources

from morphmlp.data.batches import DecodedRows, Failures, MicroBatch, assemble
from morphmlp.data.clips import Cutter
from morphmlp.data.decoding import decoder_by_name
from morphmlp.data.manifest import Manifest
from morphmlp.data.plan import MicroBatchPlan
from morphmlp.data.prefetch import prefetch

TASKS_AHEAD = 4
ONE_VIDEO_BYTES = 128 * 2**20
"""Packets and wanted frames of a video while it is decoded, generously."""


@dataclass(frozen=True, kw_only=True)
class IngestShare:
    """What one worker's pipeline may use of the cluster."""

    decoder: str
    cpus: int
    """Decode tasks at a time; each takes one CPU and one thread."""
    object_store_bytes: int | None
    """Decoded clips that may wait; None: `TASKS_AHEAD` tasks' clips for each CPU."""
    videos_per_task: int
    node_labels: dict[str, str]
    pin_memory: bool


@dataclass(frozen=True, kw_only=True)
class DecodeTask:
    """Decodes the videos of one data block.

    Columns in: `row` int64, `epoch` int64, `video_id`, `path`, `label` int32. Columns out: see
    `morphmlp.data.batches.DecodedRows`.
    """

    cutter: Cutter
    decoder: str

    def __call__(self, table: pa.Table) -> DecodedRows:
        """Cut every video's clips; a video that can't be used leaves zeros and its reason."""
        torch.set_num_threads(1)  # one CPU is reserved for the task
        decoder = decoder_by_name(self.decoder)
        size = self.cutter.clip.crop_size
        clips = np.zeros(
            (table.num_rows, self.cutter.clips_per_video, self.cutter.clip.num_frames, size, size, 3), dtype=np.uint8
        )
        errors, messages = [""] * table.num_rows, [""] * table.num_rows
        concealed = np.zeros(table.num_rows, dtype=np.int64)
        for place, video in enumerate(table.select(["path", "video_id", "epoch"]).to_pylist()):
            try:
                cut = self.cutter.cut(decoder, **video)
                clips[place], concealed[place] = cut.clips, cut.concealed
            except Exception as error:  # noqa: BLE001 (whatever a codec does with a file, it costs this video alone)
                errors[place], messages[place] = type(error).__name__, " ".join(str(error).split())
        return {
            "row": table["row"].to_numpy(),
            "label": table["label"].to_numpy(),
            "error": np.array(errors, dtype=object),
            "message": np.array(messages, dtype=object),
            "concealed": concealed,
            "clips": clips,
        }


def stream_micro_batches(
    manifest: Manifest, plans: Sequence[MicroBatchPlan], cutter: Cutter, share: IngestShare, *, stage: str
) -> Iterator[MicroBatch]:
    """The planned micro-batches, in order, decoded ahead by Ray Data tasks."""
    failures = Failures(
        manifest=manifest,
        stage=stage,
        decoder=share.decoder,
        decoder_version=decoder_by_name(share.decoder).version,
    )
    batches = assemble(
        decoded_blocks(manifest, plans, cutter, share), iter(plans), failures=failures, pin_memory=share.pin_memory
    )
    return prefetch(batches, depth=2)


def decoded_blocks(
    manifest: Manifest, plans: Sequence[MicroBatchPlan], cutter: Cutter, share: IngestShare
) -> Iterator[DecodedRows]:
    """Decoded rows in planned order, one data block per task."""
    dataset = decoding_dataset(manifest, plans, cutter, share)
    for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        yield cast(DecodedRows, block)


def decoding_dataset(
    manifest: Manifest, plans: Sequence[MicroBatchPlan], cutter: Cutter, share: IngestShare
) -> ray.data.Dataset:
    """The lazy pipeline: requests in memory, one decode task per group of whole micro-batches."""
    videos = manifest.table.select(["video_id", "path", "label"])
    requests = [_requests(videos, group) for group in _task_groups(plans, share.videos_per_task)]
    dataset = ray.data.from_arrow(requests).map_batches(
        DecodeTask(cutter=cutter, decoder=share.decoder),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        # Stages that ask for different resources are never fused: a test's scorers, which may hold GPUs, must not
        # decode. And a node never starts more decoding than its memory holds.
        memory=task_memory_bytes(cutter, share.videos_per_task),
        label_selector=share.node_labels,
    )
    limit_execution(dataset.context, share, cutter)
    return dataset


def task_memory_bytes(cutter: Cutter, videos: int) -> int:
    """Memory of one decode task: its clips twice (as cut and as sent), and room for one video."""
    return 2 * task_clip_bytes(cutter, videos) + ONE_VIDEO_BYTES


def task_clip_bytes(cutter: Cutter, videos: int) -> int:
    """Clips that one decode task gives, bytes."""
    return videos * cutter.clips_per_video * cutter.clip.num_frames * cutter.clip.crop_size**2 * 3


def limit_execution(context: DataContext, share: IngestShare, cutter: Cutter, *, actor_cpus: int = 0) -> None:
    """Keep a pipeline in order, inside its share of the cluster (and its actors' CPUs), and quiet."""
    ahead = share.object_store_bytes or TASKS_AHEAD * share.cpus * task_clip_bytes(cutter, share.videos_per_task)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    options = context.execution_options
    options.preserve_order = True
    options.verbose_progress = False
    options.resource_limits = ExecutionResources.for_limits(cpu=share.cpus + actor_cpus, object_store_memory=ahead)


def _task_groups(plans: Sequence[MicroBatchPlan], videos_per_task: int) -> Iterator[list[MicroBatchPlan]]:
    group: list[MicroBatchPlan] = []
    videos = 0
    for plan in plans:
        if group and videos + len(plan.rows) > videos_per_task:
            yield group
            group, videos = [], 0
        group.append(plan)
        videos += len(plan.rows)
    if group:
        yield group


def _requests(videos: pa.Table, group: Sequence[MicroBatchPlan]) -> pa.Table:
    rows = np.concatenate([plan.rows for plan in group])
    epochs = np.concatenate([np.full(len(plan.rows), plan.epoch) for plan in group])
    table = videos.take(pa.array(rows)).combine_chunks()
    return table.append_column("row", pa.array(rows)).append_column("epoch", pa.array(epochs))
