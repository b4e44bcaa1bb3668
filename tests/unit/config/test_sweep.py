"""What a sweep file may hold, and that its faults are named together."""

from pathlib import Path

import pytest

from morphmlp.config.sweep import Range, known_fields, load_sweep, sweep_to_yaml
from morphmlp.errors import ConfigError

GOOD = """
name: small-sweep
experiment: small_experiment.yaml
overrides: {train.epochs: 1}
space:
  model.chunk_lengths: [[8, 8, 4, 1], [4, 4, 4, 1]]
  optim.lr: [1e-3, 1e-4]
"""


@pytest.fixture
def sweep_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return path

    return write


def faults_of(path, overrides=None):
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, overrides)
    return sorted(caught.value.faults)


def test_a_sweep_file_is_read_whole(sweep_file):
    sweep = load_sweep(sweep_file(GOOD))
    assert (sweep.name, sweep.experiment, sweep.max_concurrent_trials) == ("small-sweep", "small_experiment.yaml", 1)
    assert dict(sweep.overrides) == {"train.epochs": 1}
    assert dict(sweep.space) == {
        "model.chunk_lengths": ([8, 8, 4, 1], [4, 4, 4, 1]),
        "optim.lr": (0.001, 0.0001),
    }


def test_command_line_overrides_go_over_those_of_the_file(sweep_file):
    sweep = load_sweep(sweep_file(GOOD), {"train.epochs": 2, "optim.min_lr": 0.0})
    assert dict(sweep.overrides) == {"train.epochs": 2, "optim.min_lr": 0.0}


def test_the_resolved_sweep_reads_back_to_an_equal_value(sweep_file):
    sweep = load_sweep(sweep_file(GOOD))
    assert load_sweep(sweep_file(sweep_to_yaml(sweep))) == sweep


def test_every_field_of_an_experiment_is_known_by_its_dotted_name():
    assert {"name", "model.chunk_lengths", "optim.lr", "cluster.storage"} <= known_fields()
    assert {"start_from", "start_from.weights", "start_from.carry", "cluster.num_workers"} <= known_fields()
    assert "model" not in known_fields()


def test_unknown_and_missing_fields_of_the_file_are_named_together(sweep_file):
    assert faults_of(sweep_file("name: x\ntrials: 3\noverrides: {}\n")) == [
        "experiment: is missing and has no default",
        "space: is missing and has no default",
        "trials: unknown field",
    ]


def test_all_faults_of_grid_and_overrides_are_named_together(sweep_file):
    text = """
name: a/b
experiment: small_experiment.yaml
overrides: {optim.lr: 1e-3, train.epoch: 1}
space:
  optim.lr: [1e-3]
  model.width: [1]
  model: [1]
  train.seed: [0, 1, 0]
  train.epochs: []
  cluster.num_workers: [1, 2]
"""
    assert faults_of(sweep_file(text)) == [
        "name: 'a/b' must be a plain name, without / and leading dots",
        "overrides.train.epoch: unknown field; did you mean train.epochs?",
        "space.cluster.num_workers: is the same for all trials; set it in overrides",
        "space.model.width: unknown field",
        "space.model: is a section; name its fields, as in model.FIELD",
        "space.optim.lr: is overridden too, with 0.001; keep one of the two",
        "space.train.epochs: has no values",
        "space.train.seed: 0 is given twice",
        "space.train.seed: is not swept; name the replicas' seeds in seeds",
    ]


def test_an_empty_grid_is_refused(sweep_file):
    assert faults_of(sweep_file("name: x\nexperiment: y\noverrides: {}\nspace: {}\n")) == [
        "space: is empty; it needs at least one field with its values"
    ]


def test_a_swept_field_cannot_be_overridden_on_the_command_line(sweep_file):
    assert faults_of(sweep_file(GOOD), {"optim.lr": 1.0}) == [
        "space.optim.lr: is overridden too, with 1.0; keep one of the two"
    ]


SPACE = "name: x\nexperiment: y\noverrides: {}\nspace: {optim.lr: [0.1]}\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("seeds: []", "seeds: is empty; name at least one"),
        ("seeds: [1, 1]", "seeds: [1, 1] names one twice"),
        ("budget: {gmacs: [3, 2]}", "budget.gmacs is [3.0, 2.0]; the first number must not exceed the second"),
        (
            "budget: {adjust: depths}",
            "budget.adjust is depths without gmacs or params; name the bounds that it shall meet",
        ),
        (
            "scheduler: {kind: asha, reduction_factor: 1}",
            "scheduler.reduction_factor: input should be greater than 1, got 1",
        ),
        (
            "search: {kind: optnua}",
            "search.kind: input should be one of 'grid', 'random', 'optuna', 'population', got 'optnua'; "
            "did you mean 'optuna'?",
        ),
        ("search: {num_points: 3}", "search.kind: is missing and has no default"),
        ("search: {kind: random}", "search.num_points: is missing and has no default"),
    ],
)
def test_a_fault_of_the_search_is_one_line(sweep_file, text, fault):
    assert faults_of(sweep_file(SPACE + text + "\n")) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{low: 2, high: 1}", "low is 2; it must be less than high 1"),
        ("{low: 0, high: 1.0, log: true}", "low is 0; with log it must be above 0"),
        ("{low: 1, high: 2, step: 0}", "step is 0; it must be above 0, and has no meaning with log"),
    ],
)
def test_a_fault_of_a_range_is_told(sweep_file, text, fault):
    path = sweep_file(f"name: x\nexperiment: y\noverrides: {{}}\nspace:\n  optim.lr: {text}\n")
    assert any(line.startswith("space.optim.lr") and line.endswith(fault) for line in faults_of(path))


def test_a_range_without_an_end_of_values_has_no_grid(sweep_file):
    text = "name: x\nexperiment: y\noverrides: {}\nspace: {optim.lr: {low: 0.1, high: 0.2}}\n"
    fault = "space.optim.lr: is continuous; give it a step, or choose another search"
    assert faults_of(sweep_file(text)) == [fault]
    assert load_sweep(sweep_file(text + "search: {kind: random, num_points: 3}\n")).search.num_points == 3


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({"low": 1, "high": 4}, (1, 2, 3, 4)),
        ({"low": 1, "high": 4, "step": 2}, (1, 3)),
        ({"low": 0.1, "high": 0.3, "step": 0.1}, (0.1, 0.2, 0.3)),
        ({"low": 0.1, "high": 0.3}, None),
        ({"low": 1, "high": 64, "log": True}, None),
    ],
)
def test_a_range_lists_its_numbers_where_there_is_an_end(changes, listed):
    assert Range(**changes).listed() == listed


def test_a_grid_of_too_many_combinations_is_refused(sweep_file):
    text = "name: x\nexperiment: y\noverrides: {}\nspace: {train.epochs: {low: 1, high: 2000000}}\n"
    assert faults_of(sweep_file(text)) == [
        "space: has 2000000 combinations, a grid takes at most 1000000; give fewer values, or choose another search"
    ]
    assert load_sweep(sweep_file(text + "search: {kind: random, num_points: 3}\n")).num_combinations == 2_000_000
