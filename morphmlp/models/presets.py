"""The published variants by name.

Sizes and drop paths of the video models: MTLab/MorphMLP's experiment files. The image models' layers come from a port
of the paper's first version (liuruiyang98/Jittor-MLP), their code was never released.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from morphmlp.config import ModelConfig
from morphmlp.config.shapes import PUBLISHED_CROP_SIZE
from morphmlp.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A network together with the input that it is made for."""

    model: ModelConfig
    """The network."""
    num_frames: int
    """Frames per clip; 1 for image models."""
    crop_size: int
    """Rows and columns of the input, pixels."""


_SMALL = ModelConfig(
    depths=(3, 4, 9, 3),
    embed_dims=(112, 224, 392, 784),
    chunk_lengths=(14, 28, 28, 49),
    mlp_ratio=3.0,
    drop_path_rate=0.1,
    num_classes=400,
    temporal="mixed",
    init="published",
)
_BASE = replace(_SMALL, depths=(4, 6, 15, 4), drop_path_rate=0.3)


def _presets() -> dict[str, Preset]:
    presets = {}
    for size, model in (("s", _SMALL), ("b", _BASE)):
        for frames in (16, 32):
            presets[f"morphmlp_{size}_{frames}x4"] = Preset(
                model=model, num_frames=frames, crop_size=PUBLISHED_CROP_SIZE
            )
    something = (
        ("ssv1", "s", _SMALL, 0.3),
        ("ssv1", "b", _BASE, 0.5),
        ("ssv2", "s", _SMALL, 0.3),
        ("ssv2", "b", _BASE, 0.6),
    )
    for dataset, size, model, rate in something:
        fine_tuned = replace(model, num_classes=174, drop_path_rate=rate)
        for frames in (16, 32):
            presets[f"morphmlp_{size}_{frames}_{dataset}"] = Preset(
                model=fine_tuned, num_frames=frames, crop_size=PUBLISHED_CROP_SIZE
            )
    image_small = replace(_SMALL, num_classes=1000, temporal="none")
    images = {
        "t": replace(image_small, depths=(3, 4, 7, 3), embed_dims=(84, 168, 336, 588)),
        "s": image_small,
        "b": replace(image_small, depths=(4, 6, 15, 4), drop_path_rate=0.3),
        "l": replace(image_small, depths=(4, 8, 18, 6), drop_path_rate=0.4),
    }
    for size, model in images.items():
        presets[f"morphmlp_{size}_image"] = Preset(model=model, num_frames=1, crop_size=PUBLISHED_CROP_SIZE)
    return presets


PRESETS: Mapping[str, Preset] = MappingProxyType(_presets())
"""Every named variant."""


def model_names() -> tuple[str, ...]:
    """The names that `build_model` knows."""
    return tuple(PRESETS)


def preset(name: str) -> Preset:
    """The named variant.

    Raises:
        ConfigError: No variant has this name; the message lists those that exist.
    """
    if name not in PRESETS:
        raise ConfigError([f"model name: {name!r} is unknown; use one of {', '.join(PRESETS)}"])
    return PRESETS[name]
