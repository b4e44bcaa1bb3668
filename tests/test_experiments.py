"""Every experiment file loads, and its network is the named variant."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.models.presets import preset
from morphmlp.reporting.tables import load_published

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
PUBLISHED = load_published(EXPERIMENTS / "published.yaml")
DATASETS = ("k400", "ssv1", "ssv2")
FULL = [path for dataset in DATASETS for path in sorted((EXPERIMENTS / dataset).glob("*.yaml"))]
SOMETHING = [path for path in FULL if path.parent.name != "k400"]
EVERY = [path for path in sorted(EXPERIMENTS.glob("*/*.yaml")) if path.parent.name != "sweeps"]


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def preset_name(path):
    """The variant whose network an experiment holds."""
    dataset = path.parent.name
    return path.stem if dataset == "k400" else f"{path.stem}_{dataset}"


def header_of(path):
    return "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))


@pytest.mark.parametrize("dataset", DATASETS)
def test_there_is_an_experiment_for_every_published_model(dataset):
    published = {row.preset for row in PUBLISHED.videos if row.dataset == dataset}
    assert published
    assert published <= {preset_name(path) for path in FULL if path.parent.name == dataset}


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_an_experiment_loads_and_says_how_it_is_run(path):
    load_config(path)
    pipeline = re.search(
        rf"python (pipelines/train_\w+\.py) --config experiments/{name_of(path)}\.yaml\n", header_of(path)
    )
    assert pipeline
    assert (ROOT / pipeline[1]).is_file()


@pytest.mark.parametrize("path", FULL, ids=name_of)
def test_an_experiment_holds_the_network_of_its_name(path):
    config, named = load_config(path), preset(preset_name(path))
    assert config.model == named.model
    assert (config.clip.num_frames, config.clip.crop_size) == (named.num_frames, named.crop_size)
    assert config.name == f"{path.parent.name}-{path.stem.replace('_', '-')}"
    assert config.dataset == path.parent.name
    assert f"python pipelines/train_{config.dataset}.py " in header_of(path)


@pytest.mark.parametrize("path", FULL, ids=name_of)
def test_an_experiment_states_the_published_numbers_of_its_network_and_has_their_length(path):
    config, header = load_config(path), header_of(path)
    rows = [row for row in PUBLISHED.videos if (row.dataset, row.preset) == (path.parent.name, preset_name(path))]
    for row in rows:
        assert str(row.top1) in header
        assert config.train.epochs == row.epochs
    assert ("Published: top-1 " if rows else "Published: no number ") in header
    # The views that the file asks for are those of the published number that it leads with.
    if rows:
        first = re.search(r"top-1 ([\d.]+) with (\d clips? x \d crops?)", header)
        assert first
        assert (float(first[1]), first[2]) in {(row.top1, row.views) for row in rows}
        assert first[2] == config.test.in_words


@pytest.mark.parametrize("path", SOMETHING, ids=name_of)
def test_a_something_something_experiment_never_mirrors_and_takes_a_frame_of_each_segment(path):
    config = load_config(path)
    assert config.augment.flip == 0
    assert (config.clip.sampling, config.clip.frame_stride) == ("segments", None)
    assert (config.clip.short_edge, config.test.num_clips, config.test.num_crops) == (224, 1, 3)
    assert (config.optim.lr, config.optim.warmup_epochs) == (4e-4, 5)
    assert "Corrected: " in header_of(path)


def test_the_mirrored_stand_in_differs_from_the_plain_one_in_the_flip_only():
    plain, mirrored = (
        load_config(EXPERIMENTS / "demo" / f"{name}.yaml") for name in ("standin_ssv1", "standin_ssv1_mirrored")
    )
    assert (plain.augment.flip, mirrored.augment.flip) == (0, 0.5)
    assert replace(mirrored, name=plain.name, augment=replace(mirrored.augment, flip=0.0)) == plain
