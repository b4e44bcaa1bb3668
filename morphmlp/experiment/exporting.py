"""The body of `pipelines/export.py`: weights to a folder with the model, its card and a script that uses it."""

import io
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.config.loading import config_to_yaml
from morphmlp.data.datasets.class_list import output_names
from morphmlp.errors import ConfigError, storage_fault
from morphmlp.experiment.class_names import known_class_names
from morphmlp.experiment.tested_weights import (
    FoundWeights,
    Source,
    config_of,
    find_source,
    find_weights,
    fitted_weights,
    require_finished,
    require_same_network,
)
from morphmlp.export.facts import (
    INPUTS,
    LEAST_SIDE,
    ExportedFacts,
    WeightsSource,
    input_shape,
    preprocessing,
    sizes_fault,
)
from morphmlp.export.forms import FILES, FORMS, GRAPHS, FormName, Run, form_text, require_extra
from morphmlp.export.pages import card, measured_scores, use_script
from morphmlp.export.parity import Parity, compare, seeded_inputs, seeded_pixels
from morphmlp.export.pyfunc import write_pyfunc
from morphmlp.files import UNFINISHED
from morphmlp.models.any_size_form import SIZE_MULTIPLE
from morphmlp.models.network import Network
from morphmlp.models.planned_cost import experiment_cost
from morphmlp.models.presets import Preset
from morphmlp.models.segmentation.network import MorphMLPSegmentation
from morphmlp.models.weights.describe import describe_model
from morphmlp.record import Metrics, RunSummary, Tags
from morphmlp.targets import writable_folder
from morphmlp.tasks.factory import task_of
from morphmlp.training.weights.file import stated_metadata

_SHOWN = 3
"""Files of a folder in use that an error names."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """What was asked for."""

    checkpoint: str
    config: str | None
    overrides: Mapping[str, JsonValue]
    form: FormName
    output: Path
    classes: Path | None


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written; the JSON of `--json`."""

    output: str
    form: str
    file: str
    size_bytes: int
    checkpoint: str
    parity: dict[str, JsonValue]
    notes: tuple[str, ...]
    """What was done to the weights."""

    def in_words(self) -> str:
        """In a line."""
        differences = self.parity["differences"]
        assert isinstance(differences, dict)
        found = ", ".join(f"{difference:.1e} ({name})" for name, difference in differences.items())
        return (
            f"{self.output}/{self.file}: {self.size_bytes / 1e6:.1f} MB, {self.form}; greatest difference of a logit "
            f"from the network: {found}"
        )


def require_folder(path: Path) -> Path:
    """A new or empty folder that can be written to.

    Raises:
        ConfigError: It isn't one.
    """
    path = writable_folder(path, "--output")
    if path.is_dir() and (names := sorted(entry.name for entry in path.iterdir())):
        more = "" if len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
        raise ConfigError(
            [f"--output: {path}: holds other files ({', '.join(names[:_SHOWN])}{more}); name a new or empty folder"]
        )
    return path


def export(arguments: ExportArguments) -> ExportResult:
    """Write a folder, complete or not at all.

    Raises:
        MorphMLPError: Whatever the user can fix, and a model that isn't the network.
    """
    require_extra(arguments.form)
    output = require_folder(arguments.output.absolute())
    source = find_source(arguments.checkpoint, config=arguments.config, overrides=arguments.overrides)
    config = config_of(source, arguments.config, arguments.overrides)
    if arguments.form == "hub" and config.segmentation is not None and config.segmentation.backbone != "morphmlp":
        raise ConfigError(["--to hub: takes MorphMLPs; the backbone of this network is a ResNet-50, use safetensors"])
    _require_size(config, arguments.form)
    lines = list[str]()
    found = find_weights(source, config, lines.append)
    require_finished(source, found)
    require_same_network(found, config)
    names = _class_names(config, source, arguments.classes)
    weights, notes = fitted_weights(found, config, names)
    facts = _facts(config, found, names, run_name=None if source.folder is None else source.name)
    with _new_folder(output) as folder:
        if arguments.form == "pyfunc":
            parity = write_pyfunc(folder, without_places(config), weights, names, facts)
        else:
            parity = _write_graph(folder, config, weights, facts, form=arguments.form)
        parity.require(arguments.form)
        _write_pages(folder, facts, parity, form=arguments.form, run=found.run)
    place = output / FILES[arguments.form]
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return ExportResult(
        output=str(arguments.output),
        form=arguments.form,
        file=place.name,
        size_bytes=sum(path.stat().st_size for path in files),
        checkpoint=found.location,
        parity=parity.as_json(),
        notes=(*lines, *(notes if found.file.container != "checkpoint" else ())),
    )


