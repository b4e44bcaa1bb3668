"""Every experiment file loads, and its network is the named variant."""

from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.models.presets import preset

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
K400 = sorted((EXPERIMENTS / "k400").glob("*.yaml"))


def test_there_is_an_experiment_for_every_published_kinetics_model():
    published = {"morphmlp_s_16x4", "morphmlp_s_32x4", "morphmlp_b_16x4", "morphmlp_b_32x4"}
    assert published <= {path.stem for path in K400}


@pytest.mark.parametrize("path", K400, ids=lambda path: path.stem)
def test_a_kinetics_experiment_loads_and_holds_the_network_of_its_name(path):
    config, named = load_config(path), preset(path.stem)
    assert config.model == named.model
    assert (config.clip.num_frames, config.clip.crop_size) == (named.num_frames, named.crop_size)
    assert config.name == f"k400-{path.stem.replace('_', '-')}"
    assert config.dataset == "k400"


@pytest.mark.parametrize("path", K400, ids=lambda path: path.stem)
def test_a_kinetics_experiment_says_how_it_is_run(path):
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"python pipelines/train_k400.py --config experiments/k400/{path.name}\n" in header
    assert "Published: top-1 " in header
