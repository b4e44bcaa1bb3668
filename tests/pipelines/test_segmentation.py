"""Segmentation as a user gets to it: from drawn scenes to a table, and from image weights."""

import base64
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from http_requests import Server
from PIL import Image
from run_here import run_here

from morphmlp.benchmarks.serving_load import measure_running_server, running_server
from morphmlp.evaluation.score_store import ScoreStore
from morphmlp.prediction.features import scene_features, source_of
from morphmlp.prediction.scenes import SceneModel
from morphmlp.prediction.sliding import sliding
from morphmlp.prediction.trained import find_trained

ROOT = Path(__file__).parents[2]
SCENES = ROOT / "experiments" / "demo" / "scenes.yaml"
STILLS = ROOT / "experiments" / "demo" / "stills.yaml"
SEED = os.environ.get("SEGMENTATION_SEED", "0")
"""Of the trainings that are compared."""


def run(folder, script, *arguments):
    done = subprocess.run(
        [sys.executable, str(ROOT / "pipelines" / script), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def here(folder, script, *arguments):
    """The same in this process, of what starts no Ray."""
    done = run_here(ROOT / "pipelines" / script, *arguments, cwd=folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def trained(folder, name, config, *fields):
    """The result of a training, as its `--json` has it."""
    run(folder, "train.py", "--config", config, "--run-name", name, *fields, "--json", f"{name}.json")
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder with `build/demo_scenes`, as the experiment file names it."""
    folder = tmp_path_factory.mktemp("scenes")
    here(folder, "prepare.py", "standin", "ade20k", "--output", "build/demo_scenes")
    return folder


@pytest.fixture(scope="module")
def scenes_run(scenes):
    """The result of a short training on the scenes."""
    shorter = ("--train.steps", "200", "--execution.validate_every_steps", "200")
    return trained(scenes, "scenes", SCENES, *shorter)


@pytest.mark.slow
def test_drawn_scenes_are_segmented_far_better_than_by_single_pixels(scenes, scenes_run):
    manifests = ("--train", "build/demo_scenes/train.parquet", "--test", "build/demo_scenes/val.parquet")
    here(scenes, "benchmark.py", "segmentation-baselines", *manifests, "--json", "baselines.json")
    baselines = json.loads((scenes / "baselines.json").read_text())
    assert [found["images"] for found in baselines] == [160, 160]
    result = scenes_run
    low, high = result["intervals"]["miou"]
    assert low < result["scores"]["miou"] < high
    assert low > max(found["miou"] for found in baselines) + 15
    assert (result["num_videos"], result["items"]) == (160, "images")
    table = here(scenes, "tables.py", "--dataset", "demo-scenes")
    (row,) = (line.split("|") for line in table.splitlines() if line.startswith("| demo-scenes"))
    cells = [cell.strip() for cell in row]
    assert {f"{result['score']:.1f}", f"{low:.1f} to {high:.1f}", "160"} <= set(cells)
    here(scenes, "export_label_maps.py", "scenes", "--output", "submission")
    assert len(list((scenes / "submission").glob("ADE_val_*.png"))) == 160


@pytest.mark.slow
def test_a_run_is_served_by_ray_serve_with_the_label_maps_of_predict_and_measured_under_load(
    scenes, scenes_run, monkeypatch
):
    monkeypatch.chdir(scenes)
    images = scenes / "build" / "demo_scenes" / "images" / "validation"
    paths = sorted(images.iterdir())[:8]
    found = find_trained("scenes", config=None, overrides={}, classes=None, log=lambda line: None)
    model = SceneModel(found)
    right = {path: model.label_map(str(path))[1] for path in paths}
    uploads = scenes / "uploads"
    arguments = ("--checkpoint", "scenes", "--allowed-folder", str(images), "--upload-folder", str(uploads))
    with running_server(arguments) as (process, port), ThreadPoolExecutor(8) as clients:
        http = Server(port)
        assert http.request("GET", "/info")[2]["segments"]
        for ask in (http.upload, http.ask):
            answers = list(clients.map(lambda path, ask=ask: ask(path, answer="both"), paths))
            for (status, answer), path in zip(answers, paths, strict=True):
                assert (status, answer["height"]) == (200, len(right[path]))
                served = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["map"]))))
                assert (served != right[path]).mean() < 1e-3  # sums of more threads are rounded otherwise
        load = measure_running_server(process.pid, port, uploads, list(map(str, paths)), requests=8, clients=4)
    assert (load.requests, load.lost, load.files_left) == (8, 0, 0)
    assert load.recovered_s > 0


@pytest.mark.slow
def test_features_of_a_runs_images_are_written_over_ray(scenes, scenes_run, monkeypatch):
    monkeypatch.chdir(scenes)
    (scenes / "some").mkdir()
    for image in sorted((scenes / "build" / "demo_scenes" / "images" / "validation").iterdir())[:6]:
        (scenes / "some" / image.name).symlink_to(image)
    (scenes / "some" / "broken.jpg").write_text("no image")
    said = run(scenes, "features.py", "some", "--checkpoint", "scenes", "--stage", "4", "--output", "of-images")
    assert "6 windows of 1x1 every 1 frame with 128 channels (4), of 6 files" in said
    assert "no features: broken (" in said
    index = pq.read_table(scenes / "of-images" / "features.parquet").to_pylist()
    assert [row["num_windows"] for row in index if not row["error"]] == [1] * 6
    assert {Path(row["output"]).name for row in index if not row["error"]} == {
        path.name for path in (scenes / "of-images").glob("*.npy")
    }
    model = SceneModel(find_trained("scenes", config=None, overrides={}, classes=None, log=lambda line: None))
    windows = sliding(model.config.test_clip, window=None, hop=None, to_the_end=False)
    for row in index:
        if not row["error"]:
            alone = scene_features(model, source_of(row), windows, "4").values
            np.testing.assert_allclose(np.load(row["output"]), alone, atol=1e-5)


@pytest.mark.long
def test_an_evaluation_of_a_run_gives_the_scores_of_the_test_at_its_end(scenes, scenes_run):
    run(scenes, "evaluate.py", "--checkpoint", "scenes", "--scores", "again", "--json", "again.json")
    again = json.loads((scenes / "again.json").read_text())
    assert (again["evaluates"], again["num_scored_now"], again["items"]) == (scenes_run["run_id"], 160, "images")
    assert again["scores"] == scenes_run["scores"]
    anew, at_its_end = ScoreStore.open(scenes / "again"), ScoreStore.open(scenes / "runs" / "scenes" / "scores")
    assert anew.read() == at_its_end.read()
    assert anew.header.weights_sha256 == at_its_end.header.weights_sha256


def write_patches(source, target, *, patches=8, side=48):
    """Class folders of pieces of the training scenes, named by what stands in their middle."""
    names = [line.split("\t")[-1] for line in (source / "objectInfo150.txt").read_text().splitlines()[1:]]
    rng = np.random.default_rng(0)
    for number, image in enumerate(sorted((source / "images" / "training").iterdir())):
        pixels = Image.open(image).convert("RGB")
        labels = np.asarray(Image.open(source / "annotations" / "training" / f"{image.stem}.png"))
        for patch in range(patches):
            top, left = (int(rng.integers(0, length - side + 1)) for length in labels.shape)
            if label := int(labels[top + side // 2, left + side // 2]):
                folder = target / ("val" if number % 10 == 0 else "train") / names[label - 1]
                folder.mkdir(parents=True, exist_ok=True)
                pixels.crop((left, top, left + side, top + side)).save(folder / f"{image.stem}_{patch}.png")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_image_weights_give_more_than_fresh_ones_after_as_many_steps(scenes):
    """The backbone has learnt before what pieces of the scenes show in their middle."""
    write_patches(scenes / "build" / "demo_scenes", scenes / "patches")
    run(scenes, "prepare.py", "folder", "--train", "patches/train", "--val", "patches/val", "--output", "build/patches")
    manifests = {"train": "train", "val": "val", "test": "val"}
    data = [text for split, name in manifests.items() for text in (f"--data.{split}", f"build/patches/{name}.parquet")]
    sizes = ("--model.num_classes", "8", "--model.chunk_lengths", "[16, 8, 16, 4]")
    sizes += ("--clip.crop_size", "64", "--clip.short_edge", "64")
    images = trained(scenes, "images", STILLS, *sizes, *data)
    short = ("--train.steps", "100", "--execution.validate_every_steps", "100", "--train.seed", SEED)
    fresh = trained(scenes, "fresh", SCENES, *short)
    tuned = trained(scenes, "tuned", SCENES, *short, "--start-from", "runs/images")
    print(f"images: top-1 {images['score']:.2f}; fresh {fresh['score']:.2f}, tuned {tuned['score']:.2f} mIoU")
    assert tuned["score"] > fresh["score"] + 2
