"""Files of weights: released checkpoints in both forms, this project's checkpoints, safetensors.

None is read by running pickled code. What is done with the weights, `morphmlp.models.weights.fit` knows.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import JsonValue, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from morphmlp.config import ModelConfig
from morphmlp.config.loading import LATER_FIELDS, parse_yaml, validated
from morphmlp.errors import CheckpointError, ConfigError
from morphmlp.files import atomic_file
from morphmlp.models.presets import Preset
from morphmlp.models.sizes import ALL_BRANCHES
from morphmlp.models.weights.deduce import describe_tensors
from morphmlp.models.weights.describe import TEMPORAL_LAYER, WeightsDescription, first_names, without_prefix
from morphmlp.training.checkpoint.content import FORMAT as CHECKPOINT_FORMAT
from morphmlp.training.checkpoint.content import PickledCodeError, load_values, reason_of
from morphmlp.training.weights.not_weights import SAVE_ALONE, is_safetensors, what_is_in_folder, what_it_is

_SAFETENSORS = ".safetensors"
PUBLISHED = ".pth"
METADATA_KEY = "morphmlp"
"""Under it stands all that this project writes, as one JSON text: safetensors shuffles keys, a text stays as it is."""
FORMAT = "morphmlp-weights-1"
"""Value of `format` in that text."""

_NESTS = ("model_state", "state_dict", "model_state_dict", "model", "module", "network", "net", "weights")
"""Keys under which training programs keep weights next to other things; the first is PySlowFast's."""

Container = Literal["bare", "pyslowfast", "nested", "checkpoint", "safetensors"]
_IN_WORDS: dict[Container, str] = {
    "bare": "bare weights",
    "pyslowfast": "a PySlowFast checkpoint",
    "nested": "a checkpoint of another program",
    "checkpoint": "a checkpoint of this project",
    "safetensors": "safetensors",
}
_MODEL = TypeAdapter(ModelConfig)


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Weights as they were read."""

    path: Path
    sha256: str
    """SHA-256 of the file."""
    container: Container
    """The form in which the file holds them."""
    averaged: bool
    """Whether they are moving averages."""
    state: dict[str, Tensor]
    stated: Preset | None
    """The network as the file itself states it; None where it doesn't."""
    description: WeightsDescription
    found_under: str = ""
    """Where the file holds the weights, and what their names begin with there; empty where neither is the case."""

    @property
    def in_words(self) -> str:
        """One line, as in `w.pth (bare weights): MorphMLP-S (video), 16 frames, 400 classes`."""
        averaged = ", averaged" if self.averaged else ""
        under = f", under {self.found_under}" if self.found_under else ""
        return f"{self.path} ({_IN_WORDS[self.container]}{averaged}{under}): {self.description.in_words}"


@dataclass(frozen=True, kw_only=True)
class _Content:
    container: Container
    state: Mapping[str, Tensor]
    stated: Preset | None
    averaged: bool = False
    nest: str = ""


