"""A small sweep from the command line, on a real local Ray and a real SQLite store; and trials that die."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from morphmlp.config.loading import config_to_mapping, config_to_yaml
from morphmlp.data.synthetic import write_demo_dataset
from morphmlp.record import Tags
from morphmlp.tracking import find_run, read_runs
from morphmlp.tuning.ray_trials import TrialJob, run_trials
from morphmlp.tuning.trial_log import TrialView

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SWEEP = """
name: tiny-sweep
experiment: tiny.yaml
overrides: {}
grid:
  model.chunk_lengths: [[8, 4, 4, 1], [4, 4, 2, 1], [8, 4, 8, 1]]
max_concurrent_trials: 2
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, make_config):
    """The folder in which `pipelines/sweep.py` ran, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    write_demo_dataset(folder / "demo", train=32, val=8, test=8)
    tiny = config_to_mapping(
        make_config(
            model__embed_dims=[8, 8, 8, 8],
            clip__num_frames=4,
            optim__warmup_epochs=0,
            train__epochs=1,
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
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "pipelines" / "sweep.py"),
            *("--config", "sweep.yaml", "--run-name", "tiny-1", "--json", "result.json"),
        ],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder / "home"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'record' / 'mlflow.db'}",
        },
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_plan_comes_first_and_the_table_closes(swept):
    _, done = swept
    plan, _, rest = done.stdout.partition("Impossible, left out: 1")
    assert plan.startswith("Points: 2\n\n| chunk lengths   |")
    reason = "stage 3: chunk length 8 must divide its 4 tokens (2x2 at clip.crop_size 32)"
    assert f"- [8 4 8 1]: model.chunk_lengths: {reason}" in rest
    rows = [line for line in rest.splitlines() if line.startswith("| [")]
    assert [row.split("|")[1].strip() for row in rows] == ["[8 4 4 1]", "[4 4 2 1]"]
    assert all("| finished |" in row for row in rows)


def test_the_terminal_shows_the_trials_and_nothing_of_rays(swept):
    _, done = swept
    ours = ("sweep: ", "trial 1/2 [8 4 4 1]: ", "trial 2/2 [4 4 2 1]: ")
    assert [line for line in done.stderr.splitlines() if not line.startswith(ours)] == []
    assert "trial 2/2 [4 4 2 1]: top-1 " in done.stderr
    assert "Trial " not in done.stdout


def test_the_json_holds_every_trial_and_every_impossible_point(swept):
    folder, _ = swept
    result = json.loads((folder / "result.json").read_text())
    assert result["wall_s"] > 0
    assert [trial["point"] for trial in result["trials"]] == [
        {"model.chunk_lengths": [8, 4, 4, 1]},
        {"model.chunk_lengths": [4, 4, 2, 1]},
    ]
    for trial in result["trials"]:
        assert (trial["state"], trial["num_videos"], trial["error"]) == ("finished", 8, None)
        assert 0 <= trial["top1"] <= trial["top5"] <= 100
        assert trial["gmacs"] > 0
        assert trial["params"] > 0
    assert [point["values"] for point in result["impossible"]] == [{"model.chunk_lengths": [8, 4, 8, 1]}]


def test_the_record_has_a_parent_with_table_and_figure_and_a_child_for_each_trial(swept):
    folder, _ = swept
    result = json.loads((folder / "result.json").read_text())
    runs = read_runs(f"sqlite:///{folder / 'record' / 'mlflow.db'}", dataset="demo").set_index("run_id")
    parent = runs.loc[result["parent_run_id"]]
    assert parent[f"tags.{Tags.KIND}"] == "sweep"
    children = runs[runs[f"tags.{Tags.PARENT}"] == result["parent_run_id"]]
    assert set(children.index) == {trial["run_id"] for trial in result["trials"]}
    assert set(children["run_name"]) == {"tiny-1-001-8-4-4-1", "tiny-1-002-4-4-2-1"}
    for trial in result["trials"]:
        child = children.loc[trial["run_id"]]
        assert child["metrics.test/top1"] == trial["top1"]
        assert json.loads(child[f"tags.{Tags.POINT}"]) == trial["point"]
    artifacts = {path.name for path in (folder / "record" / "artifacts" / parent.name / "artifacts").rglob("*")}
    assert {"sweep.yaml", "sweep_table.md", "sweep.png"} <= artifacts


def test_no_file_lands_outside_of_storage_and_record(swept):
    folder, _ = swept
    assert {path.name for path in folder.iterdir()} <= {
        *("demo", "tiny.yaml", "sweep.yaml", "result.json", "runs", "record", "home")
    }
    assert not (folder / "home" / "ray_results").exists()
    assert {path.name for path in (folder / "runs").iterdir()} == {"tiny-1"}


class Screen:
    def phase(self, title, *, total, unit):
        pass

    def update(self, done, note=""):
        pass

    def line(self, text):
        pass


def test_a_trial_that_dies_stops_no_other_and_each_carries_its_reason(make_config, placement, tmp_path):
    def job(name, storage):
        config = make_config(cluster__storage=str(storage))
        return TrialJob(
            config=config,
            run_name=name,
            parent_run_id="none",
            point={},
            uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
            working_folder=str(tmp_path),
        )

    (tmp_path / "file").write_text("where a folder should be")
    taken = tmp_path / "runs" / "taken" / "experiment.yaml"
    taken.parent.mkdir(parents=True)
    taken.write_text(config_to_yaml(make_config(optim__lr=0.5)))
    jobs = [job("mute", tmp_path / "file"), job("taken", tmp_path / "runs")]
    views = [TrialView(name=job.run_name, path=job.log) for job in jobs]
    run_trials(jobs, views, placement, at_once=1, folder=tmp_path / "sweep", progress=Screen())
    assert "NotADirectoryError" in (views[0].reason or "")
    assert "holds another experiment (optim.lr: 0.5 -> 0.001)" in (views[1].reason or "")
    assert find_run(f"sqlite:///{tmp_path / 'mlflow.db'}", run_name="mute") is None
