"""Classification of videos: network with a linear head, soft targets, MixUp and CutMix, top-1 and top-5.

Sources: MorphMLP reference code (MTLab/MorphMLP, commit 62ebe80), which builds on PySlowFast.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from morphmlp.config.clip import AugmentConfig, ClipConfig
from morphmlp.config.model import ModelConfig
from morphmlp.config.schema import MixingConfig, TestConfig
from morphmlp.data.clips.extract import SINGLE_VIEW, TrainClips, TrainFrames, ViewClips, train_extractor
from morphmlp.data.columns import PREDICTIONS
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.models import MorphMLP
from morphmlp.models.network import Network
from morphmlp.tasks.scores import TOP1, TOP5, ScoreName, further_scores_of, scores_of
from morphmlp.tasks.task import Counts, Outputs, Scores, network_input, share, zero

if TYPE_CHECKING:
    from morphmlp.tasks.answers import Answers


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassificationCounts(Counts):
    """Scored videos, and how many of them are right."""

    top1_hits: Tensor = field(default_factory=zero)
    top5_hits: Tensor = field(default_factory=zero)

    def scores(self) -> Scores:
        """Percent of the videos with the right answer first, and among the first five."""
        return {
            TOP1.key: 100 * share(self.top1_hits, self.num_videos),
            TOP5.key: 100 * share(self.top5_hits, self.num_videos),
        }


@dataclass(frozen=True, kw_only=True)
class Classification:
    """One class for each video; see `Task` for what the methods are asked for."""

    model: ModelConfig
    clip: ClipConfig
    augment: AugmentConfig
    mixing: MixingConfig
    test_clip: ClipConfig
    """How the test's clips are cut."""
    views: TestConfig
    """The test's views."""
    class_weights: tuple[float, ...] | None = None
    """Weights of the classes in the training loss; None: all alike."""

    scores: tuple[ScoreName, ...] = scores_of("classification")

    def network(self) -> MorphMLP:
        """Backbone, mean over all tokens, linear head."""
        network = MorphMLP(self.model, num_frames=self.clip.num_frames, crop_size=self.clip.crop_size)
        network.pixel_mean, network.pixel_std = self.clip.pixel_mean, self.clip.pixel_std
        return network

    def train_clips(self) -> TrainClips | TrainFrames:
        """Augmented clips, or the frames that the worker makes them of."""
        return train_extractor(self.clip, self.augment)

    def val_clips(self) -> ViewClips:
        """The centre clip's centre crop."""
        return ViewClips(clip=self.clip, views=SINGLE_VIEW)

    def test_clips(self) -> ViewClips:
        """All views."""
        return ViewClips(clip=self.test_clip, views=self.views)

    def targets(self, labels: Int[Tensor, "b"]) -> Float[Tensor, "b k"]:
        """Smoothed one-hot targets."""
        return soft_targets(labels, num_classes=self.model.num_classes, label_smoothing=self.mixing.label_smoothing)

    def notes(self, videos: Manifest) -> list[str]:
        """The least and the greatest class weight with their classes."""
        if self.class_weights is None:
            return []
        return [f"train.class_weights: {class_weights_in_words(self.class_weights, videos)}"]

    def mix(
        self, clips: Float[Tensor, "b c *t h w"], targets: Float[Tensor, "b k"], rng: np.random.Generator
    ) -> tuple[Float[Tensor, "b c *t h w"], Float[Tensor, "b k"]]:
        """MixUp or CutMix, as `mixing` says."""
        return mix(clips, targets, mixing=self.mixing, rng=rng)

    def loss_sum(self, outputs: Outputs, targets: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
        """Soft-target cross-entropy of the logits `[b k]`, of weighted classes where there are weights."""
        assert isinstance(outputs, Tensor)
        return soft_target_loss_sum(outputs, targets, class_weights=self.class_weights)

    def no_counts(self) -> ClassificationCounts:
        """The counts of no video."""
        return ClassificationCounts()

    def counts(self, outputs: Float[Tensor, "b k"], labels: Int[Tensor, "b"]) -> ClassificationCounts:
        """Count right answers; with fewer than five classes top-5 counts all of them."""
        hits = outputs.topk(min(5, outputs.shape[1]), dim=1).indices == labels[:, None]
        loss_sum = functional.cross_entropy(outputs.float(), labels, reduction="sum")
        return ClassificationCounts(
            num_videos=zero() + len(labels),
            loss_sum=loss_sum.double().cpu(),
            top1_hits=hits[:, 0].sum().double().cpu(),
            top5_hits=hits.sum().double().cpu(),
        )

    def validated(self, network: Network, batch: MicroBatch, device: torch.device) -> ClassificationCounts:
        """Count right answers for the one view."""
        outputs = view_outputs(network, batch.clips, device=device, clips_at_once=len(batch.labels))
        return self.counts(outputs, batch.labels)

    def outcomes(
        self, network: Network, clips: UInt8[Tensor, "n v t h w c"], maps: Tensor | None, device: torch.device
    ) -> list[bytes]:
        """The bytes of fp32 `[v k]`, the logits of all views of a video."""
        num_views = clips.shape[1]
        logits = view_outputs(network, clips.flatten(0, 1), device=device, clips_at_once=max(num_views, 8))
        return [of_video.numpy().tobytes() for of_video in torch.split(logits, num_views)]

    def predictions(self, manifest: Manifest, outcomes: Mapping[int, bytes]) -> pa.Table:
        """Columns: `morphmlp.data.columns.PREDICTIONS`; logits are summed over views, as published."""
        rows, num_classes = sorted(outcomes), self.model.num_classes
        views = [np.frombuffer(outcomes[row], np.float32).reshape(-1, num_classes) for row in rows]
        summed = np.array([of_video.sum(axis=0) for of_video in views], np.float32).reshape(-1, num_classes)
        every_view = np.concatenate([summed[:0], *views])
        known = manifest.table.select(["video_id", "label"]).take(pa.array(rows, pa.int64())).combine_chunks()
        cells = [
            *(column.combine_chunks() for column in known.columns),
            _lists(_lists(every_view.ravel(), [num_classes] * len(every_view)), [len(of_video) for of_video in views]),
            _lists(summed.ravel(), [num_classes] * len(summed)),
            pa.array(summed.argmax(axis=1), pa.int32()),
        ]
        return pa.Table.from_arrays(cells, schema=PREDICTIONS)

    def count_predictions(self, table: pa.Table) -> ClassificationCounts:
        """Count the summed logits of all rows."""
        if not table.num_rows:
            return self.no_counts()
        logits = torch.from_numpy(np.stack(table["logits"].to_numpy()).astype(np.float32))
        return self.counts(logits, torch.from_numpy(table["label"].to_numpy().astype(np.int64)))

    def further_scores(self, table: pa.Table) -> Scores:
        """Mean class accuracy, and how far the answers' confidence is from what is right: ECE and NLL."""
        values = table_answers(table, num_classes=self.model.num_classes).values()
        return {name.key: values[name.key] for name in further_scores_of("classification")}

    def intervals(self, table: pa.Table) -> Mapping[str, tuple[float, float]]:
        """Wilson's of top-1 and top-5, and that of the mean class accuracy."""
        estimates = table_answers(table, num_classes=self.model.num_classes).estimates()
        return {key: (estimate.low, estimate.high) for key, estimate in estimates.items()}

    def confusion(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Videos by true and predicted class."""
        matrix = np.zeros((self.model.num_classes, self.model.num_classes), dtype=np.int64)
        np.add.at(matrix, (table["label"].to_numpy(), table["prediction"].to_numpy()), 1)
        return matrix


def table_answers(table: pa.Table, *, num_classes: int) -> "Answers":
    """The answers of a table of `columns.PREDICTIONS`.

    Probabilities are those of the mean over a video's views: of the sum they would grow with the number of views.
    """
    from morphmlp.tasks.answers import answers_of  # noqa: PLC0415 (pandas and scipy, of which a worker needs neither)

    if not table.num_rows:
        return answers_of(np.zeros((0, num_classes)), np.zeros(0, dtype=np.int64))
    sums = pc.list_flatten(table["logits"]).to_numpy().reshape(table.num_rows, -1)
    views = pc.list_value_length(table["view_logits"]).to_numpy()
    return answers_of(sums / views[:, None], table["label"].to_numpy())


def _lists(values: npt.NDArray[np.float32] | pa.Array, lengths: Sequence[int]) -> pa.ListArray:
    """Lists of these lengths, whose values lie behind each other."""
    return pa.ListArray.from_arrays(np.cumsum([0, *lengths], dtype=np.int32), pa.array(values))


@torch.inference_mode()
def view_outputs(
    network: Network, clips: UInt8[Tensor, "b t h w c"], *, device: torch.device, clips_at_once: int
) -> Float[Tensor, "b ..."]:
    """Outputs for each clip, in fp32 (as published for evaluation), on the CPU."""
    network.eval()
    parts = [network(network_input(part, network, device)) for part in torch.split(clips, clips_at_once)]
    return torch.cat(parts).float().cpu()


def soft_targets(labels: Int[Tensor, "b"], *, num_classes: int, label_smoothing: float) -> Float[Tensor, "b k"]:
    """True class `1 - s + s / K`, the others `s / K`."""
    rest = label_smoothing / num_classes
    targets = torch.full((len(labels), num_classes), rest, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - label_smoothing + rest)


def mix(
    clips: Float[Tensor, "b c *t h w"], targets: Float[Tensor, "b k"], *, mixing: MixingConfig, rng: np.random.Generator
) -> tuple[Float[Tensor, "b c *t h w"], Float[Tensor, "b k"]]:
    """MixUp or CutMix over one micro-batch; clip i is mixed with clip `b - 1 - i`.

    Published, for video as in timm's `batch` mode: a coin chooses between the two; one share and one box hold for all
    clips and frames. In an odd number of clips (timm refuses it) the middle one is its own partner.
    """
    if mixing.prob < 1 and rng.random() >= mixing.prob:
        return clips, targets
    use_cutmix = mixing.cutmix > 0 and (mixing.mixup == 0 or rng.random() < mixing.switch_prob)
    if use_cutmix:
        box = cutmix_box(rng.beta(mixing.cutmix, mixing.cutmix), height=clips.shape[-2], width=clips.shape[-1], rng=rng)
        rows, columns = box
        mixed = clips.clone()
        mixed[..., rows, columns] = clips.flip(0)[..., rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / (clips.shape[-2] * clips.shape[-1])
    elif mixing.mixup > 0:
        share = rng.beta(mixing.mixup, mixing.mixup)
        mixed = clips * share + clips.flip(0) * (1 - share)
    else:
        return clips, targets
    return mixed, targets * share + targets.flip(0) * (1 - share)


def cutmix_box(share: float, *, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box with side ratio `sqrt(1 - share)`, uniform centre, clipped at the border."""
    ratio = math.sqrt(1 - share)
    box_height, box_width = int(height * ratio), int(width * ratio)
    centre_row, centre_column = int(rng.integers(0, height)), int(rng.integers(0, width))
    return (
        slice(max(centre_row - box_height // 2, 0), min(centre_row + box_height // 2, height)),
        slice(max(centre_column - box_width // 2, 0), min(centre_column + box_width // 2, width)),
    )


def soft_target_loss_sum(
    logits: Float[Tensor, "b k"], targets: Float[Tensor, "b k"], *, class_weights: tuple[float, ...] | None = None
) -> Float[Tensor, ""]:
    """Soft-target cross-entropy summed over clips; targets aren't normalised again.

    With weights `w` a clip's loss is `-sum_c w_c t_c log p_c`, as in torch's `cross_entropy` with targets of class
    probabilities. A step divides the sum by its clips, not by their weights: so the gradient adds up over
    micro-batches and workers whatever their classes, and balanced weights, 1 on average over the training videos, leave
    the loss's scale as it is.
    """
    if class_weights is not None:
        targets = targets * _on_device(class_weights, targets.device)
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum()


@cache  # a copy to a GPU would stall each step
def _on_device(class_weights: tuple[float, ...], device: torch.device) -> Float[Tensor, "k"]:
    return torch.tensor(class_weights, device=device)


def balanced_class_weights(videos: Manifest, *, num_classes: int) -> tuple[float, ...]:
    """Videos / (classes x videos of the class), as scikit-learn's `balanced`; a class without videos has 1.

    Only classes that have videos count.
    """
    counts = np.bincount(videos.table["label"].to_numpy(), minlength=num_classes)
    there = np.count_nonzero(counts)
    return tuple(float(len(videos) / (there * count)) if count else 1.0 for count in counts)


def class_weights_in_words(weights: Sequence[float], videos: Manifest) -> str:
    """The least and the greatest weight with their classes, and classes that have no training videos."""
    there = sorted(set(videos.table["label"].to_pylist()), key=lambda label: weights[label])
    least, most = there[0], there[-1]
    words = f"{weights[least]:.3g} ({videos.class_names[least]}) to {weights[most]:.3g} ({videos.class_names[most]})"
    absent = len(weights) - len(there)
    return words + (f"; {absent} classes have no training videos" if absent else "")
