"""The network that an experiment's sections describe."""

from dataclasses import replace

from morphmlp.config import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.models.backbone import MorphMLP
from morphmlp.models.network import Network
from morphmlp.models.presets import preset
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


def build_model(
    name: str,
    *,
    num_classes: int | None = None,
    num_frames: int | None = None,
    crop_size: int | None = None,
    drop_path_rate: float | None = None,
) -> MorphMLP:
    """A named variant with fresh weights; what is left out stays as published.

    For every other change build `MorphMLP(replace(preset(name).model, ...), ...)`.

    Raises:
        ConfigError: The name is unknown, or the sizes don't fit together.
    """
    chosen = preset(name)
    config = chosen.model
    if num_classes is not None:
        config = replace(config, num_classes=num_classes)
    if drop_path_rate is not None:
        config = replace(config, drop_path_rate=drop_path_rate)
    return MorphMLP(
        config,
        num_frames=chosen.num_frames if num_frames is None else num_frames,
        crop_size=chosen.crop_size if crop_size is None else crop_size,
    )
