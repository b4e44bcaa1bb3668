"""Fashion-MNIST at its full size, where the package is installed: three storage forms, and what a training reaches."""

import hashlib
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.data.clips.extract import train_extractor
from morphmlp.data.decoding.isolation.isolated import Limits
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage, image_bytes
from morphmlp.data.manifest import read_manifest
from morphmlp.data.stream.batches import clip_bytes
from morphmlp.data.stream.decode_task import DecodePolicy, DecodeTask, request_table
from morphmlp.data.stream.plan import Cursor, TrainPlan

ROOT = Path(__file__).parents[2]
SOURCE = Path("/usr/share/datasets/fashion-mnist")
EXPERIMENT = ROOT / "experiments" / "fashion_mnist" / "morphmlp_mini.yaml"
FORMS = ("folder", "tar", "parquet")
SPLITS = ("train", "val", "test")
MICRO_BATCHES = 20

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


def content_digest(folder):
    """A digest of all images of all splits: ids, labels, and bytes where the manifests say that they lie."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for row in read_manifest(folder / f"{split}.parquet").table.to_pylist():
            digest.update(f"{split} {row['video_id']} {row['label']}\n".encode())
            digest.update(image_bytes(row["path"], StoredImage.of(row)))
    return digest.hexdigest()


def stream_digest(folder):
    """A digest of the first training clips of an epoch, as the network gets them: rows, labels, augmented pixels."""
    manifest, config = read_manifest(folder / "train.parquet"), load_config(EXPERIMENT)
    policy = DecodePolicy(decoder="pyav", retry_with=None, limits=Limits(timeout_s=60.0))
    decode = DecodeTask(extractor=train_extractor(config.clip, config.augment), policy=policy)
    plans = TrainPlan.of(config.train, num_videos=len(manifest)).micro_batches(Cursor(), worker=0, num_workers=1)
    table = decode(request_table(manifest, list(islice(plans, MICRO_BATCHES))))
    assert set(table["error"].to_pylist()) == {""}
    digest = hashlib.sha256(clip_bytes(table["clips"]).numpy())
    digest.update(json.dumps([table["row"].to_pylist(), table["label"].to_pylist()]).encode())
    return digest.hexdigest()


def test_the_three_forms_give_identical_streams(prepared):
    root, said = prepared
    fingerprints = {form: [line.rpartition(" ")[2] for line in text.splitlines()] for form, text in said.items()}
    assert fingerprints["folder"] == fingerprints["tar"] == fingerprints["parquet"]
    assert [text.partition(":")[0] for text in fingerprints["folder"]] == ["57000", "3000", "10000"]
    for digest in (content_digest, stream_digest):
        found = {form: digest(root / form) for form in FORMS}
        assert found["folder"] == found["tar"] == found["parquet"]


def test_the_small_network_reaches_90_percent_of_the_official_test_images(prepared):
    root, _ = prepared
    data = [f"--data.{split}={root / 'parquet' / split}.parquet" for split in SPLITS]
    options = ["--cluster.local_cpus", "3", "--run-name", "fashion", "--json", "result.json"]
    run(ROOT / "pipelines" / "train.py", "--config", EXPERIMENT, *data, *options, folder=root)
    result = json.loads((root / "result.json").read_text())
    assert (result["num_videos"], result["num_quarantined"]) == (10_000, 0)
    assert result["scores"]["top1"] >= 90
