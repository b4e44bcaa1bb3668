"""`pipelines/evaluate.py --rescore` as a user runs it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_here import run_here
from view_scores import names, view_logits, write_scenes, write_store

from morphmlp.data.manifest import manifest_from_rows
from morphmlp.errors import MorphMLPError
from morphmlp.tasks.answers import answers_of
from morphmlp.tasks.segmentation.confusion import outcome_of

SCRIPT = Path(__file__).parents[2] / "pipelines" / "evaluate.py"
LOGITS, LABELS = view_logits(50, 6, 6, lean=0.3)
OTHERS = view_logits(50, 6, 6, seed=2)[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Stores of two tests on the same videos, one of fewer, and two of segmented images."""
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "a", LOGITS, LABELS, clips=3, crops=2, run_name="one")
    write_store(folder / "b", OTHERS, LABELS, clips=3, crops=2, run_name="two")
    write_store(folder / "few", OTHERS[:40], LABELS[:40], clips=3, crops=2, run_name="few")
    for seed in (0, 1):
        segmented(folder / f"scenes{seed}", seed=seed)
    return folder


def segmented(folder, *, seed, images=12, classes=4):
    rng = np.random.default_rng(7)
    guesses = np.random.default_rng(seed)
    outcomes = {}
    for row in range(images):
        labels = rng.integers(0, classes, (9, 11)).astype(np.uint8)
        found = np.where(guesses.random((9, 11)) < 0.5 + 0.3 * seed, labels, guesses.integers(0, classes, (9, 11)))
        outcomes[row] = outcome_of(found.astype(np.uint8), labels, num_classes=classes, loss=0.5)
    manifest = manifest_from_rows(
        video_ids=names(images),
        paths=["v.jpg"] * images,
        labels=[0] * images,
        splits=["test"] * images,
        sizes_bytes=[1] * images,
        class_names=[f"class {number}" for number in range(classes)],
    )
    write_scenes(folder, outcomes, manifest, manifest_path="/nowhere/val.parquet", run_name=f"scenes{seed}")


def evaluated(place, *words, options=()):
    command = [sys.executable, *options, str(SCRIPT), *words]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=120)


def test_an_ensemble_of_some_views_is_scored_compared_and_reported(place):
    ran = evaluated(
        place,
        *("--rescore", "a", "b", "--num-clips", "1", "--against", "b", "--fold", "mean-logits"),
        *("--report", "report", "--json", "found.json"),
        options=("-X", "importtime"),
    )
    assert ran.returncode == 0, ran.stderr
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "morphmlp.evaluation.rescoring" in imported
    assert not imported & {"torch", "ray", "mlflow"}
    found = json.loads((place / "found.json").read_text())
    middle = (LOGITS[:, 2:4].mean(axis=1) + OTHERS[:, 2:4].mean(axis=1)) / 2
    expected, other = answers_of(middle, LABELS), answers_of(OTHERS.mean(axis=1), LABELS)
    assert found["scores"] == pytest.approx(dict(expected.values()), rel=1e-5)
    assert found["comparison"]["only_first"] == np.sum(expected.right & ~other.right)
    assert found["against"]["scores"]["top1"] == pytest.approx(other.top1.value)
    assert "one + two against two: top-1 " in ran.stdout
    assert "no pictures: " in (place / "report" / "report.html").read_text()


@pytest.mark.slow
def test_segmented_images_are_scored_and_compared_by_paired_bootstrap(place):
    words = ("--rescore", "scenes1", "--against", "scenes0", "--report", "scenes", "--json", "scenes.json")
    ran = run_here(SCRIPT, *words, cwd=place)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((place / "scenes.json").read_text())
    assert found["comparison"]["miou"]["difference"]["low"] > 0
    assert found["intervals"]["miou"][0] < found["scores"]["miou"] < found["intervals"]["miou"][1]
    assert "scenes1 against scenes0 on the same 12 images: mIoU +" in ran.stdout
    assert "scenes1 against scenes0" in (place / "scenes" / "report.html").read_text()


FAULTS = {
    "--rescore a few": "--intersect scores on the 40 that all have",
    "--rescore a --clips 4": "--clips 4: the scores have clips 1 to 3, and no 4",
    "--rescore a --test.num-clips 2": "--test.num-clips: --rescore tests nothing anew; stored views are chosen by",
    "--rescore a --agianst b": "--agianst: unknown option; did you mean --against?",
    "--rescore a --checkpoint first": "--checkpoint: --rescore takes stores alone",
    "--rescore scenes0 --num-clips 1": "--num-clips: scenes0 holds segmented images, of which one answer each",
    "--rescore scenes0 scenes1": "several stores: scenes0 holds segmented images",
    "--rescore a scenes0": "scenes0 is of task segmentation, a of classification",
    "--rescore nowhere": "nowhere: no score store is there",
    "--rescore a --intersect": "--intersect: needs a second store",
    "--checkpoint first --num-clips 2": "--num-clips: needs --rescore STORE",
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_cant_be_rescored_is_refused_in_one_line(place, words, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    command = importlib.import_module("evaluate").main
    with pytest.raises(MorphMLPError) as caught:
        command.main(words.split(), standalone_mode=False)
    assert FAULTS[words] in str(caught.value)
    assert "\n" not in str(caught.value)
