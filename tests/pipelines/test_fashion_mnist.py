"""Fashion-MNIST at its full size, where the package is installed: three storage forms, and what a training reaches."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.data.clips.extract import train_extractor
from morphmlp.data.decoding.isolation.isolated import Limits
from morphmlp.data.manifest import read_manifest
from morphmlp.data.stream.batches import clip_bytes
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import Cursor, TrainPlan

ROOT = Path(__file__).parents[2]
SOURCE = Path("/usr/share/datasets/fashion-mnist")
EXPERIMENT = ROOT / "experiments" / "fashion_mnist" / "morphmlp_mini.yaml"
FORMS = ("folder", "tar", "parquet")
PART = 64
"""Micro-batches that are decoded at a time."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not SOURCE.is_dir(), reason=f"needs {SOURCE}: apt install dataset-fashion-mnist"),
]


def run(*arguments, folder):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False, timeout=3000
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the data set in each form, and what the commands said."""
    root = tmp_path_factory.mktemp("fashion")
    prepare = ROOT / "pipelines" / "prepare.py"
    said = {
        form: run(prepare, "fashion-mnist", SOURCE, "--output", root / form, "--form", form, folder=root)
        for form in FORMS
    }
    return root, said


def epoch_digest(manifest):
    """A digest of all clips of an epoch as training gets them: ids, labels, pixels after augmentation."""
    config = load_config(EXPERIMENT)
    policy = DecodePolicy(decoder="pyav", retry_with=None, limits=Limits(timeout_s=60.0))
    decode = DecodeTask(extractor=train_extractor(config.clip, config.augment), policy=policy)
    plans = list(TrainPlan.of(config.train, num_videos=len(manifest)).micro_batches(Cursor(), worker=0, num_workers=1))
    digest, clips = hashlib.sha256(), 0
    for start in range(0, len(plans), PART):
        table = decode(request_table(manifest, plans[start : start + PART]))
        assert set(table["error"].to_pylist()) == {""}
        digest.update(clip_bytes(table["clips"]).numpy())
        digest.update(json.dumps([table["row"].to_pylist(), table["label"].to_pylist()]).encode())
        clips += len(table)
    return clips, digest.hexdigest()


def test_the_three_forms_give_identical_streams(prepared):
    root, said = prepared
    fingerprints = {form: [line.rpartition(" ")[2] for line in text.splitlines()] for form, text in said.items()}
    assert fingerprints["folder"] == fingerprints["tar"] == fingerprints["parquet"]
    assert [text.partition(":")[0] for text in fingerprints["folder"]] == ["57000", "3000", "10000"]
    found = {form: epoch_digest(read_manifest(root / form / "train.parquet")) for form in FORMS}
    assert found["folder"] == found["tar"] == found["parquet"]
    assert found["folder"][0] == 56_960  # whole steps of 64


def test_the_small_network_reaches_90_percent_of_the_official_test_images(prepared):
    root, _ = prepared
    data = [f"--data.{split}={root / 'parquet' / split}.parquet" for split in ("train", "val", "test")]
    options = ["--cluster.local_cpus", "3", "--run-name", "fashion", "--json", "result.json"]
    run(ROOT / "pipelines" / "train.py", "--config", EXPERIMENT, *data, *options, folder=root)
    result = json.loads((root / "result.json").read_text())
    assert (result["num_videos"], result["num_quarantined"]) == (10_000, 0)
    assert result["scores"]["top1"] >= 90
