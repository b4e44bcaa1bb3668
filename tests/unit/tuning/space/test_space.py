"""The points of a sweep: all combinations, each possible with its cost or impossible with its reason."""

import itertools
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.config.loading import read_yaml
from morphmlp.config.sweep import BudgetConfig, RandomSearch, Range, SweepConfig, load_sweep
from morphmlp.errors import ConfigError
from morphmlp.models.cost import model_cost
from morphmlp.models.planned_cost import planned_cost
from morphmlp.tuning.space import space
from morphmlp.tuning.space.space import ImpossiblePoint, Planner, expand, label_of, title_of

ROOT = Path(__file__).parents[4]
SMALL = ROOT / "tests" / "unit" / "small_experiment.yaml"


def sweep_of(grid, overrides=None, **fields):
    choices = {name: tuple(values) if isinstance(values, list) else values for name, values in grid.items()}
    return SweepConfig(name="s", experiment=str(SMALL), overrides=overrides or {}, space=choices, **fields)


def space_of(grid, overrides=None, base=None, **fields):
    sweep = sweep_of(grid, overrides, **fields)
    return expand(sweep, base or read_yaml(SMALL))


def test_points_of_a_grid_are_all_combinations_in_its_order():
    found = space_of({"model.chunk_lengths": [[8, 8, 4, 1], [4, 4, 4, 1]], "optim.lr": [0.1, 0.2]})
    assert [(point.values["model.chunk_lengths"][0], point.values["optim.lr"]) for point in found.points] == [
        (8, 0.1),
        (8, 0.2),
        (4, 0.1),
        (4, 0.2),
    ]
    assert found.impossible == ()


def test_a_point_is_the_base_experiment_with_its_values_and_the_sweeps_name():
    (point,) = space_of({"optim.lr": [0.2]}, {"train.epochs": 7}).points
    assert point.config == load_config(SMALL, {"optim.lr": 0.2, "train.epochs": 7, "name": "s"})


def test_a_point_has_the_cost_of_its_own_network():
    found = space_of({"model.embed_dims": [[16, 16, 32, 32], [32, 32, 64, 64]]})
    clip = found.points[0].config.clip
    for point in found.points:
        assert point.cost == model_cost(point.config.model, num_frames=clip.num_frames, crop_size=clip.crop_size)
    assert found.points[0].cost.params < found.points[1].cost.params


def test_an_impossible_point_is_left_out_with_stage_value_and_rule():
    found = space_of({"model.chunk_lengths": [[8, 8, 4, 1], [8, 8, 8, 3]]})
    assert [point.title for point in found.points] == ["[8 8 4 1]"]
    (impossible,) = found.impossible
    assert impossible.title == "[8 8 8 3]"
    assert impossible.reasons == (
        "model.chunk_lengths: stage 3: chunk length 8 must divide its 4 tokens (2x2 at clip.crop_size 32)",
        "model.chunk_lengths: stage 4: chunk length 3 must divide the stage's 32 channels (model.embed_dims)",
        "model.chunk_lengths: stage 4: chunk length 3 must divide its 1 tokens (1x1 at clip.crop_size 32)",
    )


def test_a_rule_across_sections_makes_a_point_impossible_too():
    found = space_of({"train.micro_batch_size": [2, 16]})
    assert [point.title for point in found.impossible] == ["16"]


def test_a_sweep_without_a_possible_point_is_refused_with_all_reasons():
    with pytest.raises(ConfigError) as caught:
        space_of({"train.micro_batch_size": [16, 32]})
    assert len(caught.value.faults) == 3
    assert caught.value.faults[0] == "space: none of its points is possible"


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


def test_many_points_share_what_they_cost(monkeypatch):
    counted = []
    monkeypatch.setattr(space, "planned_cost", lambda *args, **sizes: counted.append(1) or planned_cost(*args, **sizes))
    chunks = [[1, 1, 1, 1], [2, 2, 2, 1], [4, 4, 4, 1]]
    found = space_of(
        {"model.chunk_lengths": chunks, "model.depths": [[1, 1, 1, 1], [1, 1, 2, 1]], "optim.lr": [0.1, 1]}
    )
    assert (len(found.points), len(counted)) == (12, 2)


