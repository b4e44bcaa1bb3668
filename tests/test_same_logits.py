"""`docs/same_logits.py`: the scores of a test against every way to run its weights, on a few videos."""

import importlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from coded_videos import Coding, moving_pictures, write_video
from scored_videos import manifest_of, scored_by_the_test
from stored_scores import HEADER

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_yaml
from morphmlp.data.columns import SCORED
from morphmlp.data.manifest import write_manifest
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.prediction.trained import find_trained
from morphmlp.tasks.factory import task_of

NAMES = ("asleep", "boiling", "cutting", "dancing")


@pytest.mark.slow
def test_predictions_and_exported_models_are_what_the_test_stored(tmp_path, monkeypatch, request, capsys):
    root = request.config.rootpath
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(root / "docs")
    same_logits = importlib.import_module("same_logits")
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    for number, path in enumerate(paths):
        write_video(path, Coding(file="", codec="libx264"), pictures=moving_pictures()[number : number + 12])
    videos = manifest_of(paths, NAMES)
    write_manifest(videos, tmp_path / "test.parquet")
    small = root / "tests" / "unit" / "small_experiment.yaml"
    config = load_config(small, {"data.test": str(tmp_path / "test.parquet")})
    (tmp_path / "experiment.yaml").write_text(config_to_yaml(config))
    torch.manual_seed(0)
    network = task_of(config).network()
    torch.nn.init.normal_(network.head.weight)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    named = ["--checkpoint", "weights.pth", "--config", "experiment.yaml"]
    found = find_trained("weights.pth", config="experiment.yaml", overrides={}, classes=None, log=print)
    table = scored_by_the_test(found, videos)
    how = pa.table(
        {"concealed": [0] * 3, "retried": [False] * 3, "cpu_s": [0.1] * 3, "scorer": [""] * 3}, schema=SCORED
    )
    with ScoreStore.create(tmp_path / "scores", HEADER) as store:
        store.append(pa.table([*table.columns, *how.columns], schema=pa.schema([*table.schema, *SCORED])))
    same_logits.main.main([*named, "--scores", "scores", "--videos", "2"], standalone_mode=False)
    printed = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed if line.startswith("|")][2:]
    assert [row[0] for row in rows] == ["predict.py", "pyfunc (MLflow)", "onnx", "torch-export", "safetensors"]
    assert all(row[1:3] == ["2", "12"] and row[4:] == ["2", "yes"] for row in rows)
    others = {str(paths[0]): np.array(table["view_logits"][0].as_py(), np.float32) + 1}
    row = same_logits.row("predict.py", found.video_model(), others, {str(paths[0]): str(paths[0])})
    assert row["same to 0.0001"] == "no"
