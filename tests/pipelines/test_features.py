"""`pipelines/features.py` as a user runs it: killed in the middle and given again, with broken videos."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from run_here import run_here
from signals import send

from morphmlp.benchmarks.feature_extraction import measure_features
from morphmlp.config import load_config
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.prediction.features import WindowFeatures, features_of
from morphmlp.prediction.predict import with_each_decoder
from morphmlp.prediction.sliding import sliding
from morphmlp.prediction.trained import find_trained
from morphmlp.progress import TerminalProgress
from morphmlp.tasks.factory import task_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "features.py"
VIDEOS = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, two of them broken, an experiment file, and weights."""
    folder = tmp_path_factory.mktemp("extracted")
    write_demo_dataset(folder / "videos", train=8, val=8, test=VIDEOS)
    paths = read_manifest(folder / "videos/test.parquet").table["path"].to_pylist()
    Path(paths[3]).write_text("no video")
    Path(paths[-1]).write_bytes(b"")
    content = yaml.safe_load((ROOT / "experiments/demo/morphmlp_demo.yaml").read_text())
    content["data"] = {split: f"videos/{split}.parquet" for split in ("train", "val", "test")}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
    torch.manual_seed(0)
    torch.save(task_of(load_config(folder / "experiment.yaml")).network().state_dict(), folder / "weights.pth")
    return folder


def arguments(output: str) -> list[str]:
    given = ["videos/test.parquet", "--output", output, "--checkpoint", "weights.pth", "--config", "experiment.yaml"]
    return [*given, "--window", "16", "--hop", "1"]


def start(folder: Path, output: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments(output)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


@pytest.mark.slow
def test_a_killed_extraction_continues_to_the_bytes_of_one_process_in_the_manifests_order(place: Path) -> None:
    folder = place / "killed"
    process = start(place, folder.name)
    while len(written(folder)) < 5:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 5 <= len(written(folder)) < VIDEOS - 2
    assert not (folder / "features.parquet").exists()
    said = finished(start(place, folder.name))

    manifest = read_manifest(place / "videos/test.parquet").table.to_pylist()
    index = pq.read_table(folder / "features.parquet").to_pylist()
    assert [row["video_id"] for row in index] == [row["video_id"] for row in manifest]
    broken = [row["video_id"] for row in index if row["error"]]
    assert broken == [manifest[3]["video_id"], manifest[-1]["video_id"]]
    assert all(f"no features: {name} (" in said for name in broken)
    assert json.loads((folder / "features.json").read_text())["stage"] == "pooled"

    good = [row for row in index if not row["error"]]
    assert {f"{row['video_id']}.npy" for row in good} == written(folder).keys()
    alone = in_this_process(place, [row["path"] for row in good])
    for row, found in zip(good, alone, strict=True):
        assert Path(row["output"]).read_bytes() == found.content("npy")
        assert (row["num_windows"], row["channels"], row["fps"]) == (*found.values.shape, found.info.fps)
        assert tuple(row["start_s"]) == found.start_s


@pytest.mark.long
def test_sigterm_to_every_process_ends_an_extraction_with_one_line(place: Path) -> None:
    folder = place / "terminated"
    process = start(place, folder.name)
    while len(written(folder)) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    send(process, signal.SIGTERM, "every process")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines()[-1] == "stopped; the same command continues, finished videos are kept"
    assert "Traceback" not in errors
    assert 3 <= len(written(folder)) < VIDEOS - 2


def in_this_process(place: Path, paths: list[str]) -> list[WindowFeatures]:
    """One video after the other."""
    data = {f"data.{split}": str(place / f"videos/{split}.parquet") for split in ("train", "val", "test")}
    found = find_trained(
        str(place / "weights.pth"), config=str(place / "experiment.yaml"), overrides=data, classes=None, log=print
    )
    model, windows = found.video_model(), sliding(found.config.test_clip, window="16", hop="1", to_the_end=False)
    return [
        with_each_decoder(model, path, lambda reader: features_of(model, reader, windows, "pooled")) for path in paths
    ]


@pytest.mark.slow
def test_faults_are_one_line_before_ray_starts(place: Path) -> None:
    (place / "other").mkdir(exist_ok=True)
    (place / "other/features.json").write_text("{}")
    done = run_here(SCRIPT, *arguments("other"), cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: --output: other: holds features of something else: checkpoint None")


@pytest.mark.long
def test_features_are_measured_beside_a_test_and_compared_with_a_killed_extraction(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place)
    with TerminalProgress() as progress:
        found = measure_features(
            "weights.pth", "experiment.yaml", tmp_path, videos=3, hop="1", rounds=1, progress=progress
        )
    assert (found.videos, found.same_bytes, found.files_when_killed > 0) == (3, 3, True)
    assert found.windows == sum(len(np.load(path)) for path in (tmp_path / "features").glob("*.npy"))
    assert min(found.features_clips_per_s, found.test_clips_per_s) > 1
