"""What a plan says before anything starts, and what its hours are estimated from."""

from pathlib import Path

import pytest
from empty_store import empty_store

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import Asha, BudgetConfig, OptunaSearch, SweepConfig
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.environment import hardware
from morphmlp.record import MetricPoint, Metrics, Tags
from morphmlp.tracking import RunWriter, open_run
from morphmlp.tuning.space import space as space_module
from morphmlp.tuning.space.plan import TrainingSpeed, known_speed, num_videos, plan_text
from morphmlp.tuning.space.space import ImpossiblePoint, Planner, Point, expand

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
SPEED = TrainingSpeed(gmacs_per_s=2.0, source="run earlier")


def plan(values, *, speed=SPEED, videos=1000, **fields):
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides={}, space=values, **fields)
    return plan_text(expand(sweep, read_yaml(SMALL)), sweep, speed=speed, videos=videos)


def test_it_shows_points_with_cost_and_impossible_ones_with_reason():
    text = plan({"model.chunk_lengths": ([8, 8, 4, 1], [8, 8, 8, 1])}, seeds=(0, 1))
    assert text.startswith("grid search, 1 points x 2 seed(s) = 2 trials, 1 at a time\n")
    assert "| chunk lengths   |" in text
    assert "| [8 8 4 1]       |" in text
    assert "- [8 8 8 1]: model.chunk_lengths: stage 3: chunk length 8 must divide its 4 tokens" in text


def test_hours_follow_from_clips_cost_and_speed():
    sweep = SweepConfig(
        name="s", experiment=str(SMALL), overrides={}, space={"train.epochs": (10, 30)}, max_concurrent_trials=2
    )
    found = expand(sweep, read_yaml(SMALL))
    first = found.points[0]
    each = 1000 * first.config.augment.repeats * 10 * first.cost.gmacs * 3 / 2.0 / 3600
    text = plan_text(found, sweep, speed=SPEED, videos=1000)
    row = next(line for line in text.splitlines() if line.startswith("| 10 "))
    assert row.split("|")[-2].strip() == f"{each:.3g}"
    assert f"Training takes {4 * each:.3g} hours ({2 * each:.3g} with 2 at a time, " in text
    assert ", at 2 GMAC/s as in run earlier" in text


def test_a_training_of_few_steps_takes_only_those():
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides={}, space={"train.max_steps": (3, 6)})
    found = expand(sweep, read_yaml(SMALL))
    config, cost = found.points[0].config, found.points[0].cost
    step = config.train.global_batch_size * config.augment.repeats * cost.gmacs * 3 / 0.001 / 3600
    text = plan_text(found, sweep, speed=TrainingSpeed(gmacs_per_s=0.001, source="run earlier"), videos=10**9)
    assert f"Training takes {9 * step:.3g} hours, at 0.001 GMAC/s" in text


@pytest.mark.parametrize(("videos", "batch"), [(10**9, 8), (5, 5)])  # of fewer videos than a batch a step takes all
def test_a_length_in_steps_takes_those(videos, batch):
    in_steps = {"train.epochs": None, "optim.warmup_epochs": None, "optim.warmup_steps": 0}
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides=in_steps, space={"train.steps": (30, 60)})
    found = expand(sweep, read_yaml(SMALL))
    config, cost = found.points[0].config, found.points[0].cost
    step = batch * config.augment.repeats * cost.gmacs * 3 / 0.001 / 3600
    text = plan_text(found, sweep, speed=TrainingSpeed(gmacs_per_s=0.001, source="run earlier"), videos=videos)
    assert f"Training takes {90 * step:.3g} hours, at 0.001 GMAC/s" in text


def test_hours_of_points_that_differ_in_cost_alone_are_told_apart():
    text = plan({"model.depths": ([1, 1, 1, 1], [1, 1, 1, 9])})
    hours = [float(line.split("|")[-2]) for line in text.splitlines() if line.startswith("| [")]
    assert hours[1] > hours[0] > 0


def test_with_early_stopping_hours_are_an_upper_bound():
    assert " hours at most, since trials are stopped early," in plan({"optim.lr": (0.1,)}, scheduler=Asha(kind="asha"))


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"speed": None}, "no finished run of this data set on this hardware is recorded yet"),
        ({"videos": None}, "the training manifest isn't there yet"),
    ],
)
def test_what_cannot_be_predicted_is_said(known, words):
    assert f"Hours are unknown: {words}." in plan({"optim.lr": (0.1,)}, **known)


