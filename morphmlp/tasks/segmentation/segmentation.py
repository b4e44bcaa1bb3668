"""Semantic segmentation: a class for each pixel, by decoders on the four maps; pixel loss; confusion of pixels.

Sources: mmsegmentation 0.x (Swin's fork, SwinTransformer/Swin-Transformer-Semantic-Segmentation), whose loss and test
the published recipes follow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from morphmlp.config.clip import ClipConfig
from morphmlp.config.model import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig, SegmentationTestConfig
from morphmlp.data.clips.scenes import TrainScenes, WholeScenes
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.batches import MicroBatch
from morphmlp.models.network import Network
from morphmlp.models.segmentation.network import segmentation_network
from morphmlp.tasks.scores import ScoreName, scores_of
from morphmlp.tasks.segmentation.confusion import outcome_of, predictions_table, table_confusion
from morphmlp.tasks.segmentation.counts import SegmentationCounts, count_image, count_table, no_counts
from morphmlp.tasks.segmentation.prediction import Predicted, predict_labels
from morphmlp.tasks.task import Outputs, Scores


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """One class for each pixel of an image; see `Task` for what the methods are asked for."""

    model: ModelConfig
    clip: ClipConfig
    segmentation: SegmentationConfig
    class_weights: tuple[float, ...] | None = None
    """Weights of the classes in the training loss; None: all alike."""

    scores: tuple[ScoreName, ...] = scores_of("segmentation")

    def network(self) -> Network:
        """Backbone and decoder; in training it gives the auxiliary head's logits too, where there is one."""
        network = segmentation_network(self.model, segmentation=self.segmentation, crop_size=self.clip.crop_size)
        network.pixel_mean, network.pixel_std = self.clip.pixel_mean, self.clip.pixel_std
        return network

    def train_clips(self) -> TrainScenes:
        """Crops of images and of their label maps, with the same draws."""
        return TrainScenes(clip=self.clip, segmentation=self.segmentation, num_classes=self.model.num_classes)

    def val_clips(self) -> WholeScenes:
        """Whole images at their own size."""
        return WholeScenes(clip=self.clip, segmentation=self.segmentation, num_classes=self.model.num_classes)

    def test_clips(self) -> WholeScenes:
        """Whole images at their own size: scaling and windows are the scorer's."""
        return self.val_clips()

    def targets(self, labels: UInt8[Tensor, "b h w"]) -> Int[Tensor, "b h w"]:
        """The label maps, as the loss takes them."""
        return labels.long()

    def notes(self, videos: Manifest) -> list[str]:
        """The least and the greatest class weight with their classes."""
        if self.class_weights is None:
            return []
        names = [*videos.class_names, *map(str, range(len(videos.class_names), len(self.class_weights)))]
        least, most = (pick(range(len(names)), key=self.class_weights.__getitem__) for pick in (min, max))
        weights = f"{self.class_weights[least]:.3g} ({names[least]}) to {self.class_weights[most]:.3g} ({names[most]})"
        return [f"train.class_weights: {weights}"]

    def mix(
        self, clips: Float[Tensor, "b c h w"], targets: Int[Tensor, "b h w"], rng: np.random.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, "b h w"]]:
        """Images aren't mixed."""
        return clips, targets

    def loss_sum(self, outputs: Outputs, targets: Int[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """Pixels' cross-entropy, and the auxiliary head's with its weight."""
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._loss_sum(logits, targets)
        for other in auxiliary:
            loss = loss + self.segmentation.auxiliary_weight * self._loss_sum(other, targets)
        return loss

    def no_counts(self) -> SegmentationCounts:
        """The counts of no image."""
        return no_counts(self.model.num_classes)

    def validated(self, network: Network, batch: MicroBatch, device: torch.device) -> SegmentationCounts:
        """Count the pixels of whole images, seen once at the test's size, whatever else `segmentation.test` says."""
        test = SegmentationTestConfig(size_divisor=self.segmentation.test.size_divisor)
        config = replace(self.segmentation, test=test)
        counts = self.no_counts()
        for image, labels in zip(batch.clips[:, 0], batch.labels.numpy(), strict=True):
            found = self._predicted(network, image, labels, config, device)
            assert found.loss is not None
            counts += count_image(found.labels, labels, num_classes=self.model.num_classes, loss=found.loss)
        return counts

    def outcomes(
        self,
        network: Network,
        clips: UInt8[Tensor, "n 1 1 h w 3"],
        maps: UInt8[Tensor, "n h w"] | None,
        device: torch.device,
    ) -> list[bytes]:
        """Rows of `morphmlp.data.columns.SEGMENTED`, each as an Arrow stream."""
        assert maps is not None
        outcomes = []
        for image, labels in zip(clips[:, 0, 0], maps.numpy(), strict=True):
            found = self._predicted(network, image, labels, self.segmentation, device)
            outcomes.append(outcome_of(found.labels, labels, num_classes=self.model.num_classes, loss=found.loss))
        return outcomes

    def predictions(self, manifest: Manifest, outcomes: Mapping[int, bytes]) -> pa.Table:
        """Columns: `morphmlp.data.columns.SEGMENTED`."""
        return predictions_table(manifest, outcomes)

    def count_predictions(self, table: pa.Table) -> SegmentationCounts:
        """Add up the pixels of all rows."""
        return count_table(table, num_classes=self.model.num_classes)

    def further_scores(self, table: pa.Table) -> Scores:
        """None."""
        return {}

    def intervals(self, table: pa.Table) -> Mapping[str, tuple[float, float]]:
        """Of all scores, by bootstrap over the images."""
        from morphmlp.tasks.segmentation.bootstrap import score_intervals  # noqa: PLC0415 (scipy)

        return score_intervals(table, num_classes=self.model.num_classes)

    def confusion(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Pixels by true and predicted class."""
        return table_confusion(table, num_classes=self.model.num_classes)

    def _loss_sum(self, logits: Float[Tensor, "b k r c"], targets: Int[Tensor, "b h w"]) -> Float[Tensor, ""]:
        weights = None if self.class_weights is None else _on_device(self.class_weights, targets.device)
        return pixel_loss_sum(logits, targets, loss_over=self.segmentation.loss_over, class_weights=weights)

    def _predicted(
        self,
        network: Network,
        image: UInt8[Tensor, "h w 3"],
        labels: npt.NDArray[np.uint8],
        config: SegmentationConfig,
        device: torch.device,
    ) -> Predicted:
        return predict_labels(network, image, config=config, clip=self.clip, device=device, with_loss_of=labels)


def pixel_loss_sum(
    logits: Float[Tensor, "b k r c"],
    targets: Int[Tensor, "b h w"],
    *,
    loss_over: str,
    class_weights: Float[Tensor, "k"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of pixels, a mean for each clip, summed over clips; logits are scaled to the maps' size first.

    The mean is over all pixels of a crop, ignored ones included, as mmsegmentation's, or over those with a class
    (`valid_pixels`). Weights multiply a pixel's loss and not what it's divided by: so clips add up over micro-batches
    and workers whatever they show.
    """
    scaled = functional.interpolate(logits.float(), size=targets.shape[1:], mode="bilinear", align_corners=False)
    of_pixels = functional.cross_entropy(scaled, targets, weight=class_weights, ignore_index=IGNORED, reduction="none")
    if loss_over == "all_pixels":
        return of_pixels.mean(dim=(1, 2)).sum()
    valid = (targets != IGNORED).sum(dim=(1, 2)).clamp(min=1)
    return (of_pixels.sum(dim=(1, 2)) / valid).sum()


@cache  # a copy to a GPU would stall each step
def _on_device(class_weights: tuple[float, ...], device: torch.device) -> Float[Tensor, "k"]:
    return torch.tensor(class_weights, device=device)
