"""A sweep whose every process gets SIGTERM: its trial saves, records are closed, and nothing of Ray's is printed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from signals import send

from morphmlp.config.loading import config_to_mapping
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.tracking import find_run
from morphmlp.training.checkpoint.store import CheckpointStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SWEEP = """
name: endless
experiment: endless.yaml
overrides: {}
space: {optim.lr: [1.0e-3, 2.0e-3]}
max_concurrent_trials: 1
"""
PATIENCE_S = 500


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, make_config):
    """The folder of a sweep whose processes all got SIGTERM in its first trial, its exit code, and what it said."""
    folder = tmp_path_factory.mktemp("stopped")
    temporary = tempfile.mkdtemp(prefix="")  # short enough for Ray's sockets
    write_demo_dataset(folder / "demo", train=32, val=8, test=8)
    config = make_config(
        train__epochs=2000,
        optim__warmup_epochs=0,
        execution__report_every_steps=1,
        execution__validate_every_epochs=2000,
        checkpoint__every_epochs=None,  # none but that of the stop
        checkpoint__every_minutes=None,
        cluster__num_workers=1,
        cluster__storage="runs",
    )
    content = config_to_mapping(config)
    content["data"] = {split: f"demo/{split}.parquet" for split in ("train", "val", "test")}
    (folder / "endless.yaml").write_text(yaml.safe_dump(content))
    (folder / "sweep.yaml").write_text(SWEEP)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    uri = f"sqlite:///{folder / 'record' / 'mlflow.db'}"
    with subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines/sweep.py"), "--config", "sweep.yaml", "--run-name", "sweep"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": uri, "TMPDIR": temporary},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        patience = time.monotonic() + PATIENCE_S
        progress = folder / "runs" / "sweep" / "sweep-001-0.001" / "progress.jsonl"
        while not progress.exists() or progress.read_text().count('"total_steps"') < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience, list(folder.glob("runs/sweep/*"))
            time.sleep(0.1)
        send(process, signal.SIGTERM, "every process")
        _, said = process.communicate(timeout=PATIENCE_S)
    left = [path.name for path in Path(temporary).iterdir()]
    shutil.rmtree(temporary)
    return SimpleNamespace(folder=folder, uri=uri, code=process.returncode, said=said, left=left)


def test_it_says_how_to_continue_and_nothing_of_rays(stopped):
    assert stopped.code == 143, stopped.said
    lines = stopped.said.splitlines()
    assert lines[-1] == "stopped; continue with python pipelines/sweep.py --resume runs/sweep"
    assert any("SIGTERM: the trials stop after this step" in line for line in lines)
    assert not [line for line in lines if "Traceback" in line or "***" in line or "error" in line.lower()]


def test_the_trial_that_was_at_work_has_saved_and_has_not_ended(stopped):
    sweep = stopped.folder / "runs" / "sweep"
    (checkpoint,) = CheckpointStore.of(str(sweep), "sweep-001-0.001").stored()
    assert checkpoint.facts.step >= 3
    assert '"event": "end"' not in (sweep / "sweep-001-0.001" / "trial.jsonl").read_text()
    assert not list(sweep.glob("sweep-002-*"))


def test_every_record_is_closed_as_stopped(stopped):
    for name in ("sweep", "sweep-001-0.001"):
        run = find_run(stopped.uri, run_name=name, experiment="demo")
        assert run is not None
        assert run.status == "KILLED", name


def test_the_log_has_it_and_no_temporary_folder_stays(stopped):
    assert "SIGTERM: the trials stop" in (stopped.folder / "runs" / "sweep" / "log.txt").read_text()
    assert [name for name in stopped.left if name.startswith("mmlp-")] == []
