"""The table of docs/export.md: a run's test, predict.py and exported models give the same logits of the same videos.

    python docs/same_logits.py --checkpoint demo --scores runs/demo/scores --videos 50 --serve

The scores are those of a test that Ray's scorers made: the run's own, or a store of evaluate.py.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from morphmlp.benchmarks.serving_load import answered, running_server
from morphmlp.cli import A_PATH, COUNT, SETTINGS, run
from morphmlp.config import ExperimentConfig
from morphmlp.errors import ConfigError
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.evaluation.video_model import VideoModel
from morphmlp.experiment.exporting import ExportArguments, export
from morphmlp.export.forms import FILES, FORMS, Run
from morphmlp.export.parity import MOST_DIFFERENCE
from morphmlp.models.network import Network
from morphmlp.prediction.trained import TrainedNetwork, find_trained
from morphmlp.tracking.models import load_path_model


class Answering(nn.Module):
    """An exported model in the place of the network: the test's code makes its input and reads its output."""

    def __init__(self, exported: Run, network: Network) -> None:
        super().__init__()
        self.exported = exported
        self.is_image = network.is_image
        self.pixel_mean, self.pixel_std = network.pixel_mean, network.pixel_std

    def forward(self, clips: Tensor) -> Tensor:
        """Logits, of the exported model."""
        return self.exported(clips.cpu())


class Looks(Protocol):
    """Whatever can be asked for a file's logits."""

    def view_logits(self, path: str) -> np.ndarray | str:
        """Logits `[views classes]`, or why the file can't be used."""
        ...


class Served:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def view_logits(self, path: str) -> np.ndarray | str:
        """Logits `[1 classes]`, summed over the views, or why there are none."""
        status, answer = answered(self.port, path) or (0, {"error": "no answer"})
        return np.array([answer["logits"]], np.float32) if status == 200 else str(answer["error"])


@click.command(context_settings=SETTINGS)
@click.option("--checkpoint", required=True, metavar="WEIGHTS", help="a run, a checkpoint's folder or a file")
@click.option("--config", metavar="FILE", help="experiment file; by default the run's own")
@click.option("--scores", type=A_PATH, required=True, metavar="DIR", help="store of a test of these weights")
@click.option("--videos", type=COUNT, default=50, help="videos at most")
@click.option("--serve", is_flag=True, help="start serve.py and ask it, too")
def main(*, checkpoint: str, config: str | None, scores: Path, videos: int, serve: bool) -> None:
    """Print how far each way of running a model is from what its test stored, as Markdown."""
    stored = stored_logits(scores, videos)
    trained = find_trained(checkpoint, config=config, overrides={}, classes=None, log=print)
    paths = video_paths(trained.config, list(stored))
    with tempfile.TemporaryDirectory(prefix="exported-") as scratch:
        models = exported_models(trained, checkpoint, config, Path(scratch))
        rows = [row(name, model, stored, paths) for name, model in models.items()]
    if serve:
        arguments = ["--checkpoint", checkpoint, *([] if config is None else ["--config", config])]
        with running_server(arguments) as (_, port):
            rows.append(row("serve.py", Served(port), stored, paths))
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    if any("no" in entry.values() for entry in rows):
        raise ConfigError([f"--scores: {scores}: differ by more than {MOST_DIFFERENCE:g}; are they of these weights?"])


def stored_logits(scores: Path, videos: int) -> dict[str, np.ndarray]:
    """Logits `[views classes]` by video, of a store's first videos in the manifest's order."""
    table = ScoreStore.open(scores).read(["video_id", "view_logits"]).slice(0, videos)
    return {row["video_id"]: np.array(row["view_logits"], np.float32) for row in table.to_pylist()}


def video_paths(config: ExperimentConfig, ids: list[str]) -> dict[str, str]:
    """The files of videos."""
    table = pd.read_parquet(config.data.test, columns=["video_id", "path"]).set_index("video_id")["path"]
    return {video: table[video] for video in ids}


def exported_models(
    trained: TrainedNetwork, checkpoint: str, config: str | None, folder: Path
) -> dict[str, VideoModel]:
    """The same weights in each form, ready to be asked for a file's logits."""
    models = {"predict.py": trained.video_model()}
    for form in ("pyfunc", "onnx", "torch-export", "safetensors"):
        result = export(
            ExportArguments(
                checkpoint=checkpoint, config=config, overrides={}, form=form, output=folder / form, classes=None
            )
        )
        print(result.in_words())
        if form == "pyfunc":
            loaded = load_path_model(folder / form / FILES[form])
            assert isinstance(loaded, VideoModel)
            models["pyfunc (MLflow)"] = loaded
            continue
        model = trained.video_model()
        exported = FORMS[form].load(folder / form / FILES[form], model.task.network())
        # It has what the test's code needs of a network, and no more.
        model.network = cast(Network, Answering(exported, model.network))
        model.device = torch.device("cpu")
        models[form] = model
    return models


def row(name: str, model: Looks, stored: Mapping[str, np.ndarray], paths: Mapping[str, str]) -> dict[str, str]:
    """A line of the table."""
    greatest, same_class, views = 0.0, 0, 0
    for video, right in stored.items():
        found = model.view_logits(paths[video])
        if isinstance(found, str):
            raise ConfigError([f"--scores: {paths[video]}: can't be used here: {found}"])
        views += len(right)
        if len(found) < len(right):
            right = right.sum(axis=0, keepdims=True)  # noqa: PLW2901
        greatest = max(greatest, float(np.abs(found - right).max()))
        same_class += int(found.sum(axis=0).argmax() == right.sum(axis=0).argmax())
    return {
        "model": name,
        "videos": str(len(stored)),
        "views": str(views),
        "greatest difference of a logit": f"{greatest:.1e}",
        "same class": str(same_class),
        f"same to {MOST_DIFFERENCE:g}": "yes" if greatest <= MOST_DIFFERENCE else "no",
    }


if __name__ == "__main__":
    run(main)
