"""One worker's clips, from its own Ray Data pipelines over its slice of the plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import ray
import torch

from morphmlp.config.schema import TrainConfig
from morphmlp.data.clips.extract import ClipExtractor
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.data.stream.plan import Cursor, MicroBatchPlan, TrainPlan, worker_share
from morphmlp.data.stream.ray_dataset import IngestShare, stream_micro_batches


@dataclass(frozen=True, kw_only=True)
class SharedVideos:
    """The manifests in Ray's object store: read once by the driver, looked at in place by every worker of a node."""

    train: "ray.ObjectRef[Manifest]"
    val: "ray.ObjectRef[Manifest]"

    @classmethod
    def of(cls, *, train: Manifest, val: Manifest) -> Self:
        """Put the available videos of two splits into the object store."""
        return cls(train=ray.put(train), val=ray.put(val))


@dataclass(frozen=True, kw_only=True)
class RayClips:
    """Where a worker's micro-batches come from in a run."""

    train_videos: Manifest
    val_videos: Manifest
    plan: TrainPlan
    train_clips: ClipExtractor
    val_clips: ClipExtractor
    share: IngestShare
    device: torch.device
    worker: int
    num_workers: int

    @classmethod
    def of(
        cls,
        videos: SharedVideos,
        share: IngestShare,
        *,
        train_clips: ClipExtractor,
        val_clips: ClipExtractor,
        train: TrainConfig,
        device: torch.device,
        worker: int,
        num_workers: int,
    ) -> Self:
        """The clips of an experiment's videos, as its task has them extracted."""
        train_videos, val_videos = ray.get([videos.train, videos.val])
        return cls(
            train_videos=train_videos,
            val_videos=val_videos,
            plan=TrainPlan.of(train, num_videos=len(train_videos)),
            train_clips=train_clips,
            val_clips=val_clips,
            share=share,
            device=device,
            worker=worker,
            num_workers=num_workers,
        )

    def train(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """This worker's micro-batches of each step, from the cursor to the end of its epoch."""
        plans = self.plan.micro_batches(cursor, worker=self.worker, num_workers=self.num_workers)
        batches = stream_micro_batches(
            self.train_videos, plans, self.train_clips, self.share, stage="train", device=self.device
        )
        for _, step in groupby(batches, key=lambda batch: batch.plan.step):
            yield list(step)

    def validation(self) -> Iterator[MicroBatch]:
        """This worker's share of the validation videos, one view each."""
        rows = worker_share(len(self.val_videos), worker=self.worker, num_workers=self.num_workers)
        size = 1 if self.val_clips.own_sizes else self.plan.micro_batch_size
        plans = (
            MicroBatchPlan(epoch=0, step=0, index=index, rows=rows[start : start + size])
            for index, start in enumerate(range(0, len(rows), size))
        )
        return stream_micro_batches(self.val_videos, plans, self.val_clips, self.share, stage="val")