def read_weights(path: str | Path, *, averaged: bool | None = None) -> WeightsFile:
    """Read weights, and find out what network they belong to.

    What the file is its content says, whatever its ending. Of a checkpoint that has moving averages, `averaged` takes
    them, and None what its run tests (`test.weights`).

    Raises:
        CheckpointError: The file can't be read, holds no weights of a MorphMLP, or only running code could read it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        content = _read_safetensors(path) if is_safetensors(path) else _read_saved(path, averaged=averaged)
        prefix, state = without_prefix(content.state)
        stated = content.stated
        if content.container == "pyslowfast" and not any(map(TEMPORAL_LAYER.match, state)):
            stated = None  # its configuration is that of the video network
        description = describe_tensors(state, stated)
    except IsADirectoryError:
        raise CheckpointError(f"{path}: {what_is_in_folder(path)}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {reason_of(error)}") from None
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    return WeightsFile(
        path=path,
        sha256=sha256,
        container=content.container,
        averaged=content.averaged,
        state=state,
        stated=stated,
        description=description,
        found_under=".".join(filter(None, (content.nest, prefix))),
    )


def weights_of_checkpoint(
    content: Mapping[str, object], path: Path, *, sha256: str, averaged: bool | None = None
) -> WeightsFile:
    """The weights of a checkpoint whose content was read already; `path` and `sha256` are its file's.

    Raises:
        CheckpointError: It holds no weights of a MorphMLP.
    """
    try:
        found = _checkpoint(content, averaged=averaged)
        description = describe_tensors(found.state, found.stated)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    return WeightsFile(
        path=path,
        sha256=sha256,
        container=found.container,
        averaged=found.averaged,
        state=dict(found.state),
        stated=found.stated,
        description=description,
    )


def write_weights(file: WeightsFile, path: Path, *, container: Literal["bare", "pyslowfast"] = "bare") -> None:
    """Write weights under the published names, whole or not at all; what is stated about them goes along.

    The path's ending, .safetensors or .pth, chooses the format; `container` is the form of a .pth file.

    Raises:
        ConfigError: Another ending, or a place that can't be written to.
    """
    if path.suffix not in (_SAFETENSORS, PUBLISHED):
        raise ConfigError([f"{path}: must end in {_SAFETENSORS} or {PUBLISHED}, which says what form to write"])
    # Copies: views of one storage would be stored with all of it, and safetensors takes rows in order only.
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in file.state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as unfinished:
            unfinished.touch()  # a place that can't be written to is reported in the system's own words
            mode = unfinished.stat().st_mode
            if path.suffix == _SAFETENSORS:
                save_file(state, unfinished, metadata={METADATA_KEY: json.dumps(stated_metadata(file), sort_keys=True)})
            else:
                torch.save(state if container == "bare" else _pyslowfast(state, file.stated), unfinished)
            unfinished.chmod(mode)  # safetensors makes files that only their owner can read
    except OSError as error:
        raise ConfigError([f"{path}: can't be written: {reason_of(error)}"]) from None


def _read_safetensors(path: Path) -> _Content:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it can't be iterated)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"can't be read, truncated or not safetensors: {reason_of(error)}") from None
    if METADATA_KEY not in metadata:
        return _Content(container="safetensors", state=state, stated=None)
    try:
        said = json.loads(metadata[METADATA_KEY])
        known = said["format"] == FORMAT
        averaged, model = bool(said["averaged"]), said["model"]
        stated = None if model is None else _preset(model, said["num_frames"], said["crop_size"])
    except (ValueError, KeyError, TypeError, ConfigError):
        known = False
    if not known:
        raise CheckpointError(f"its metadata {METADATA_KEY!r} aren't of format {FORMAT!r}")
    return _Content(container="safetensors", state=state, stated=stated, averaged=averaged)


def _read_saved(path: Path, *, averaged: bool | None) -> _Content:
    try:
        with path.open("rb") as file:
            content = load_values(file)
    except PickledCodeError as error:
        raise CheckpointError(f"{error}; {SAVE_ALONE}") from None
    except CheckpointError as error:
        raise CheckpointError(what_it_is(path) or str(error)) from None
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"holds a {type(content).__name__}, not weights by name")
    if content.get("format") == CHECKPOINT_FORMAT:
        return _checkpoint(content, averaged=averaged)
    nest, weights = _unnested(content)
    if nest == _NESTS[0]:
        return _Content(container="pyslowfast", state=weights, stated=_stated_by_pyslowfast(content.get("cfg")))
    return _Content(container="nested" if nest else "bare", state=weights, stated=None, nest=nest)


def _unnested(content: Mapping[str, object]) -> tuple[str, dict[str, Tensor]]:
    """The keys under which weights by name lie, joined by points; and these."""
    for key in _NESTS:
        inner = content.get(key)
        if isinstance(inner, dict) and inner:
            further, weights = _unnested(inner)
            return ".".join(filter(None, (key, further))), weights
        if inner is not None and key == _NESTS[0]:
            _tensors(inner)  # refuses it
    if any(isinstance(value, Tensor) for value in content.values()):
        return "", _tensors(content)
    raise CheckpointError(
        f"holds {first_names([str(key) for key in content])}, in none of the known forms: weights by name, bare or "
        f"under one of {', '.join(_NESTS)}; {CHECKPOINT_FORMAT}"
    )


def _checkpoint(content: Mapping[str, object], *, averaged: bool | None) -> _Content:
    config, model, means = (content.get(key) for key in ("config", "model", "averaged"))
    if not isinstance(config, dict) or not isinstance(config.get("clip"), dict):
        raise CheckpointError("is not a complete checkpoint: it lacks its experiment")
    if averaged is None:
        averaged = (config.get("test") or {}).get("weights") != "raw"
    clip, use = config["clip"], averaged and means is not None
    return _Content(
        container="checkpoint",
        state={**_tensors(model), **(_tensors(means) if use else {})},
        stated=_preset(config.get("model"), clip.get("num_frames"), clip.get("crop_size")),
        averaged=use,
    )


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__} where weights by name belong")
    others = [str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others:
        raise CheckpointError(f"holds {first_names(others)} among its weights, which aren't tensors")
    return content


def _preset(model: JsonValue, num_frames: JsonValue, crop_size: JsonValue) -> Preset:
    if not isinstance(model, dict) or not isinstance(num_frames, int) or not isinstance(crop_size, int):
        raise CheckpointError("states its network in part only")
    return Preset(model=validated(ModelConfig, model), num_frames=num_frames, crop_size=crop_size)


def _stated_by_pyslowfast(cfg: object) -> Preset | None:
    """The network of a PySlowFast configuration; None where it isn't there or isn't wholly that of a MorphMLP."""
    try:
        said: Any = parse_yaml(str(cfg))
        morph, data = said["MORPH"], said["DATA"]
        model = {
            "depths": morph["LAYERS"],
            "embed_dims": morph["EMBED_DIMS"],
            "chunk_lengths": morph["SEGMENT_DIM"],
            "mlp_ratio": morph["MLP_RATIOS"][0],
            "drop_path_rate": morph["DROP_DEPTH_RATE"],
            "num_classes": said["MODEL"]["NUM_CLASSES"],
            "temporal": "mixed",
            "init": "published",
        }
        return _preset(model, data["NUM_FRAMES"], data["TRAIN_CROP_SIZE"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ConfigError, CheckpointError):
        return None


def _pyslowfast(state: Mapping[str, Tensor], stated: Preset | None) -> dict[str, object]:
    """PySlowFast's container without a training state; `epoch` is left out so that none is looked for."""
    if stated is None or not _is_published_form(stated.model):
        return {"model_state": dict(state)}  # a network that PySlowFast's configuration can't state
    model = stated.model
    cfg = {
        "MORPH": {
            "LAYERS": list(model.depths),
            "EMBED_DIMS": list(model.embed_dims),
            "SEGMENT_DIM": list(model.chunk_lengths),
            "MLP_RATIOS": [model.mlp_ratio] * len(model.depths),
            "DROP_DEPTH_RATE": model.drop_path_rate,
        },
        "DATA": {"NUM_FRAMES": stated.num_frames, "TRAIN_CROP_SIZE": stated.crop_size},
        "MODEL": {"NUM_CLASSES": model.num_classes},
    }
    return {"model_state": dict(state), "cfg": yaml.safe_dump(cfg, sort_keys=False)}


def _is_published_form(model: ModelConfig) -> bool:
    """Whether it has no ablation in it, but perhaps other sizes."""
    values = {f"model.{name}": value for name, value in _MODEL.dump_python(model, mode="json").items()}
    if set(model.branches or ALL_BRANCHES) == set(ALL_BRANCHES):
        values["model.branches"] = None
    return model.temporal == "mixed" and all(values.get(name, value) == value for name, value in LATER_FIELDS.items())


def stated_metadata(file: WeightsFile) -> dict[str, JsonValue]:
    """What safetensors of this project say of their network, under `METADATA_KEY`."""
    stated = file.stated
    return {
        "format": FORMAT,
        "model": None if stated is None else _MODEL.dump_python(stated.model, mode="json"),
        "num_frames": None if stated is None else stated.num_frames,
        "crop_size": None if stated is None else stated.crop_size,
        "num_classes": file.description.num_classes,
        "averaged": file.averaged,
        "source_sha256": file.sha256,
    }
