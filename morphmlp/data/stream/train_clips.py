"""What training makes of a manifest: the plan, what is extracted from each video, and where."""

from dataclasses import dataclass

import torch
from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.data.clips.extract import TrainClips, TrainFrames, clips_on_device
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.plan import TrainPlan


def train_plan(config: ExperimentConfig, num_videos: int) -> TrainPlan:
    """The plan of an experiment over its training videos."""
    return TrainPlan(
        num_videos=num_videos,
        global_batch_size=config.train.global_batch_size,
        micro_batch_size=config.train.micro_batch_size,
        seed=config.train.seed,
    )


def train_extractor(config: ExperimentConfig) -> TrainClips | TrainFrames:
    """What decode tasks extract from a training video: finished clips, or frames for `AugmentHere`."""
    kind = TrainFrames if config.augment.on == "worker" else TrainClips
    return kind(clip=config.clip, augment=config.augment, seed=config.train.seed)


@dataclass(frozen=True)
class AugmentHere:
    """Makes training clips on the training device (`augment.on: worker`)."""

    source: TrainFrames
    videos: Manifest
    device: torch.device

    @property
    def clips_per_video(self) -> int:
        """Clips that each video gives."""
        return self.source.augment.repeats

    def __call__(self, frames: Tensor, *, row: int, epoch: int) -> Tensor:
        """The clips `[r t h w c]` of a manifest row."""
        return clips_on_device(
            frames,
            clip=self.source.clip,
            augment=self.source.augment,
            seed=self.source.seed,
            epoch=epoch,
            video_id=self.videos.table["video_id"][row].as_py(),
            device=self.device,
        )
