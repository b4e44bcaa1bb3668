"""What a sweep file may hold, and that its faults are named together."""

from pathlib import Path

import pytest

from morphmlp.config.sweep import known_fields, load_sweep, sweep_to_yaml
from morphmlp.errors import ConfigError

GOOD = """
name: small-sweep
experiment: small_experiment.yaml
overrides: {train.epochs: 1}
grid:
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
    assert dict(sweep.grid) == {
        "model.chunk_lengths": ([8, 8, 4, 1], [4, 4, 4, 1]),
        "optim.lr": (0.001, 0.0001),
    }


def test_command_line_overrides_go_over_those_of_the_file(sweep_file):
    sweep = load_sweep(sweep_file(GOOD), {"train.epochs": 2, "train.seed": 7})
    assert dict(sweep.overrides) == {"train.epochs": 2, "train.seed": 7}


def test_the_resolved_sweep_reads_back_to_an_equal_value(sweep_file):
    sweep = load_sweep(sweep_file(GOOD))
    assert load_sweep(sweep_file(sweep_to_yaml(sweep))) == sweep


def test_every_field_of_an_experiment_is_known_by_its_dotted_name():
    assert {"name", "model.chunk_lengths", "optim.lr", "cluster.storage"} <= known_fields()
    assert "model" not in known_fields()


def test_unknown_and_missing_fields_of_the_file_are_named_together(sweep_file):
    assert faults_of(sweep_file("name: x\ntrials: 3\noverrides: {}\n")) == [
        "experiment: is missing and has no default",
        "grid: is missing and has no default",
        "trials: unknown field",
    ]


def test_all_faults_of_grid_and_overrides_are_named_together(sweep_file):
    text = """
name: a/b
experiment: small_experiment.yaml
overrides: {optim.lr: 1e-3, train.epoch: 1}
grid:
  optim.lr: [1e-3]
  model.width: [1]
  model: [1]
  train.seed: [0, 1, 0]
  train.epochs: []
  cluster.num_workers: [1, 2]
"""
    assert faults_of(sweep_file(text)) == [
        "grid.cluster.num_workers: is the same for all trials; set it in overrides",
        "grid.model.width: unknown field",
        "grid.model: unknown field",
        "grid.optim.lr: is overridden too, with 0.001; keep one of the two",
        "grid.train.epochs: has no values",
        "grid.train.seed: 0 is given twice",
        "name: 'a/b' must be a plain name, without / and leading dots",
        "overrides.train.epoch: unknown field",
    ]


def test_an_empty_grid_is_refused(sweep_file):
    assert faults_of(sweep_file("name: x\nexperiment: y\noverrides: {}\ngrid: {}\n")) == [
        "grid: is empty; it needs at least one field with its values"
    ]


def test_a_swept_field_cannot_be_overridden_on_the_command_line(sweep_file):
    assert faults_of(sweep_file(GOOD), {"optim.lr": 1.0}) == [
        "grid.optim.lr: is overridden too, with 1.0; keep one of the two"
    ]