def test_many_points_are_cut_and_counted():
    text = plan({"optim.lr": tuple(number / 1000 for number in range(1, 101))})
    assert "... and 60 more" in text
    assert len(text.splitlines()) < 60


def test_of_many_impossible_points_the_reasons_are_counted():
    chunks = ([8, 8, 4, 1], *([8, 8, 8, number] for number in range(2, 60)))
    text = plan({"model.chunk_lengths": chunks})
    assert "Impossible, left out: 58" in text
    assert "- 58 points: model.chunk_lengths: stage 3: chunk length 8 must divide its 4 tokens" in text
    assert "- 1 point: model.chunk_lengths: stage 4: chunk length 2 must divide its 1 tokens" in text
    assert "more reasons, by field: model.chunk_lengths (5" in text
    assert len(text.splitlines()) < 30


def test_moved_points_are_listed():
    text = plan({"model.chunk_lengths": ([8, 8, 8, 1],)}, impossible="nearest")
    assert "- chunk_lengths [8 8 8 1] -> chunk_lengths [8 8 4 1]" in text


def test_a_search_that_proposes_points_shows_an_example():
    text = plan({"optim.lr": (0.1, 0.2)}, search=OptunaSearch(kind="optuna", num_points=7))
    assert text.startswith("optuna search, 7 points x 1 seed(s) = 7 trials")
    assert "one of them could be:" in text


def test_a_network_too_slow_for_the_budget_is_left_out_and_measured_once(monkeypatch):
    measured = []

    def latency(sizes):
        measured.append(sizes)
        return 10.0 * sizes.model.depths[0]

    monkeypatch.setattr(space_module, "measured_latency_ms", latency)
    text = plan(
        {"model.depths": ([1, 1, 1, 1], [3, 1, 1, 1]), "optim.lr": (0.1, 0.2)},
        budget=BudgetConfig(latency_ms=(0, 20)),
    )
    assert "budget.latency_ms: 30.0 ms a view here lie outside of [0, 20]" in text
    assert "2 points" in text
    assert len(measured) == 2


def test_points_that_become_the_same_are_counted():
    text = plan({"model.chunk_lengths": ([8, 8, 8, 1], [8, 8, 4, 1])}, impossible="nearest")
    assert "Became the same as another point when they were moved: 1" in text


def test_a_known_point_is_not_measured_again(monkeypatch):
    monkeypatch.setattr(space_module, "measured_latency_ms", lambda sizes: 30.0)
    sweep = SweepConfig(
        name="s",
        experiment=str(SMALL),
        overrides={},
        space={"optim.lr": (0.1,)},
        budget=BudgetConfig(latency_ms=(0, 20)),
    )
    planner = Planner(sweep, read_yaml(SMALL))
    assert isinstance(planner.point({"optim.lr": 0.1}), ImpossiblePoint)
    assert isinstance(planner.point({"optim.lr": 0.1}, measure=False), Point)


@pytest.fixture
def store(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def add_run(uri, name, *, speed, where=None, status="FINISHED"):
    empty_store(uri)
    tags = {Tags.HARDWARE: where or hardware()}
    writer = RunWriter(uri, open_run(uri, experiment="demo", run_name=name, tags=tags, params={}))
    writer.metrics([MetricPoint(Metrics.RUN_GMACS_PER_S, speed, 0, 1)])
    writer.finish(status)


def test_without_a_store_or_a_run_of_the_data_set_nothing_is_known(store):
    assert known_speed("demo") is None
    add_run(store, "demo-run", speed=2.0)
    assert known_speed("k400") is None


def test_the_newest_finished_run_on_this_hardware_tells_the_speed(store):
    add_run(store, "older", speed=1.0)
    add_run(store, "newest", speed=2.0)
    add_run(store, "elsewhere", speed=30.0, where="a big machine")
    add_run(store, "broken", speed=40.0, status="FAILED")
    found = known_speed("demo")
    assert (found.gmacs_per_s, found.source) == (2.0, "run newest")


def test_training_videos_are_counted_where_the_manifest_is_there(tmp_path):
    write_demo_dataset(tmp_path, train=16, val=8, test=8)
    assert num_videos(str(tmp_path / "train.parquet")) == 16
    assert num_videos(str(tmp_path / "nowhere.parquet")) is None
