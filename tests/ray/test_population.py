"""A population on a real local Ray: a member far behind continues from another one's weights with other values."""

import pytest
from sweeping import swept_points

from morphmlp.config import load_config
from morphmlp.config.sweep import PopulationSearch, Range, SweepConfig
from morphmlp.tracking import read_runs
from morphmlp.training.record.run_events import read_events
from morphmlp.training.record.run_folder import RunFolder

pytestmark = pytest.mark.long


def test_a_member_far_behind_exploits_the_best(tmp_path, make_config):
    config = make_config(
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
    sweep = SweepConfig(
        name="people",
        experiment="none.yaml",
        overrides={},
        space={"optim.lr": Range(low=1e-9, high=1e-2, log=True)},
        search=PopulationSearch(kind="population", size=2, quantile=0.5),
        max_concurrent_trials=2,
    )
    points = [{"optim.lr": rate} for rate in (1e-9, 3e-3)]
    result, uri, folder = swept_points(tmp_path, config, sweep, points, train=160, val=32)
    assert [trial["state"] for trial in result["trials"]] == ["finished", "finished"]
    events = {
        trial["run_name"]: read_events(RunFolder(folder / trial["run_name"]).events) for trial in result["trials"]
    }
    changed = [trial for trial in result["trials"] if events[trial["run_name"]]]
    assert changed
    for trial in changed:
        run = RunFolder(folder / trial["run_name"])
        assert "continues from" in events[trial["run_name"]][0].text
        assert load_config(run.experiment).optim.lr != trial["point"]["optim.lr"]
        assert not (run.root / "exploit.json").exists()
    runs = read_runs(uri, dataset="demo")
    assert sorted(runs["run_name"]) == sorted(["people", *events])