def _require_size(config: ExperimentConfig, form: FormName) -> None:
    """Refuse a graph for whole images where it can't take them.

    Raises:
        ConfigError: It says which windows it could take.
    """
    if config.segmentation is None or form not in GRAPHS or config.segmentation.test.stride is not None:
        return
    if (fault := sizes_fault(config)) is not None:
        raise ConfigError(
            [
                f"--to {form}: a graph for whole images can't be made: {fault}; with --segmentation.test.mode slide "
                f"--segmentation.test.stride PIXELS it is made for windows of clip.crop_size {config.clip.crop_size}"
            ]
        )


def _class_names(config: ExperimentConfig, source: Source, classes: Path | None) -> tuple[str, ...]:
    """A name for each of the network's outputs.

    Raises:
        ConfigError: Nothing names them.
    """
    names, where = known_class_names(config, source, classes)
    if names is None:
        raise ConfigError([f"--classes FILE: is missing, a list of the names of the classes: {where}"])
    return output_names(names, config.model.num_classes)


def without_places(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment for a folder that others get: no paths of this machine, no weights to start from."""
    data = {split: Path(path).name for split, path in asdict(config.data).items()}
    return replace(
        config,
        data=replace(config.data, **data),
        start_from=None,
        cluster=replace(config.cluster, storage="runs"),
        checkpoint=replace(config.checkpoint, storage=None),
        ingest=replace(config.ingest, clip_cache=None),
    )


def _facts(
    config: ExperimentConfig, found: FoundWeights, names: tuple[str, ...], *, run_name: str | None
) -> ExportedFacts:
    cost = experiment_cost(config, view_size=config.test_clip.crop_size)
    stated = Preset(model=config.model, num_frames=config.clip.num_frames, crop_size=config.clip.crop_size)
    tags = {} if found.run is None else found.run.tags
    return ExportedFacts(
        network=describe_model(
            config.model,
            num_frames=config.clip.num_frames,
            crop_size=config.clip.crop_size,
            segmentation=config.segmentation,
        ).in_words,
        task=config.task,
        dataset=config.dataset,
        input_name=INPUTS[config.model.temporal == "none" or config.segmentation is not None],
        input_shape=input_shape(config, any_size=_any_size(config)),
        preprocessing=preprocessing(config),
        views=config.test_in_words,
        class_names=names,
        params=cost.params,
        gmacs=cost.gmacs,
        source=WeightsSource(
            checkpoint=Path(found.location).name,
            which=found.which,
            file_sha256=found.file.sha256,
            run_name=run_name,
            run_id=None if found.run is None else found.run.run_id,
            git_commit=tags.get(Tags.GIT_COMMIT),
        ),
        weights=stated_metadata(replace(found.file, stated=stated)),
    )


def _write_graph(
    folder: Path, config: ExperimentConfig, weights: Mapping[str, Tensor], facts: ExportedFacts, *, form: FormName
) -> Parity:
    """The model's file, the seeded example with the network's own logits, and how far the two are apart."""
    task = task_of(config)
    network = task.network()
    network.load_state_dict(weights)
    network.eval()
    chosen, path = FORMS[form], folder / FILES[form]
    chosen.write(network, facts, path)
    # What has the weights alone says how to build the network.
    if form == "safetensors":
        (folder / "experiment.yaml").write_text(config_to_yaml(without_places(config)), encoding="utf-8")
    if form == "hub":
        (folder / "config.json").write_text(_hub_config(config, facts), encoding="utf-8")
    sizes = _compared_sizes(config)
    inputs = seeded_inputs(network, sizes=sizes)
    _write_example(folder / "example.npz", network, inputs, size=sizes[0])
    load = _from_hub_folder if form == "hub" else chosen.load
    return compare(network, load(path, task.network()), inputs)


def _from_hub_folder(path: Path, network: Network) -> Run:
    """What `from_pretrained` makes of the folder in which the weights lie."""
    from morphmlp.pretrained.hub import HubMorphMLP, HubMorphMLPSegmentation  # noqa: PLC0415 (not always installed)

    made = HubMorphMLPSegmentation if isinstance(network, MorphMLPSegmentation) else HubMorphMLP
    with redirect_stdout(io.StringIO()):  # it says that it loads
        return cast(Run, made.from_pretrained(path.parent))


def _any_size(config: ExperimentConfig) -> bool:
    return config.segmentation is not None and sizes_fault(config) is None


def _compared_sizes(config: ExperimentConfig) -> list[tuple[int, int, int]]:
    """Frames, rows and columns of what the exported model is tried on; of images of any size two sizes."""
    frames, side = config.clip.num_frames, config.test_clip.crop_size
    if not _any_size(config):
        return [(frames, side, side)]
    side = max(-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE, LEAST_SIDE)
    return [(frames, side, side), (frames, side + SIZE_MULTIPLE, 2 * side)]


def _hub_config(config: ExperimentConfig, facts: ExportedFacts) -> str:
    """What `from_pretrained` builds the network by."""
    from morphmlp.pretrained.hub import hub_model, hub_segmentation  # noqa: PLC0415 (not always installed)

    of_network: dict[str, JsonValue] = {"model": hub_model(config.model), "crop_size": config.clip.crop_size}
    if config.segmentation is None:
        of_network["num_frames"] = config.clip.num_frames
    else:
        of_network["segmentation"] = hub_segmentation(config.segmentation)
    return json.dumps(
        {**of_network, "class_names": facts.class_names, "preprocessing": dict(facts.preprocessing)},
        indent=2,
        ensure_ascii=False,
    )


def _write_example(path: Path, network: Network, inputs: Mapping[str, Tensor], *, size: tuple[int, ...]) -> None:
    with torch.inference_mode():
        logits = network(inputs["batch 1"]).numpy()
    pixels = seeded_pixels(1, size=size)
    np.savez(path, pixels=pixels[:, 0] if network.is_image else pixels, logits=logits)


def _write_pages(folder: Path, facts: ExportedFacts, parity: Parity, *, form: FormName, run: RunSummary | None) -> None:
    scores = [] if run is None else measured_scores(facts.task, run.metrics)
    scored = "" if run is None else _scored(run)
    (folder / "README.md").write_text(card(facts, parity, scores, form=form, scored=scored), encoding="utf-8")
    (folder / "use_model.py").write_text(use_script(facts, form=form), encoding="utf-8")
    said = json.loads(form_text(facts, form)) | {
        "parity": parity.as_json(),
        "measured": [asdict(score) for score in scores],
    }
    (folder / "model.json").write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _scored(run: RunSummary) -> str:
    """What the run's test was of."""
    count = run.metrics.get(Metrics.TEST_NUM_VIDEOS)
    broken = int(run.metrics.get(Metrics.TEST_NUM_QUARANTINED, 0))
    quarantined = f", {broken} quarantined" if broken else ""
    data = run.tags.get(Tags.DATA_TEST, "unknown")
    return "" if count is None else f"Scored: {int(count)} test items{quarantined}; their fingerprint is `{data}`."


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder to fill next to `output`, whose name and place it takes at the end; where that fails nothing is left.

    Raises:
        StorageError: The disk is full, or whatever else the operating system says of it.
    """
    unfinished = output.with_name(f".{output.name}.{secrets.token_hex(3)}{UNFINISHED}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.replace(output)
    except OSError as error:
        if storage_fault(error) is None:
            raise
        raise OSError(error.errno, error.strerror, str(output)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
