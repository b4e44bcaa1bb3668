"""Networks by name, with or without weights of a file, as timm makes them."""

from pathlib import Path
from typing import Literal, overload

from morphmlp.config.start import StartConfig
from morphmlp.errors import ConfigError
from morphmlp.models.backbone import MorphMLP, MorphMLPFeatures
from morphmlp.models.build import build_model
from morphmlp.models.presets import preset
from morphmlp.models.weights.describe import describe_model
from morphmlp.models.weights.fit import fit_weights
from morphmlp.training.weights.file import WeightsFile, read_weights

Inflate = Literal["repeat", "centre"]


@overload
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    num_frames: int | None = None,
    crop_size: int | None = None,
    drop_path_rate: float | None = None,
    features_only: Literal[False] = False,
    pretrained_weights: str | Path | None = None,
    inflate: Inflate | None = None,
) -> MorphMLP: ...


@overload
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    num_frames: int | None = None,
    crop_size: int | None = None,
    drop_path_rate: float | None = None,
    features_only: Literal[True],
    pretrained_weights: str | Path | None = None,
    inflate: Inflate | None = None,
) -> MorphMLPFeatures: ...


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    num_frames: int | None = None,
    crop_size: int | None = None,
    drop_path_rate: float | None = None,
    features_only: bool = False,
    pretrained_weights: str | Path | None = None,
    inflate: Inflate | None = None,
) -> MorphMLP | MorphMLPFeatures:
    """A named variant, in training mode; what is left out stays as published.

    Args:
        name: One of `model_names()`, as in `morphmlp_s_16x4`.
        num_classes: Outputs of the head; None: the weights', or the published number. With another number than the
            weights' the head is fresh.
        num_frames: Frames of a clip.
        crop_size: Rows and columns of the input, pixels.
        drop_path_rate: Stochastic depth of the last block.
        features_only: The backbone alone, whose result are its four maps, with `channels` and `reductions`.
        pretrained_weights: A file of weights in any form that `start_from` takes; None: fresh ones.
        inflate: How weights of an image network get a time axis; the temporal layers are fresh then.

    Raises:
        ConfigError: The name is unknown, the sizes don't fit together, or the weights are of another network.
        CheckpointError: The weights can't be read.
    """
    preset(name)  # an unknown name is told before a file is read
    file = None if pretrained_weights is None else read_weights(pretrained_weights)
    if num_classes is None and file is not None and file.description.decoder is None:
        num_classes = file.description.num_classes
    network = build_model(
        name, num_classes=num_classes, num_frames=num_frames, crop_size=crop_size, drop_path_rate=drop_path_rate
    )
    if file is not None:
        _load(network, file, inflate=inflate)
    elif inflate is not None:
        raise ConfigError([f"inflate: {inflate}: there are no weights; name their file as pretrained_weights"])
    if not features_only:
        return network
    frames = preset(name).num_frames if num_frames is None else num_frames
    features = MorphMLPFeatures(network.config, num_frames=frames, crop_size=network.input_shape[-1])
    state = network.state_dict()
    features.load_state_dict({name: state[name] for name in features.state_dict()})
    return features


def _load(network: MorphMLP, file: WeightsFile, *, inflate: Inflate | None) -> None:
    """Put a file's weights into a network.

    Raises:
        ConfigError: They are of another one.
    """
    frames, crop = (1 if network.is_image else network.input_shape[1]), network.input_shape[-1]
    asked = describe_model(network.config, num_frames=frames, crop_size=crop)
    start = StartConfig(
        weights=str(file.path), inflate=inflate, replace_head=file.description.num_classes != asked.num_classes
    )
    there = file.description
    if there.decoder is not None:  # the backbone of a network that segments: its head is another one
        raise ConfigError([f"pretrained_weights: {file.path}: segments ({there.in_words}); use a classifier's weights"])
    own = network.state_dict()
    try:
        fitted = fit_weights(file.state, own, file=there, asked=asked, start=start)
    except ConfigError as error:
        lines = [
            line.replace("start_from.", "").replace("the experiment", "the named variant") for line in error.faults
        ]
        raise ConfigError([f"pretrained_weights: {file.path}: {'; '.join(lines)}"]) from None
    network.load_state_dict({**own, **fitted.state})
