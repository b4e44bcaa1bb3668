"""What an exported model's user has to know: inputs, preprocessing, classes, where the weights come from.

The same text is in the model's own metadata and, with the parity that was measured afterwards, in JSON next to it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from pydantic import JsonValue

from morphmlp.config import ExperimentConfig
from morphmlp.environment import package_version

FORMAT = "morphmlp-export-1"
"""Value of `format` in the text."""
METADATA_KEY = "morphmlp.export"
"""Under it stands the text in ONNX's `metadata_props`, in the metadata of safetensors and of MLflow."""
EXTRA_FILE = "morphmlp.json"
"""The text's name among the extra files of `torch.export.load`."""
INPUTS = {False: "clips", True: "images"}
"""Name of the input, by whether the network takes images."""
OUTPUT = "logits"


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where exported weights come from."""

    checkpoint: str
    """Name of its folder, or of the file."""
    which: str
    """Which checkpoint that is, in words."""
    file_sha256: str
    """SHA-256 of the file that held them."""
    run_name: str | None = None
    run_id: str | None = None
    """MLflow's; None where the weights' run isn't known."""
    git_commit: str | None = None
    """Of the code that trained them."""


@dataclass(frozen=True, kw_only=True)
class ExportedFacts:
    """What is written down of a network, whichever form it takes."""

    network: str
    """In words."""
    task: str
    dataset: str
    input_name: str
    input_shape: tuple[int | str, ...]
    """Batch, channels, frames of a clip, rows, columns; a name where any number is taken."""
    preprocessing: Mapping[str, JsonValue]
    views: str
    """What the test sees of a video, in words."""
    class_names: tuple[str, ...]
    params: int
    gmacs: float
    """Of one view."""
    source: WeightsSource
    weights: Mapping[str, JsonValue]
    """The network's own configuration, as safetensors of this project state it."""

    def text(self, **of_form: JsonValue) -> str:
        """All of it as JSON, with what else is to be said of the form."""
        made_with = {"morphmlp": package_version("morphmlp"), "torch": torch.__version__}
        values = {"format": FORMAT, **of_form, "output_name": OUTPUT, **asdict(self), "made_with": made_with}
        return json.dumps(values, indent=2, ensure_ascii=False)


def input_shape(config: ExperimentConfig) -> tuple[int | str, ...]:
    """The shape of what the network takes, as exported: any batch of views of the test's size."""
    frames = () if config.model.temporal == "none" else (config.clip.num_frames,)
    return "batch", 3, *frames, config.test_clip.crop_size, config.test_clip.crop_size


def preprocessing(config: ExperimentConfig) -> dict[str, JsonValue]:
    """How the test makes the network's input of a video or an image."""
    clip = config.test_clip
    found: dict[str, JsonValue] = {
        "num_frames": clip.num_frames,
        "frame_stride": clip.frame_stride,
        "sampling": clip.sampling,
        "interpolation": clip.interpolation,
        "channel_order": clip.channel_order,
        "pixel_scale": 255,
        "pixel_mean": list(clip.pixel_mean),
        "pixel_std": list(clip.pixel_std),
    }
    if (segmentation := config.segmentation) is not None:
        edges: dict[str, JsonValue] = {"short_edge": clip.short_edge, "long_edge": segmentation.long_edge}
        return found | edges | {"crop_size": clip.crop_size, "crop": "windows over the whole image"}
    crop = config.test.single_crop if config.test.num_crops == 1 else "left, centre and right along the long side"
    return found | {"short_edge": clip.short_edge, "crop_size": clip.crop_size, "crop": crop}
