"""Experiments put together from sections are those that a file would give, and have the same faults."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphmlp.config import config_from_mapping, with_overrides
from morphmlp.config.loading import read_yaml
from morphmlp.errors import ConfigError
from morphmlp.tuning.space.space import Assembly

BASE = read_yaml(Path(__file__).parents[2] / "small_experiment.yaml")
CHOICES = {
    "name": ["other", "", 3],
    "model.chunk_lengths": [[8, 8, 4, 1], [3, 8, 4, 1], "many", [0, 1, 1, 1]],
    "model.temporal": ["averaged", "sideways"],
    "optim.lr": [0.1, 1, 1.0, True, -1.0],
    "train.micro_batch_size": [2, 16, 2.5],
    "clip.crop_size": [16, 32, 64, None],
    "start_from": [None, {"weights": "x"}, {"weight": "x"}],
    "model.width": [1],
}


def outcome(make):
    try:
        return make()
    except ConfigError as error:
        return error.faults


@st.composite
def values(draw):
    fields = draw(st.lists(st.sampled_from(sorted(CHOICES)), unique=True, max_size=4))
    return {field: draw(st.sampled_from(CHOICES[field])) for field in fields}


@given(st.lists(values(), min_size=1, max_size=5))
def test_experiments_and_faults_are_those_of_a_file(points):
    assembly = Assembly(BASE)
    for point in points:
        expected = outcome(lambda point=point: config_from_mapping(with_overrides(BASE, point)))
        assert outcome(lambda point=point: assembly.config(point)) == expected


def test_equal_numbers_of_another_kind_are_not_taken_for_each_other():
    assembly = Assembly(BASE)
    assembly.config({"train.micro_batch_size": 2})
    with pytest.raises(ConfigError, match=r"train\.micro_batch_size"):
        assembly.config({"train.micro_batch_size": 2.0})


def test_a_section_with_faults_is_not_among_the_parts():
    parts = Assembly(BASE).parts({"model.depths": "many", "clip.crop_size": 16})
    assert "model" not in parts
    assert parts["clip"].crop_size == 16


def test_what_is_shared_may_have_faults_that_the_values_mend():
    shared = with_overrides(BASE, {"clip.crop_size": "wide"})
    assert Assembly(shared).config({"clip.crop_size": 32}).clip.crop_size == 32
