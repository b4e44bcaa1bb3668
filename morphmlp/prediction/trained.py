"""A trained network by what `--checkpoint` names: its experiment, its weights, and the names of its classes.

Nothing of it needs the record or a data set, as long as the run's folder or a file of weights is there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from torch import Tensor

from morphmlp.config import ExperimentConfig
from morphmlp.data.datasets.class_list import output_names
from morphmlp.data.decoding.backends import decoder_fault
from morphmlp.data.decoding.isolation.isolated import Limits
from morphmlp.errors import ConfigError
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.experiment.class_names import known_class_names
from morphmlp.experiment.tested_weights import (
    Source,
    config_of,
    find_source,
    find_weights,
    fitted_weights,
    require_same_network,
)


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """What is needed to build a network and to use it."""

    config: ExperimentConfig
    weights: Mapping[str, Tensor]
    class_names: tuple[str, ...]
    location: str
    """Checkpoint or file, for people."""

    def video_model(self) -> VideoModel:
        """The network of a classification, as its test runs it; a video isn't given up while its decoder works."""
        return VideoModel(self.config, self.weights, self.class_names, limits=patient_limits(self.config))


def patient_limits(config: ExperimentConfig) -> Limits:
    """What decoding one video may take: a long one isn't given up, only a decoder that stands still."""
    ingest = config.ingest
    return Limits(timeout_s=ingest.decode_timeout_s, memory_mb=ingest.decoder_memory_mb, follow_work=True)


def find_trained(
    checkpoint: str,
    *,
    config: str | None,
    overrides: Mapping[str, JsonValue],
    classes: Path | None,
    log: Callable[[str], None],
) -> TrainedNetwork:
    """The network that a run (name, folder, id), a checkpoint's folder or a file of weights names.

    `classes` is a list of class names; without it they are those of the experiment's manifests or of the run's scores.

    Raises:
        MorphMLPError: It can't be found or read, or doesn't fit the experiment.
    """
    source = find_source(checkpoint, config=config, overrides=overrides)
    experiment = config_of(source, config, overrides)
    if fault := decoder_fault(experiment.ingest.decoder):
        raise ConfigError([f"ingest.decoder: {fault}"])
    found = find_weights(source, experiment, log, with_record=False)
    require_same_network(found, experiment)
    names = _class_names(experiment, source, classes, log)
    weights, notes = fitted_weights(found, experiment, names)
    for note in notes if found.file.container != "checkpoint" else ():
        log(note)
    log(f"{found.location}: {found.which}; {found.file.description.in_words}")
    return TrainedNetwork(config=experiment, weights=weights, class_names=names, location=found.location)


def _class_names(
    config: ExperimentConfig, source: Source, classes: Path | None, log: Callable[[str], None]
) -> tuple[str, ...]:
    outputs = config.model.num_classes
    names, where = known_class_names(config, source, classes)
    if names is None:
        log(f"nothing names the {outputs} classes: {where}; they are numbered; --classes FILE names them")
        return output_names((), outputs)
    return names
