"""One worker's clips, from its own Ray Data pipelines over its slice of the plan."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

from morphmlp.config import ExperimentConfig
from morphmlp.data.batches import MicroBatch
from morphmlp.data.clips import SINGLE_VIEW, TrainClips, ViewClips
from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.data.plan import Cursor, MicroBatchPlan, TrainPlan, worker_share
from morphmlp.data.ray_dataset import IngestShare, stream_micro_batches
from morphmlp.errors import ManifestError


@dataclass(frozen=True, kw_only=True)
class RayClips:
    """Where a worker's micro-batches come from in a run."""

    train_videos: Manifest
    val_videos: Manifest
    plan: TrainPlan
    train_clips: TrainClips
    val_clips: ViewClips
    share: IngestShare
    worker: int
    num_workers: int

    @classmethod
    def of(cls, config: ExperimentConfig, share: IngestShare, *, worker: int, num_workers: int) -> Self:
        """The clips of an experiment's available videos."""
        train_videos = read_manifest(config.data.train).available()
        return cls(
            train_videos=train_videos,
            val_videos=read_manifest(config.data.val).available(),
            plan=train_plan(config, len(train_videos)),
            train_clips=TrainClips(clip=config.clip, augment=config.augment, seed=config.train.seed),
            val_clips=ViewClips(clip=config.clip, views=SINGLE_VIEW),
            share=share,
            worker=worker,
            num_workers=num_workers,
        )

    def check_data(self, *, train: str, val: str) -> None:
        """Make sure that this worker reads the videos that the driver has read.

        Raises:
            ManifestError: A manifest here is another one; the workers' plans would differ.
        """
        for split, videos, expected in (("train", self.train_videos, train), ("val", self.val_videos, val)):
            if videos.fingerprint() != expected:
                raise ManifestError(
                    f"data.{split}: worker {self.worker} reads {videos.fingerprint()}, the driver read {expected}; "
                    "all nodes must see the same manifest"
                )

    def train(self, cursor: Cursor) -> Iterator[Sequence[MicroBatch]]:
        """This worker's micro-batches of each step, from the cursor to the end of its epoch."""
        plans = list(self.plan.micro_batches(cursor, worker=self.worker, num_workers=self.num_workers))
        batches = stream_micro_batches(self.train_videos, plans, self.train_clips, self.share, stage="train")
        for _, step in groupby(batches, key=lambda batch: batch.plan.step):
            yield list(step)

    def validation(self) -> Iterator[MicroBatch]:
        """This worker's share of the validation videos, one view each."""
        rows = worker_share(len(self.val_videos), worker=self.worker, num_workers=self.num_workers)
        size = self.plan.micro_batch_size
        plans = [
            MicroBatchPlan(epoch=0, step=0, index=index, rows=rows[start : start + size])
            for index, start in enumerate(range(0, len(rows), size))
        ]
        if not plans:
            return iter(())
        return stream_micro_batches(self.val_videos, plans, self.val_clips, self.share, stage="val")


def train_plan(config: ExperimentConfig, num_videos: int) -> TrainPlan:
    """The plan of an experiment over its training videos."""
    return TrainPlan(
        num_videos=num_videos,
        global_batch_size=config.train.global_batch_size,
        micro_batch_size=config.train.micro_batch_size,
        seed=config.train.seed,
    )
