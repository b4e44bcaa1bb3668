"""`pipelines/preflight.py` as a user runs it, on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml

from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset

ROOT = Path(__file__).parents[2]
CHECKS = {
    *("answer", "lost", "versions", "gpus", "files", "disk", "shm", "memory", "decode memory"),
    *("open files", "clock", "MLflow", "decoding", "all-reduce", "steps"),
}


@pytest.fixture
def workplace(tmp_path):
    """A small experiment, with two workers on CPUs."""
    write_demo_dataset(tmp_path / "videos", train=24, val=4, test=4)
    content = yaml.safe_load((ROOT / "experiments/demo/morphmlp_demo.yaml").read_text(encoding="utf-8"))
    content["data"] = {split: f"videos/{split}.parquet" for split in ("train", "val", "test")}
    content["train"] |= {"global_batch_size": 4, "micro_batch_size": 2, "precision": "fp32"}
    content["cluster"] |= {"device": "cpu"}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return tmp_path


def preflight(folder, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "pipelines/preflight.py"), "--config", "experiment.yaml", "--json", "out.json"],
        cwd=folder,
        env={**{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def results(shown):
    """The result of each check, from the table."""
    rows = [re.split(r"\s{2,}", line) for line in shown.partition("\n\n")[0].splitlines()[2:]]
    return {check: result for check, result, _ in rows}


@pytest.mark.slow
def test_a_sound_machine_is_green_and_the_record_has_the_report(workplace):
    store = f"sqlite:///{workplace / 'mlflow.db'}"
    done = preflight(workplace, MLFLOW_TRACKING_URI=store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "green: nothing wrong on 1 node"
    assert results(done.stdout) == dict.fromkeys(CHECKS, "ok")
    found = json.loads((workplace / "out.json").read_text(encoding="utf-8"))
    (pair,), (node,), steps = found["report"]["pairs"], found["report"]["nodes"], found["report"]["steps"]
    assert pair["bytes_per_s"] > 0
    assert node["decoded"]["videos"] == 16
    assert node["decoded"]["clips_per_s"] > 0
    assert (steps["steps"], steps["workers"], steps["skipped"]) == (3, 2, 0)
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("preflight").experiment_id])
    assert run.info.status == "FINISHED"
    kept = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/preflight.json")
    assert kept == found
    assert not list((workplace / "runs").iterdir())


@pytest.mark.long
def test_what_is_wrong_is_named_next_to_what_is_right(workplace):
    broken = read_manifest(workplace / "videos/test.parquet").table["path"][0].as_py()
    (workplace / broken).write_bytes(b"no video")
    done = preflight(workplace, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 2
    assert results(done.stdout) == dict.fromkeys(CHECKS, "ok") | {"MLflow": "1 fault", "decoding": "1 fault"}
    record, decoding = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert record.startswith("error: MLflow: this machine: tracking store http://127.0.0.1:9: no answer")
    assert f"1 of 16 videos don't decode, as {broken} (" in decoding
    assert not json.loads((workplace / "out.json").read_text(encoding="utf-8"))["green"]
