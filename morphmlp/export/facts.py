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
from morphmlp.models.any_size_form import SIZE_MULTIPLE

FORMAT = "morphmlp-export-1"
"""Value of `format` in the text."""
METADATA_KEY = "morphmlp.export"
"""Under it stands the text in ONNX's `metadata_props`, in the metadata of safetensors and of MLflow."""
EXTRA_FILE = "morphmlp.json"
"""The text's name among the extra files of `torch.export.load`."""
INPUTS = {False: "clips", True: "images"}
"""Name of the input, by whether the network takes images."""
OUTPUT = "logits"
ROWS, COLUMNS = "rows", "columns"
"""Names of sides that may be of any size."""
LEAST_SIDE = 2 * SIZE_MULTIPLE
"""Pixels: graphs take a side of one for a special case."""


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


def input_shape(config: ExperimentConfig, *, any_size: bool) -> tuple[int | str, ...]:
    """The shape of what the network takes, as exported: any batch of views of the test's size.

    With `any_size` images of any rows and columns that are multiples of `SIZE_MULTIPLE`, from `LEAST_SIDE` on.
    """
    if any_size:
        return "batch", 3, ROWS, COLUMNS
    frames = () if config.model.temporal == "none" else (config.clip.num_frames,)
    return "batch", 3, *frames, config.test_clip.crop_size, config.test_clip.crop_size


def sizes_fault(config: ExperimentConfig) -> str | None:
    """Why a network that segments can't be exported for the sizes that its test needs; None where it can."""
    assert config.segmentation is not None
    test = config.segmentation.test
    window = test.size_divisor if test.stride is None else config.clip.crop_size
    field = "segmentation.test.size_divisor" if test.stride is None else "clip.crop_size"
    if window is None or window % SIZE_MULTIPLE or (test.size_divisor or 1) % SIZE_MULTIPLE:
        return f"{field} is {window}; one graph takes multiples of {SIZE_MULTIPLE} alone"
    if config.segmentation.backbone == "morphmlp" and config.model.chunk_shape == "padded_side":
        return "model.chunk_shape is padded_side, which pads a map by whether its tokens fit"
    return None


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
        test = segmentation.test
        edges: dict[str, JsonValue] = {"short_edge": clip.short_edge, "long_edge": segmentation.long_edge}
        views: dict[str, JsonValue] = {
            "size_divisor": test.size_divisor,
            "stride": test.stride,
            "scales": list(test.scales),
            "flip": test.flip,
        }
        crop = "the whole image" if test.stride is None else "windows over the whole image"
        return found | edges | views | {"crop_size": clip.crop_size, "crop": crop}
    crop = config.test.single_crop if config.test.num_crops == 1 else "left, centre and right along the long side"
    return found | {"short_edge": clip.short_edge, "crop_size": clip.crop_size, "crop": crop}
