"""What the rest of the package knows of a task: the protocol, what it counts, and what scores are made of that."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from morphmlp.data.clips.augment import normalise
from morphmlp.data.clips.extract import ClipExtractor
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.models.network import Network
from morphmlp.tasks.scores import ScoreName

Scores = Mapping[str, float]
"""Values by `ScoreName.key`."""
Outputs = Tensor | tuple[Tensor, ...]
"""What a network gives: one tensor, or several of which the first is the main one."""


def zero() -> Tensor:
    """A count that has counted nothing; on the CPU, where counts are kept."""
    return torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sums:
    """Named tensors that add up, over micro-batches, workers, and the parts of a resumed run.

    A subclass declares them as fields. `pack` makes one tensor of them, as an all-reduce needs it; `unpack` gives the
    names back.
    """

    def pack(self) -> Tensor:
        """All fields behind each other in one flat tensor."""
        return torch.cat([getattr(self, field.name).flatten() for field in fields(self)])

    def unpack(self, packed: Tensor) -> Self:
        """The same fields with the values of `[... n]`: a packed tensor of length `n`, or several."""
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        parts = torch.split(packed, [shape.numel() for shape in shapes.values()], dim=-1)
        return type(self)(
            **{
                name: part.reshape((*packed.shape[:-1], *shape))
                for (name, shape), part in zip(shapes.items(), parts, strict=True)
            }
        )

    def __add__(self, other: Self) -> Self:
        return self.unpack(self.pack() + other.pack())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Sums) and torch.equal(self.pack(), other.pack())

    __hash__ = None  # type: ignore[assignment]  # tensors have no value to hash by


@dataclass(frozen=True, eq=False, kw_only=True)
class Counts(Sums):
    """What a task counts of scored videos, float64 on the CPU; a task adds fields of its own."""

    num_videos: Tensor = field(default_factory=zero)
    loss_sum: Tensor = field(default_factory=zero)
    """Over the videos."""

    @property
    def loss(self) -> float:
        """Mean loss of a video; NaN when none was scored."""
        return share(self.loss_sum, self.num_videos)

    @abstractmethod
    def scores(self) -> Scores:
        """All scores of the task, percent or in the unit that their names say; NaN when no video was scored."""


class Task(Protocol):
    """What a network is trained for. A value that travels to the workers: it holds settings, and no tensors.

    Nothing outside of a task looks into targets, outputs or counts.
    """

    @property
    def scores(self) -> tuple[ScoreName, ...]:
        """Names of the scores; the first one ranks checkpoints, trials and runs."""

    def network(self) -> Network:
        """The network with fresh weights, from clips to outputs; `pixel_mean` and `pixel_std` are the experiment's."""

    def train_clips(self) -> ClipExtractor:
        """What is extracted of a training video."""

    def val_clips(self) -> ClipExtractor:
        """What is extracted of a video at validation: one view."""

    def test_clips(self) -> ClipExtractor:
        """What is extracted of a video in the test."""

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss compares outputs with, of a micro-batch's labels on the training device."""

    def notes(self, videos: Manifest) -> list[str]:
        """Lines for the user on how these training videos are learnt from, where that isn't as usual."""

    def mix(self, clips: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mix the clips of a micro-batch with each other, and their targets alike; the inputs stay as they are."""

    def loss_sum(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """The loss summed over clips, computed in fp32."""

    def no_counts(self) -> Counts:
        """The counts of no video."""

    def validated(self, network: Network, batch: MicroBatch, device: torch.device) -> Counts:
        """Counts of a micro-batch of validation, of which at least one video is there; the network is on the device."""

    def outcomes(self, network: Network, clips: Tensor, maps: Tensor | None, device: torch.device) -> list[bytes]:
        """What a scorer hands back of each tested video.

        Clips are uint8 `[n v t h w c]`, all views of n videos; of extractors with `own_sizes` n is 1. `maps` are the
        images' label maps `[n h w]`, where the extractor gives them.
        """

    def predictions(self, manifest: Manifest, outcomes: Mapping[int, bytes]) -> pa.Table:
        """The test's table, one row per scored video in manifest order, of the outcomes by row."""

    def count_predictions(self, table: pa.Table) -> Counts:
        """Counts of a table that `predictions` made."""

    def further_scores(self, table: pa.Table) -> Scores:
        """Scores that only such a table gives, besides those that are counted; none of them ranks."""

    def intervals(self, table: pa.Table) -> Mapping[str, tuple[float, float]]:
        """95 % intervals by `ScoreName.key`, of all scores that have one."""

    def confusion(self, table: pa.Table) -> npt.NDArray[np.int64] | None:
        """True classes (rows) by predicted ones in such a table; None where a task has no classes to confuse."""


def network_input(clips: Tensor, network: Network, device: torch.device) -> Tensor:
    """Clips (uint8, `[b t h w c]`) as a network takes them: on the device and on its scale.

    `[b c t h w]`, or `[b c h w]` for a network that takes images. All that a network ever sees is made here.
    """
    pixels = clips.to(device, non_blocking=True)
    scaled = normalise(pixels, mean=network.pixel_mean, std=network.pixel_std)
    return scaled.squeeze(2) if network.is_image else scaled


def share(part: Tensor, whole: Tensor) -> float:
    """Part of a whole; NaN where there is none."""
    return float(part / whole) if whole else float("nan")
