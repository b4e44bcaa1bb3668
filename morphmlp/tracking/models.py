"""A trained model in the store: logged with its signature, registered by name, loaded by `mlflow.pyfunc`."""

import importlib.metadata
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow warns of type hints of its own
    from mlflow.pyfunc import load_model, save_model
    from mlflow.pyfunc.model import PythonModel, PythonModelContext

_NEEDED = ("torch", "av", "mlflow", "pyarrow", "pandas", "numpy", "safetensors")
"""Packages whose versions a logged model names, besides this one."""
_NEEDED_BY_PACKAGE = ("einops", "jaxtyping", "pydantic", "pyyaml", "scipy", "pillow", "simplejpeg")
"""What this package needs to predict, where a model brings it along."""
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string)]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "path"),
            ColSpec(Array(DataType.string), "names"),
            ColSpec(Array(DataType.double), "probabilities"),
            ColSpec(DataType.string, "error"),
        ]
    ),
)
"""A column of paths in; for each the most probable classes and their probabilities, or why there are none."""
SIGNATURE_WITH_MAPS = ModelSignature(
    inputs=SIGNATURE.inputs, outputs=Schema([*SIGNATURE.outputs.inputs, ColSpec(DataType.binary, "map")])
)
"""Of a model that segments: shares of the image stand for probabilities, and each image has its label map as a PNG."""
_CODE = '''"""Loads the model of this folder; needs the package morphmlp."""

from mlflow.models import set_model

from {module} import {name}
from morphmlp.tracking.models import PathModel

set_model(PathModel({name}.load))
'''


class Answer(Protocol):
    """What a model says of a file."""

    @property
    def names(self) -> Sequence[str]:
        """The most probable classes."""

    @property
    def probabilities(self) -> Sequence[float]:
        """Theirs."""

    @property
    def error(self) -> str:
        """Why there are none."""


class AnswerWithMap(Answer, Protocol):
    """What a model that segments says of an image."""

    @property
    def map(self) -> bytes:
        """The label map as a PNG."""


class Predictor(Protocol):
    """What answers."""

    gives_maps: ClassVar[bool]
    """Whether its answers have label maps."""

    def predict(self, paths: Sequence[str]) -> Sequence[Answer]:
        """An answer for each path."""


class PathModel(PythonModel):
    """A model of paths for `mlflow.pyfunc`."""

    def __init__(self, load: Callable[[str], Predictor]) -> None:
        self._load = load

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model of the logged folder."""
        self.model = self._load(context.artifacts["model"])

    def predict(
        self, context: PythonModelContext | None, model_input: pd.DataFrame, params: dict[str, object] | None = None
    ) -> pd.DataFrame:
        """The columns of `SIGNATURE` for paths: a list of them, or a table whose first column they are.

        MLflow takes the hint for a table whose signature is given elsewhere; that of a list would replace `SIGNATURE`,
        and without one it warns.
        """
        del context, params
        given: Any = model_input
        paths = given.iloc[:, 0].tolist() if isinstance(given, pd.DataFrame) else list(given)
        answers = self.model.predict(paths)
        columns: dict[str, Sequence[object]] = {
            "path": paths,
            "names": [list(answer.names) for answer in answers],
            "probabilities": [list(answer.probabilities) for answer in answers],
            "error": [answer.error for answer in answers],
        }
        if self.model.gives_maps:
            columns["map"] = [cast(AnswerWithMap, answer).map for answer in answers]
        return pd.DataFrame(columns)


@dataclass(frozen=True, kw_only=True)
class ModelToLog:
    """A trained model, as it is given to the store."""

    name: str
    predictor: type[Predictor]
    """Its `load` takes the folder, in whatever process the model is used."""
    folder: Path
    """What it consists of."""
    example: Sequence[str]
    """Paths to try it on."""
    params: Mapping[str, str]
    """What its page shows of it."""
    step: int
    """Of the checkpoint."""
    register_as: str | None
    """Name of the registered model whose next version it becomes; None: of none."""


def log_model(client: MlflowClient, run_id: str, model: ModelToLog) -> str:
    """Log a model as an output of a run, and register it where that is asked for; its id."""
    experiment_id = client.get_run(run_id).info.experiment_id
    entry = client.create_logged_model(
        experiment_id, name=model.name, source_run_id=run_id, params=dict(model.params), model_type="video"
    )
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        folder = Path(scratch) / "model"
        _save(model, folder, entry=Model(artifact_path=entry.artifact_location, run_id=run_id, model_id=entry.model_id))
        client.log_model_artifacts(entry.model_id, str(folder))
    client.finalize_logged_model(entry.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(entry.model_id, step=model.step)])
    if model.register_as is not None:
        _register(client, run_id, entry, model.register_as)
    return str(entry.model_id)


def _save(model: ModelToLog, folder: Path, *, entry: Model) -> None:
    save_path_model(folder, predictor=model.predictor, model=model.folder, example=model.example, entry=entry)


def save_path_model(
    folder: Path,
    *,
    predictor: type[Predictor],
    model: Path,
    example: Sequence[str],
    entry: Model | None = None,
    package: Path | None = None,
    needs: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save a model of paths as `mlflow.pyfunc` loads it; the folder must not be there yet.

    Args:
        folder: Where to.
        predictor: Its `load` takes the folder `model`, in whatever process the model is used; `gives_maps` says whether
            its answers have label maps.
        model: What it consists of; it is copied.
        example: Paths to try it on.
        entry: The store's; None: it is of no store.
        package: This package, or a copy of it, to go along, so that it needn't be installed; None: it must be.
        needs: Further packages that it runs with.
        metadata: Texts to keep in MLflow's own file.
    """
    code = folder.parent / "load_model.py"
    code.write_text(_CODE.format(module=predictor.__module__, name=predictor.__name__), encoding="utf-8")
    needed = (*_NEEDED, *needs, *(() if package is None else _NEEDED_BY_PACKAGE))
    save_model(
        folder,
        python_model=str(code),
        code_paths=None if package is None else [str(package)],
        artifacts={"model": str(model)},
        signature=SIGNATURE_WITH_MAPS if predictor.gives_maps else SIGNATURE,
        input_example=list(example),
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in needed],
        mlflow_model=entry,
        metadata=None if metadata is None else dict(metadata),
    )


def load_path_model(folder: Path) -> Predictor:
    """What a folder of `save_path_model` predicts with, loaded by `mlflow.pyfunc`."""
    loaded: PathModel = load_model(str(folder)).unwrap_python_model()  # type: ignore[no-untyped-call]
    return loaded.model


def _register(client: MlflowClient, run_id: str, entry: LoggedModel, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Its address in the store: `models:/...` would be looked up in the store that this process uses by default.
    client.create_model_version(name, source=entry.artifact_location, run_id=run_id, model_id=entry.model_id)
