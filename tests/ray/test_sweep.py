"""A small sweep from the command line, on a real local Ray and a real SQLite store: killed in the middle, resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_mapping
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.record import Tags
from morphmlp.tracking import read_runs

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SWEEP = """
name: tiny-sweep
experiment: tiny.yaml
overrides: {}
space:
  model.chunk_lengths: [[8, 4, 4, 1], [4, 4, 2, 1], [8, 4, 8, 1], [2, 2, 2, 1]]
"""
TITLES = ("[8 4 4 1]", "[4 4 2 1]", "[2 2 2 1]")
PATIENCE_S = 500


def command(folder, *arguments):
    return [sys.executable, str(ROOT / "tests" / "ray" / "sweep_giving_up.py"), *arguments], {
        "cwd": folder,
        "env": {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder / "home"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'record' / 'mlflow.db'}",
        },
        "text": True,
    }


def write_files(folder, make_config):
    write_demo_dataset(folder / "demo", train=32, val=8, test=8)
    tiny = config_to_mapping(
        make_config(
            model__embed_dims=[8, 8, 8, 8],
            clip__num_frames=4,
            optim__warmup_epochs=0,
            train__epochs=20,  # enough that a stop after the first one comes in time
            train__micro_batch_size=8,
            test__num_clips=1,
            test__num_crops=1,
            cluster__num_workers=1,
            cluster__storage="runs",
        )
    )
    # Relative, as in the experiments: a trial's processes must find them too.
    tiny["data"] = {split: f"demo/{split}.parquet" for split in ("train", "val", "test")}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    (folder / "sweep.yaml").write_text(SWEEP)


def logs(folder):
    """What each trial has reported, by its number."""
    files = sorted((folder / "runs" / "tiny-1").glob("tiny-1-*/trial.jsonl"))
    return {int(file.parent.name.split("-")[2]): file.read_text() for file in files}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, make_config):
    """The folder of a sweep that was killed when its third trial had a checkpoint, and resumed; what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    write_files(folder, make_config)
    arguments, options = command(folder, "--config", "sweep.yaml", "--run-name", "tiny-1")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as first:
        patience = time.monotonic() + PATIENCE_S
        while not list((folder / "runs" / "tiny-1").glob("tiny-1-003-*/checkpoints/*/complete.json")):
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < patience
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        plan, _ = first.communicate()
    before = logs(folder)
    arguments, options = command(folder, "--resume", "tiny-1", "--json", "result.json")
    done = subprocess.run(arguments, capture_output=True, timeout=PATIENCE_S, check=False, **options)
    assert done.returncode == 0, done.stderr
    return folder, plan, before, done


def test_the_plan_comes_first_and_the_table_closes(swept):
    _, plan, _, done = swept
    reason = "stage 3: chunk length 8 must divide its 4 tokens (2x2 at clip.crop_size 32)"
    assert f"model.chunk_lengths: {reason}" in plan
    for title in TITLES:
        assert title in plan
        assert title in done.stdout.partition("sweep_report.html")[0]


def test_a_trial_that_had_ended_is_not_run_again(swept):
    folder, _, before, _ = swept
    for number in (1, 2):
        assert '"event": "end"' in before[number]
        assert logs(folder)[number] == before[number]


def test_a_trial_that_was_given_up_stopped_and_handed_its_workers_to_the_next(swept):
    _, _, before, _ = swept
    assert '"state": "stopped", "error": "given up by the test"' in before[2]
    assert "test, 1 clip x 1 crop" not in before[2]
    assert "starting 1 training worker on" in before[3]


def test_only_trials_that_cannot_win_lose_their_checkpoints(swept):
    folder, _, _, _ = swept
    of = [list((folder / "runs" / "tiny-1").glob(f"tiny-1-00{n}-*/checkpoints/*/complete.json")) for n in (1, 2, 3)]
    assert [bool(found) for found in of] == [True, False, True]
    result = json.loads((folder / "result.json").read_text())
    assert [name[:10] for name in result["with_checkpoints"]] == ["tiny-1-001", "tiny-1-003"]
    assert result["freed_bytes"] > 0
    table = (folder / "runs" / "tiny-1" / "sweep_table.md").read_text(encoding="utf-8")
    assert "Checkpoints are kept of 2 trials" in table


def test_the_trial_that_was_killed_continues_from_its_checkpoint(swept):
    folder, _, before, _ = swept
    assert '"event": "end"' not in before[3]
    assert "continuing from step-" in logs(folder)[3].removeprefix(before[3])


def test_every_trial_ends_and_the_json_says_how(swept):
    folder, _, _, _ = swept
    result = json.loads((folder / "result.json").read_text())
    assert result["wall_s"] > 0
    assert [trial["title"] for trial in result["trials"]] == list(TITLES)
    assert [trial["state"] for trial in result["trials"]] == ["finished", "stopped", "finished"]
    for trial in result["trials"]:
        assert (trial["seed"], trial["run_id"] is None) == (0, False)
        assert min(trial["gmacs"], trial["params"], trial["cpu_s"]) > 0
        assert (trial["score"] is None) == (trial["state"] == "stopped")
    assert [point["values"] for point in result["impossible"]] == [{"model.chunk_lengths": [8, 4, 8, 1]}]


def test_the_terminal_shows_the_trials_and_nothing_of_rays(swept):
    _, _, _, done = swept
    ours = ("sweep: ", *(f"trial {number} {title}: " for number, title in enumerate(TITLES, start=1)))
    said = [line.split(" ", maxsplit=1) for line in done.stderr.splitlines()]  # the time of day, and the line
    assert [line for _, line in said if not line.startswith(ours)] == []
    assert "trial 3 [2 2 2 1]: top-1 " in done.stderr
    assert "Trial " not in done.stdout


def test_the_record_has_one_parent_with_the_report_and_a_child_for_each_trial(swept):
    folder, _, _, _ = swept
    result = json.loads((folder / "result.json").read_text())
    runs = read_runs(f"sqlite:///{folder / 'record' / 'mlflow.db'}", dataset="demo").set_index("run_id")
    assert list(runs.index[runs[f"tags.{Tags.KIND}"] == "sweep"]) == [result["parent_run_id"]]
    children = runs[runs[f"tags.{Tags.PARENT}"] == result["parent_run_id"]]
    finished = [trial for trial in result["trials"] if trial["state"] == "finished"]
    assert set(children.index) == {trial["run_id"] for trial in finished}
    for trial in finished:
        child = children.loc[trial["run_id"]]
        assert child["metrics.test/top1"] == trial["score"]
        assert json.loads(child[f"tags.{Tags.POINT}"]) == trial["point"]
    artifacts = {path.name for path in (folder / "record" / "artifacts" / result["parent_run_id"]).rglob("*")}
    assert {"sweep.yaml", "sweep_table.md", "sweep_report.html", "sweep_report.png"} <= artifacts


def test_the_winners_are_experiments_that_can_be_trained(swept):
    folder, _, _, _ = swept
    winners = list((folder / "runs" / "tiny-1" / "winners").glob("*.yaml"))
    assert winners
    assert all(load_config(file).dataset == "demo" for file in winners)


def test_no_file_lands_outside_of_storage_and_record_and_the_shared_clips_go(swept):
    folder, _, _, _ = swept
    assert {path.name for path in folder.iterdir()} <= {
        *("demo", "tiny.yaml", "sweep.yaml", "result.json", "runs", "record", "home")
    }
    assert not (folder / "home" / "ray_results").exists()
    assert {path.name for path in (folder / "runs").iterdir()} == {"tiny-1"}
    assert not (folder / "runs" / "tiny-1" / "clips").exists()
