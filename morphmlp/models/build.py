"""The network that an experiment's sections describe."""

from morphmlp.config import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.models.backbone import MorphMLP
from morphmlp.models.network import Network
from morphmlp.models.segmentation.network import segmentation_network


def build_network(
    model: ModelConfig, *, num_frames: int, crop_size: int, segmentation: SegmentationConfig | None = None
) -> Network:
    """A classifier, or a network that segments images where the experiment has such a section; with fresh weights.

    Raises:
        ConfigError: The sizes don't fit together, or a package isn't there.
    """
    if segmentation is None:
        return MorphMLP(model, num_frames=num_frames, crop_size=crop_size)
    return segmentation_network(model, segmentation=segmentation, crop_size=crop_size)