def test_a_draw_is_repeatable_and_no_point_comes_twice():
    search = RandomSearch(kind="random", num_points=20, seed=3)
    ranges = {"optim.lr": Range(low=1e-5, high=1e-2, log=True), "train.epochs": Range(low=2, high=9)}
    first, again = space_of(ranges, search=search), space_of(ranges, search=search)
    values = [(point.values["optim.lr"], point.values["train.epochs"]) for point in first.points]
    assert values == [(point.values["optim.lr"], point.values["train.epochs"]) for point in again.points]
    assert len(set(values)) == 20
    assert all(1e-5 <= lr <= 1e-2 and epochs in range(2, 10) for lr, epochs in values)
    other = space_of(ranges, search=RandomSearch(kind="random", num_points=20, seed=4))
    assert [point.values for point in other.points] != [point.values for point in first.points]


def test_impossible_draws_do_not_count():
    chunks = [[8, 8, 4, 1], [4, 4, 4, 1], [8, 8, 8, 1]]
    found = space_of({"model.chunk_lengths": chunks}, search=RandomSearch(kind="random", num_points=2))
    assert len(found.points) == 2
    assert found.notes == ()


def test_a_space_with_fewer_points_than_were_asked_for_says_so():
    found = space_of({"optim.lr": [0.1, 0.2]}, search=RandomSearch(kind="random", num_points=5))
    assert found.notes == ("search.num_points: is 5, but only 2 points were found",)


def test_an_impossible_point_is_moved_to_the_nearest_where_that_is_asked_for():
    found = space_of({"model.chunk_lengths": [[8, 8, 8, 1], [8, 8, 4, 1]]}, impossible="nearest")
    (point,) = found.points  # both are the same now
    assert point.values == {"model.chunk_lengths": [8, 8, 4, 1]}
    assert point.replaces == {"model.chunk_lengths": [8, 8, 8, 1]}
    assert point.config.model.chunk_lengths == (8, 8, 4, 1)


def test_a_point_outside_of_the_budget_is_left_out_with_numbers():
    dims = {"model.embed_dims": [[16, 16, 32, 32], [64, 64, 128, 128]]}
    small = space_of(dims).points[0].cost.params / 1e6
    found = space_of(dims, budget=BudgetConfig(params=(0, 1.5 * small)))
    assert [point.title for point in found.points] == ["[16 16 32 32]"]
    (reason,) = found.impossible[0].reasons
    assert reason.startswith("budget.params: ")
    assert reason.endswith(f"million parameters lie outside of [0, {1.5 * small:g}]")


def test_a_point_outside_of_the_budget_is_brought_inside_where_that_is_asked_for():
    dims = {"model.embed_dims": [[64, 64, 128, 128]]}
    budget = BudgetConfig(params=(0.05, 0.1), adjust="embed_dims")
    (point,) = space_of(dims, budget=budget).points
    assert 0.05 <= point.cost.params / 1e6 <= 0.1
    assert point.replaces == {"model.embed_dims": [64, 64, 128, 128]}
    assert list(point.config.model.embed_dims) == point.values["model.embed_dims"]


def test_a_point_that_cannot_be_brought_inside_is_told_with_the_nearest():
    found = space_of(
        {"model.embed_dims": [[16, 16, 32, 32], [64, 64, 128, 128]]},
        budget=BudgetConfig(params=(0, 0.5), adjust="depths"),
    )
    (impossible,) = found.impossible
    assert impossible.title == "[64 64 128 128]"
    (reason,) = impossible.reasons
    assert "; the nearest depths, [1 1 1 1], take " in reason
    assert reason.endswith(" million parameters")


def test_a_space_of_ranges_is_drawn_from_without_listing_it():
    ranges = {"train.epochs": Range(low=2, high=10**12)}
    assert len(space_of(ranges, search=RandomSearch(kind="random", num_points=3)).points) == 3


def test_what_the_planner_finds_possible_is_what_the_schema_accepts():
    grid = {"model.chunk_lengths": [[8, 8, 4, 1], [3, 8, 4, 1]], "train.micro_batch_size": [2, 64], "optim.lr": [0.1]}
    planner = Planner(sweep_of(grid), read_yaml(SMALL))
    for chunks, size in itertools.product(grid["model.chunk_lengths"], grid["train.micro_batch_size"]):
        values = {"model.chunk_lengths": chunks, "train.micro_batch_size": size, "optim.lr": 0.1}
        try:
            load_config(SMALL, values)
            possible = True
        except ConfigError:
            possible = False
        assert isinstance(planner.point(values), ImpossiblePoint) is not possible


def test_the_demo_sweep_has_twelve_points_and_an_impossible_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = load_sweep("experiments/sweeps/demo_chunk_length.yaml")
    found = expand(sweep, read_yaml(sweep.experiment))
    assert (len(found.points), len(found.impossible), len(sweep.seeds)) == (12, 1, 2)
