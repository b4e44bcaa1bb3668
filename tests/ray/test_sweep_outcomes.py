"""A sweep whose trials come to different ends: the others finish, and each is told apart."""

import dataclasses
from pathlib import Path

import pytest

from morphmlp.config.loading import config_to_mapping
from morphmlp.config.sweep import SweepConfig
from morphmlp.data.synthetic import write_demo_dataset
from morphmlp.tuning.ray_sweep import run_sweep
from morphmlp.tuning.space import ImpossiblePoint, Planner, Space
from morphmlp.tuning.sweep_folder import SweepFolder
from morphmlp.tuning.sweep_record import read_sweep

pytestmark = pytest.mark.slow

GOOD = {"model.chunk_lengths": [8, 4, 4, 1]}
IMPOSSIBLE = {"model.chunk_lengths": [8, 4, 8, 1]}
CRASHES = {"model.mlp_ratio": 1e9}  # no machine has the memory
DIVERGES = {"optim.lr": 1e30}
SLOW = {"train.epochs": 100_000}


class Screen:
    def phase(self, title, *, total, unit):
        pass

    def update(self, done, note=""):
        pass

    def line(self, text):
        pass


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, make_config):
    """The result of a sweep with one point of each kind, the store, and the folder."""
    root = tmp_path_factory.mktemp("outcomes")
    write_demo_dataset(root / "demo", train=32, val=8, test=8)
    base = config_to_mapping(
        make_config(
            model__embed_dims=[8, 8, 8, 8],
            clip__num_frames=4,
            optim__warmup_epochs=0,
            train__epochs=1,
            train__micro_batch_size=8,
            test__num_clips=1,
            test__num_crops=1,
            cluster__num_workers=1,
            cluster__max_failures=0,
            cluster__storage=str(root / "runs"),
            execution__max_skipped_steps=1,
        )
    )
    base["data"] = {split: str(root / "demo" / f"{split}.parquet") for split in ("train", "val", "test")}
    sweep = SweepConfig(
        name="ends",
        experiment="none.yaml",
        overrides={},
        space={"optim.lr": (1e-3,)},
        max_concurrent_trials=2,
        max_trial_minutes=0.6,
    )
    planner = Planner(sweep, base)
    points = [planner.point(values) for values in (CRASHES, DIVERGES, SLOW, GOOD, IMPOSSIBLE)]
    space = Space(
        points=tuple(point for point in points if not isinstance(point, ImpossiblePoint)),
        impossible=tuple(point for point in points if isinstance(point, ImpossiblePoint)),
    )
    folder = SweepFolder(root=root / "runs" / "ends-1")
    folder.begin(sweep, base)
    uri = f"sqlite:///{root / 'record' / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.delenv("RAY_ADDRESS", raising=False)
        result = run_sweep(sweep, base, space, folder, progress=Screen())
    return result, uri, folder


def test_each_end_is_told_apart_and_the_others_finish(outcome):
    result, _, _ = outcome
    assert {next(iter(trial.point)): trial.state for trial in result.trials} == {
        "model.mlp_ratio": "failed",
        "optim.lr": "diverged",
        "train.epochs": "timed_out",
        "model.chunk_lengths": "finished",
    }
    assert [point.values for point in result.impossible] == [IMPOSSIBLE]


def test_a_trial_that_did_not_finish_carries_its_reason_and_its_cpu_time(outcome):
    result, _, _ = outcome
    reasons = {trial.state: trial.error for trial in result.trials}
    assert "memory" in reasons["failed"]
    assert "isn't finite" in reasons["diverged"]
    assert reasons["timed_out"] == "it took longer than max_trial_minutes 0.6"
    assert reasons["finished"] is None
    assert all(trial.cpu_s > 0 for trial in result.trials)


def test_the_record_says_the_same(outcome):
    result, uri, _ = outcome
    recorded = read_sweep(uri, result.parent_run_id)
    by_number = {trial.number: trial for trial in recorded.trials}
    for trial in result.trials:
        assert dataclasses.asdict(by_number[trial.number])["state"] == trial.state
        assert by_number[trial.number].error == trial.error


def test_the_report_names_every_end(outcome):
    result, _, folder = outcome
    page = Path(folder.root / "sweep_report.html").read_text(encoding="utf-8")
    for trial in result.trials:
        assert trial.state.replace("_", " ") in page
    assert "must divide its 4 tokens" in page
