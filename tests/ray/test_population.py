"""A population on a real local Ray: a member far behind goes on with another one's weights under other values."""

import pytest

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_mapping
from morphmlp.config.sweep import PopulationSearch, Range, SweepConfig
from morphmlp.data.synthetic import write_demo_dataset
from morphmlp.tracking import read_runs
from morphmlp.training.run_events import read_events
from morphmlp.training.run_folder import RunFolder
from morphmlp.tuning.ray_sweep import run_sweep
from morphmlp.tuning.space import Planner, Space
from morphmlp.tuning.sweep_folder import SweepFolder

pytestmark = pytest.mark.long


class Screen:
    def phase(self, title, *, total, unit):
        pass

    def update(self, done, note=""):
        pass

    def line(self, text):
        print(text)


def test_a_member_far_behind_goes_on_with_the_best_ones_weights(tmp_path, make_config, monkeypatch):
    write_demo_dataset(tmp_path / "demo", train=160, val=32, test=8)
    base = config_to_mapping(
        make_config(
            mixing__mixup=0.0,
            mixing__cutmix=0.0,
            optim__warmup_epochs=0,
            optim__min_lr=0.0,
            train__epochs=4,
            train__micro_batch_size=8,
            test__num_clips=1,
            test__num_crops=1,
            cluster__num_workers=1,
            cluster__storage=str(tmp_path / "runs"),
        )
    )
    base["data"] = {split: str(tmp_path / "demo" / f"{split}.parquet") for split in ("train", "val", "test")}
    sweep = SweepConfig(
        name="people",
        experiment="none.yaml",
        overrides={},
        space={"optim.lr": Range(low=1e-9, high=1e-2, log=True)},
        search=PopulationSearch(kind="population", size=2, quantile=0.5),
        max_concurrent_trials=2,
    )
    planner = Planner(sweep, base)
    space = Space(points=tuple(planner.point({"optim.lr": rate}) for rate in (1e-9, 3e-3)), impossible=())
    folder = SweepFolder(root=tmp_path / "runs" / "people-1")
    folder.begin(sweep, base)
    uri = f"sqlite:///{tmp_path / 'record' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = run_sweep(sweep, base, space, folder, progress=Screen())
    assert [trial.state for trial in result.trials] == ["finished", "finished"]
    events = {trial.run_name: read_events(RunFolder(folder.root / trial.run_name).events) for trial in result.trials}
    changed = [trial for trial in result.trials if events[trial.run_name]]
    assert changed
    for trial in changed:
        run = RunFolder(folder.root / trial.run_name)
        assert "goes on from" in events[trial.run_name][0].text
        assert load_config(run.experiment).optim.lr != trial.point["optim.lr"]
        assert not (run.root / "take-over.json").exists()
    runs = read_runs(uri, dataset="demo")
    assert sorted(runs["run_name"]) == sorted(["people-1", *events])
