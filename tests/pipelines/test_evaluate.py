"""`pipelines/evaluate.py` as a user runs it: killed in the middle, stopped, and given again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from run_here import run_here
from signals import Reach, send

from morphmlp.config import load_config
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.record import Tags
from morphmlp.start_marks import Part
from morphmlp.tasks.factory import task_of
from morphmlp.tracking import find_run

ROOT = Path(__file__).parents[2]
VIDEOS, VIEWS = 48, 6
FACTS = ["video_id", "scorer", "cpu_s"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with test videos, an experiment file, and weights."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_demo_dataset(folder / "videos", train=8, val=8, test=VIDEOS)
    content = yaml.safe_load((ROOT / "experiments/demo/morphmlp_demo.yaml").read_text())
    content["data"] = {split: f"videos/{split}.parquet" for split in ("train", "val", "test")}
    content["train"] |= {"micro_batch_size": 2}
    content["cluster"] = {"num_workers": 1, "device": "cpu"}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
    torch.manual_seed(0)
    torch.save(task_of(load_config(folder / "experiment.yaml")).network().state_dict(), folder / "weights.pth")
    return folder


def start(folder: Path, scores: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(ROOT / "pipelines/evaluate.py"), "--checkpoint", "weights.pth"]
    command += ["--config", "experiment.yaml", "--test.num-clips", "2", "--test.num-crops", "3"]
    return subprocess.Popen(
        [*command, "--scores", scores, "--json", f"{scores}.json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": "", "OMP_NUM_THREADS": "1"},
    )


def finished(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def stopped(process: "subprocess.Popen[str]", scores: Path, signum: signal.Signals, reach: Reach) -> str:
    """What the command says that gets the signal once some of its videos are scored."""
    while len(list(scores.glob("scores-*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    send(process, signum, reach)
    return process.communicate(timeout=120)[1]


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> Path:
    finished(start(place, "whole"))
    return place / "whole"


@pytest.mark.slow
def test_the_result_stands_on_the_terminal_in_json_and_in_the_record(
    place: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = json.loads((place / "whole.json").read_text())
    assert (result["num_videos"], result["num_scored_now"], result["num_quarantined"]) == (VIDEOS, VIDEOS, 0)
    assert result["views"] == "2 clips x 3 crops"
    assert {len(views) for views in ScoreStore.open(undisturbed).read()["view_logits"].to_pylist()} == {VIEWS}
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(place)
    run = find_run(f"sqlite:///{place / 'mlruns' / 'mlflow.db'}", run_name=result["run_name"])
    assert run is not None
    assert (run.status, run.run_id) == ("FINISHED", result["run_id"])
    assert run.metrics["test/top1"] == pytest.approx(result["scores"]["top1"])
    assert run.metrics["test/top1_low"] == pytest.approx(result["intervals"]["top1"][0])
    assert run.metrics["test/num_videos"] == VIDEOS
    assert (run.params["test.num_clips"], run.params["test.num_crops"]) == ("2", "3")
    assert run.tags[Tags.WEIGHTS] == result["weights_sha256"] == ScoreStore.open(undisturbed).header.weights_sha256
    assert (run.tags[Tags.EVALUATES], run.tags[Tags.DATA_TEST]) == ("", result["data_fingerprint"])
    assert list(result["start"])[-1] == Part.SCORES
    assert {Part.IMPORTS, Part.RAY, Part.WORKER, Part.CLIPS} < set(result["start"])
    assert result["first_scores_s"] < sum(result["start"].values()) < result["wall_s"] + result["start"][Part.IMPORTS]
    again = finished(start(place, "whole"))
    assert f"MLflow run {run.run_id}" in again
    assert json.loads((place / "whole.json").read_text())["start"] == {}
    assert json.loads((place / "whole.json").read_text())["scores"] == result["scores"]


@pytest.mark.slow
def test_predictions_of_all_test_videos_are_the_stored_scores(place: Path, undisturbed: Path) -> None:
    arguments = ["videos/test", "--checkpoint", "weights.pth", "--config", "experiment.yaml", "--json", "-"]
    arguments += ["--test.num-clips", "2", "--test.num-crops", "3"]
    done = run_here(ROOT / "pipelines/predict.py", *arguments, cwd=place)
    assert done.returncode == 0, done.stderr
    predicted = {Path(line["path"]).name: line["logits"] for line in map(json.loads, done.stdout.splitlines())}
    videos = read_manifest(place / "videos/test.parquet").table.to_pylist()
    paths = {row["video_id"]: Path(row["path"]).name for row in videos}
    stored = {paths[row["video_id"]]: row["logits"] for row in ScoreStore.open(undisturbed).read().to_pylist()}
    assert len(stored) == VIDEOS
    assert predicted.keys() == stored.keys()
    for name, logits in stored.items():
        np.testing.assert_allclose(predicted[name], logits, atol=1e-5)


@pytest.mark.parametrize(
    ("signum", "reach", "code"),
    [
        pytest.param(signal.SIGKILL, "command", -9, marks=pytest.mark.slow, id="killed"),
        pytest.param(signal.SIGINT, "command", 130, marks=pytest.mark.long, id="interrupted"),
        pytest.param(signal.SIGTERM, "every process", 143, marks=pytest.mark.long, id="terminated"),
    ],
)
def test_a_test_that_was_stopped_continues_and_scores_nothing_twice(
    place: Path, undisturbed: Path, signum: signal.Signals, reach: Reach, code: int
) -> None:
    scores = place / f"stopped-{signum.name}"
    process = start(place, scores.name)
    said = stopped(process, scores, signum, reach)
    assert process.returncode == code
    before = ScoreStore.open(scores).read(FACTS).to_pylist()
    assert 0 < len(before) < VIDEOS
    if signum != signal.SIGKILL:
        assert f"{len(before)} of {VIDEOS} videos are scored in {scores}; the same command continues" in said
    finished(start(place, scores.name))
    result = json.loads((place / f"{scores.name}.json").read_text())
    store = ScoreStore.open(scores)
    assert store.read().equals(ScoreStore.open(undisturbed).read())
    assert result["num_scored_now"] == VIDEOS - len(before)
    assert sum(table.num_rows for table in store.parts(["video_id"])) == VIDEOS
    after = {row["video_id"]: row for row in store.read(FACTS).to_pylist()}
    assert all(after[row["video_id"]] == row for row in before)


@pytest.mark.slow
def test_a_store_of_other_weights_is_refused_in_one_line(place: Path, undisturbed: Path) -> None:
    torch.manual_seed(1)
    other = place / "other.pth"
    torch.save(task_of(load_config(place / "experiment.yaml")).network().state_dict(), other)
    command = [sys.executable, str(ROOT / "pipelines/evaluate.py"), "--checkpoint", str(other)]
    command += ["--config", "experiment.yaml", "--test.num-clips", "2", "--scores", "whole"]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, env={**os.environ, "MLFLOW_TRACKING_URI": ""}
    )
    assert (done.returncode, done.stdout) == (2, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {undisturbed}: holds scores of something else: weights ")
    assert "views 2 clips x 3 crops, not 2 clips x 1 crop; choose another folder" in line
