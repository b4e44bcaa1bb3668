"""The points of a sweep: all combinations, each possible with its cost or impossible with its reason."""

import time
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import SweepConfig, load_sweep
from morphmlp.errors import ConfigError
from morphmlp.models.cost import model_cost
from morphmlp.tuning.report import Trial, plan_text, sweep_figure, trial_table
from morphmlp.tuning.space import expand, label_of, title_of

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "tests" / "unit" / "small_experiment.yaml"


def space_of(grid, overrides=None, base=None):
    sweep = SweepConfig(name="s", experiment=str(SMALL), overrides=overrides or {}, grid=grid)
    return expand(sweep, base or read_yaml(SMALL))


def test_points_are_all_combinations_in_the_grids_order():
    space = space_of({"model.chunk_lengths": [[8, 8, 4, 1], [4, 4, 4, 1]], "optim.lr": [0.1, 0.2]})
    assert [(point.values["model.chunk_lengths"][0], point.values["optim.lr"]) for point in space.points] == [
        (8, 0.1),
        (8, 0.2),
        (4, 0.1),
        (4, 0.2),
    ]
    assert space.impossible == ()


def test_a_point_is_the_base_experiment_with_its_values_and_the_sweeps_name():
    (point,) = space_of({"optim.lr": [0.2]}, {"train.epochs": 7}).points
    assert point.config == load_config(SMALL, {"optim.lr": 0.2, "train.epochs": 7, "name": "s"})


def test_a_point_has_the_cost_of_its_own_network():
    space = space_of({"model.embed_dims": [[16, 16, 32, 32], [32, 32, 64, 64]]})
    clip = space.points[0].config.clip
    for point in space.points:
        assert point.cost == model_cost(point.config.model, num_frames=clip.num_frames, crop_size=clip.crop_size)
    assert space.points[0].cost.params < space.points[1].cost.params


def test_an_impossible_point_is_left_out_with_stage_value_and_rule():
    space = space_of({"model.chunk_lengths": [[8, 8, 4, 1], [8, 8, 8, 3]]})
    assert [point.title for point in space.points] == ["[8 8 4 1]"]
    (impossible,) = space.impossible
    assert impossible.title == "[8 8 8 3]"
    assert impossible.reasons == (
        "model.chunk_lengths: stage 3: chunk length 8 must divide its 4 tokens (2x2 at clip.crop_size 32)",
        "model.chunk_lengths: stage 4: chunk length 3 must divide the stage's 32 channels (model.embed_dims)",
        "model.chunk_lengths: stage 4: chunk length 3 must divide its 1 tokens (1x1 at clip.crop_size 32)",
    )


def test_a_rule_across_sections_makes_a_point_impossible_too():
    space = space_of({"train.micro_batch_size": [2, 16]})
    assert [point.title for point in space.impossible] == ["16"]


def test_a_sweep_without_a_possible_point_is_refused_with_all_reasons():
    with pytest.raises(ConfigError) as caught:
        space_of({"train.micro_batch_size": [16, 32]})
    assert len(caught.value.faults) == 3
    assert caught.value.faults[0] == "grid: none of its points is possible"


def test_faults_of_the_base_experiment_are_led_by_its_file():
    with pytest.raises(ConfigError, match=r"small_experiment\.yaml: name: is missing"):
        space_of({"optim.lr": [0.1]}, base={k: v for k, v in read_yaml(SMALL).items() if k != "name"})


@pytest.mark.parametrize(
    ("values", "title", "label"),
    [
        ({"model.chunk_lengths": [8, 4, 4, 1]}, "[8 4 4 1]", "8-4-4-1"),
        ({"optim.lr": 0.001}, "0.001", "0.001"),
        ({"model.temporal": "mixed", "optim.lr": 0.1}, "temporal mixed, lr 0.1", "temporal-mixed_lr-0.1"),
        ({"data.train": "a/b.parquet"}, "a/b.parquet", "a-b.parquet"),
        ({"data.train": "../b"}, "../b", "b"),
        ({"train.max_steps": None}, "null", "null"),
    ],
)
def test_a_point_is_named_for_people_and_for_files(values, title, label):
    assert (title_of(values), label_of(values)) == (title, label)


def test_two_thousand_impossible_points_are_told_in_seconds():
    began = time.process_time()
    with pytest.raises(ConfigError):
        space_of({"train.micro_batch_size": list(range(100, 200)), "train.seed": list(range(20))})
    assert time.process_time() - began < 10


def test_the_plan_shows_points_with_cost_and_impossible_ones_with_reason():
    text = plan_text(space_of({"model.chunk_lengths": [[8, 8, 4, 1], [8, 8, 8, 1]]}))
    assert "| chunk lengths   |" in text
    assert "| [8 8 4 1]       |" in text
    assert "- [8 8 8 1]: model.chunk_lengths: stage 3: chunk length 8 must divide its 4 tokens" in text


def trial(values, **result):
    nothing = dict.fromkeys(("run_id", "top1", "top5", "num_videos", "wall_s", "error"))
    state = "failed" if result.get("error") else "finished"
    return Trial(
        point=values, title=title_of(values), gmacs=0.0123, params=1_234_567, state=state, **{**nothing, **result}
    )


def test_the_table_has_a_row_for_every_trial_and_the_reason_of_a_failed_one():
    done = trial({"optim.lr": 0.1}, top1=12.5, top5=50.0, num_videos=8, run_id="0123456789", wall_s=1.0)
    failed = trial({"optim.lr": 9.9}, error="training failed: a | b")
    head, _, first, second = trial_table([done, failed]).strip().splitlines()
    cells = [
        [cell.strip() for cell in line.replace("\\|", "!").strip("|").split("|")] for line in (head, first, second)
    ]
    assert cells == [
        ["lr", "GMAC", "params (M)", "top-1", "n videos", "state", "run id"],
        ["0.1", "0.0123", "1.23", "12.5", "8", "finished", "01234567"],
        ["9.9", "0.0123", "1.23", "", "", "failed: training failed: a ! b", ""],
    ]


def test_the_figure_draws_finished_trials_and_joins_labels_that_would_cover_each_other():
    same = {"top1": 50.0, "top5": 90.0, "num_videos": 8}
    trials = [trial({"optim.lr": 0.1}, **same), trial({"optim.lr": 0.2}, **same), trial({"optim.lr": 0.3}, error="x")]
    (axes,) = sweep_figure(trials, title="t").axes
    assert [text.get_text() for text in axes.texts] == ["0.1\n0.2"]


def test_the_demo_sweep_has_four_to_six_points_and_an_impossible_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = load_sweep("experiments/sweeps/demo_chunk_length.yaml")
    space = expand(sweep, read_yaml(sweep.experiment))
    assert 4 <= len(space.points) <= 6
    assert len(space.impossible) >= 1
