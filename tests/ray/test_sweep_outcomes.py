"""A sweep whose trials come to different ends: the others finish, and each is reported as what it is."""

import pytest
from sweep_records import read_sweep
from sweeping import swept_points

from morphmlp.config.sweep import SweepConfig

pytestmark = pytest.mark.long

GOOD = {"model.chunk_lengths": [8, 4, 4, 1], "model.mlp_ratio": 2.0, "optim.lr": 1e-3, "train.epochs": 1}
IMPOSSIBLE = {**GOOD, "model.chunk_lengths": [8, 4, 8, 1]}
CRASHES = {**GOOD, "model.mlp_ratio": 1e9}  # no machine has the memory
DIVERGES = {**GOOD, "optim.lr": 1e30}
SLOW = {**GOOD, "train.epochs": 100_000}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, make_config):
    """The result of a sweep with one point of each kind, as its JSON, the store, and the sweep's folder."""
    root = tmp_path_factory.mktemp("outcomes")
    config = make_config(
        model__embed_dims=[8, 8, 8, 8],
        clip__num_frames=4,
        optim__warmup_epochs=0,
        train__micro_batch_size=8,
        test__num_clips=1,
        test__num_crops=1,
        cluster__num_workers=1,
        cluster__max_failures=0,
        cluster__storage=str(root / "runs"),
        execution__max_skipped_steps=1,
    )
    sweep = SweepConfig(
        name="ends",
        experiment="none.yaml",
        overrides={},
        space={name: (value,) for name, value in GOOD.items()},
        max_concurrent_trials=2,
        max_trial_minutes=1.5,
    )
    points = [CRASHES, DIVERGES, SLOW, GOOD, IMPOSSIBLE]
    return swept_points(root, config, sweep, points, train=32, val=8)


def test_each_end_is_distinguished_and_the_others_finish(outcome):
    result, _, _ = outcome
    assert [trial["state"] for trial in result["trials"]] == ["failed", "diverged", "timed_out", "finished"]
    assert [point["values"] for point in result["impossible"]] == [IMPOSSIBLE]


def test_a_trial_that_did_not_finish_carries_its_reason_and_its_cpu_time(outcome):
    result, _, _ = outcome
    reasons = {trial["state"]: trial["error"] for trial in result["trials"]}
    assert "memory" in reasons["failed"]
    assert "isn't finite" in reasons["diverged"]
    assert reasons["timed_out"] == "it took longer than max_trial_minutes 1.5"
    assert reasons["finished"] is None
    assert all(trial["cpu_s"] > 0 for trial in result["trials"])


def test_the_record_says_the_same(outcome):
    result, uri, _ = outcome
    recorded = {trial.number: trial for trial in read_sweep(uri, result["parent_run_id"]).trials}
    assert len(recorded) == 4
    for trial in result["trials"]:
        assert recorded[trial["number"]].state == trial["state"]
        assert recorded[trial["number"]].error == trial["error"]


def test_the_report_names_every_end(outcome):
    result, _, folder = outcome
    page = (folder / "sweep_report.html").read_text(encoding="utf-8")
    for trial in result["trials"]:
        assert trial["state"].replace("_", " ") in page
    assert "must divide its 4 tokens" in page
