"""What a plan says before anything starts."""

from pathlib import Path

import pytest

from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import Asha, BudgetConfig, OptunaSearch, SweepConfig
from morphmlp.tuning import space as space_module
from morphmlp.tuning.plan import TrainingSpeed, plan_text
from morphmlp.tuning.space import expand

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"
SPEED = TrainingSpeed(gmacs_per_s=2.0, source="run earlier")


def plan(values, *, speed=SPEED, num_videos=1000, **fields):
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides={}, space=values, **fields)
    return plan_text(expand(sweep, read_yaml(SMALL)), sweep, speed=speed, num_videos=num_videos)


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
    text = plan_text(found, sweep, speed=SPEED, num_videos=1000)
    row = next(line for line in text.splitlines() if line.startswith("| 10 "))
    assert row.split("|")[-2].strip() == f"{each:.3g}"
    assert f"Training takes {(each + 3 * each) / 2:.3g} hours, at 2 GMAC/s as in run earlier" in text


def test_with_early_stopping_hours_are_an_upper_bound():
    assert " hours at most, since trials are stopped early," in plan({"optim.lr": (0.1,)}, scheduler=Asha(kind="asha"))


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"speed": None}, "no finished run of this data set on this hardware is recorded yet"),
        ({"num_videos": None}, "the training manifest isn't there yet"),
    ],
)
def test_what_cannot_be_predicted_is_said(known, words):
    assert f"Hours are unknown: {words}." in plan({"optim.lr": (0.1,)}, **known)


def test_many_points_are_cut_and_counted():
    text = plan({"optim.lr": tuple(number / 1000 for number in range(1, 101))})
    assert "... and 60 more" in text
    assert len(text.splitlines()) < 60


def test_many_impossible_points_are_cut_and_counted_by_rule():
    chunks = ([8, 8, 4, 1], *([8, 8, 8, number] for number in range(2, 60)))
    text = plan({"model.chunk_lengths": chunks})
    assert "Impossible, left out: 58" in text
    assert "- and 46 more; broken rules by field: model.chunk_lengths " in text


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
