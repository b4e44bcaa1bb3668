"""`--start-from` and `--extend`: from a file or a run to the options of `start_from` that make sense of it.

What was chosen stands in the experiment afterwards, as if it had been written there: nothing is decided anew later.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from morphmlp.config import ExperimentConfig, load_config
from morphmlp.config.start import StartConfig
from morphmlp.errors import ConfigError, MorphMLPError
from morphmlp.models.weights.describe import describe_model
from morphmlp.tasks.scores import primary_score
from morphmlp.training.checkpoint.saving import checkpoint_to_test, run_store
from morphmlp.training.checkpoint.store import CONTENT_FILE
from morphmlp.training.record.run_folder import RunFolder
from morphmlp.training.weights.file import read_weights


def starting_from(config: ExperimentConfig, source: str, log: Callable[[str], None]) -> ExperimentConfig:
    """The experiment that starts from the weights of a file or a run; other options of its `start_from` stay.

    - The head is replaced where the file's has another number of classes.
    - The convolutions of an image model get a time axis where the experiment's network has one, at the middle step:
      a still clip then scores as the image does.

    The source is a file of weights, a run's folder, or the name of a run under `cluster.storage`; of a run the
    checkpoint is taken that the run itself tested, or would test.

    Raises:
        ConfigError: There are no weights.
    """
    option = f"--start-from {source}"
    path = _weights_of(config, source, option, log, newest=False)
    try:
        file = read_weights(path).description
    except MorphMLPError as error:
        raise ConfigError([f"--start-from: {line}" for line in str(error).splitlines()]) from None
    start = replace(config.start_from or StartConfig(weights=str(path)), weights=str(path), training_state=False)
    network = describe_model(config.model, num_frames=config.clip.num_frames, segmentation=config.segmentation)
    if network.decoder is not None and file.decoder is None:
        log(f"{option}: weights of a classifier: its head is left, and the decoder starts fresh")
    elif file.decoder != network.decoder and not start.replace_head:
        log(f"{option}: decoder {file.decoder} there, {network.decoder or 'none'} here: it starts fresh")
        start = replace(start, replace_head=True, class_order=None, class_order_sha256=None)
    elif file.num_classes != network.num_classes and not start.replace_head:
        log(f"{option}: {file.num_classes or 'no'} classes there, {network.num_classes} here: the head starts fresh")
        start = replace(start, replace_head=True, class_order=None, class_order_sha256=None)
    if file.kind == "image" and network.kind != "image" and start.inflate is None:
        log(f"{option}: weights of an image model: its convolutions get a time axis (start_from.inflate: centre)")
        start = replace(start, inflate="centre")
    return replace(config, start_from=replace(start, sha256=None))


def extending(config: ExperimentConfig, source: str, log: Callable[[str], None]) -> ExperimentConfig:
    """The experiment that continues a run's training where it ended, under a longer schedule.

    The source is a run's folder, or its name under `cluster.storage`; its last checkpoint is taken.

    Raises:
        ConfigError: There is no such run or checkpoint.
    """
    path = _weights_of(config, source, f"--extend {source}", log, newest=True)
    return replace(config, start_from=StartConfig(weights=str(path), training_state=True))


def _weights_of(
    config: ExperimentConfig, source: str, option: str, log: Callable[[str], None], *, newest: bool
) -> Path:
    """The file of weights: the source itself, or a run's checkpoint."""
    if Path(source).is_file():
        return Path(source).absolute()
    runs = [RunFolder(place) for place in (Path(source), Path(config.cluster.storage) / source)]
    folder = next((run for run in runs if run.experiment.is_file()), None)
    if folder is None:
        raise ConfigError(
            [f"{option}: neither a file of weights nor a run; runs are looked for in {config.cluster.storage}"]
        )
    folder = RunFolder(folder.root.absolute())
    its_own = load_config(folder.experiment)
    store = run_store(its_own.checkpoint, folder)
    try:
        if newest:
            found = store.newest(log)
            stored, which = (None, "") if found is None else (found[0], "last checkpoint")
        else:
            stored, _, which = checkpoint_to_test(its_own, folder, primary_score(its_own.task), log)
    except MorphMLPError as error:
        raise ConfigError([f"{option}: {error}"]) from None
    if stored is None:
        raise ConfigError([f"{option}: {store.location} holds no checkpoint yet"])
    path = Path(stored.location) / CONTENT_FILE
    if not path.is_file():
        raise ConfigError(
            [f"{option}: its checkpoints are in {store.location}; copy {stored.name} here and name the file in it"]
        )
    log(f"{option}: {path} ({which})")
    return path
