"""Names for a network's outputs, wherever they are: a list, the experiment's manifests, the scores of the run."""

from pathlib import Path

from morphmlp.config import ExperimentConfig
from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.manifest import read_class_names
from morphmlp.errors import ConfigError, ScoreStoreError
from morphmlp.evaluation.score_header import read_header
from morphmlp.experiment.tested_weights import Source


def known_class_names(
    config: ExperimentConfig, source: Source, classes: Path | None
) -> tuple[tuple[str, ...] | None, str]:
    """The names, and where they stand; None, and where they were looked for. `classes` is a list of them.

    Raises:
        ConfigError: There are more names than outputs.
        ManifestError: The list or the manifest can't be read.
    """
    names, where = _found(config, source, classes)
    outputs = config.model.num_classes
    if names is not None and len(names) > outputs:
        option = "--classes" if classes is not None else "--classes FILE: is needed"
        raise ConfigError([f"{option}: {where} names {len(names)} classes, the network has {outputs}"])
    return names, where


def _found(config: ExperimentConfig, source: Source, classes: Path | None) -> tuple[tuple[str, ...] | None, str]:
    if classes is not None:
        return read_class_list(classes), str(classes)
    manifests = [config.data.train, config.data.test, config.data.val]
    for path in manifests:
        if Path(path).is_file():
            return read_class_names(path), path
    if source.folder is not None:
        try:
            return read_header(source.folder.scores).class_names, str(source.folder.scores)
        except ScoreStoreError:
            pass
    return None, f"none of {', '.join(dict.fromkeys(manifests))} is there"
