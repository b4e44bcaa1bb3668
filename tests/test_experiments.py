"""Every experiment file loads, and its network is the named variant."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from morphmlp.config import load_config
from morphmlp.config.field_help import help_sections
from morphmlp.config.loading import flat_fields, read_yaml
from morphmlp.config.sweep import RandomSearch, load_sweep
from morphmlp.errors import ConfigError
from morphmlp.models.cost import model_cost
from morphmlp.models.presets import preset
from morphmlp.reporting.tables.document import MARKS, with_published_tables
from morphmlp.reporting.tables.published import load_published, printed_numbers
from morphmlp.tuning.space.space import expand, title_of

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
PUBLISHED = load_published(EXPERIMENTS / "published.yaml")
DATASETS = ("k400", "ssv1", "ssv2", "imagenet")
FULL = [path for dataset in DATASETS for path in sorted((EXPERIMENTS / dataset).glob("*.yaml"))]
SOMETHING = [path for path in FULL if path.parent.name.startswith("ssv")]
IMAGES = [path for path in FULL if path.parent.name == "imagenet"]
EVERY = [path for path in sorted(EXPERIMENTS.glob("*/*.yaml")) if path.parent.name != "sweeps"]


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def preset_name(path):
    """The variant whose network an experiment holds."""
    dataset = path.parent.name
    return path.stem if dataset == "k400" else f"{path.stem}_{'image' if dataset == 'imagenet' else dataset}"


def header_of(path):
    return "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))


@pytest.mark.parametrize("dataset", DATASETS)
def test_there_is_an_experiment_for_every_published_model(dataset):
    published = {row.preset for row in PUBLISHED.models(dataset)}
    assert published
    assert published <= {preset_name(path) for path in FULL if path.parent.name == dataset}


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_an_experiment_loads_and_says_how_it_is_run(path):
    load_config(path)
    pipeline = re.search(
        rf"python (pipelines/train(?:_\w+)?\.py) --config experiments/{name_of(path)}\.yaml\n", header_of(path)
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
    rows = [row for row in PUBLISHED.models(path.parent.name) if row.preset == preset_name(path)]
    for row in rows:
        assert str(row.top1) in header
        assert config.train.epochs == row.epochs
    assert ("Published: top-1 " if rows else "Published: no number ") in header
    # The views that the file asks for are those of the published number that it leads with.
    if rows:
        first = re.search(r"top-1 ([\d.]+) with (\d clips? x \d crops?)", header)
        assert first
        assert (float(first[1]), first[2]) in {(row.top1, getattr(row, "views", "1 clip x 1 crop")) for row in rows}
        assert first[2] == config.test.in_words


@pytest.mark.parametrize("path", SOMETHING, ids=name_of)
def test_a_something_something_experiment_never_mirrors_and_takes_a_frame_of_each_segment(path):
    config = load_config(path)
    assert config.augment.flip == 0
    assert (config.clip.sampling, config.clip.frame_stride) == ("segments", None)
    assert (config.clip.short_edge, config.test.num_clips, config.test.num_crops) == (224, 1, 3)
    assert (config.optim.lr, config.optim.warmup_epochs) == (4e-4, 5)
    assert "Corrected: " in header_of(path)


def test_a_run_of_an_image_experiment_stands_next_to_its_published_number():
    for path in IMAGES:
        [row] = [row for row in PUBLISHED.images if row.preset == preset_name(path)]
        fields = flat_fields(load_config(path))
        expected = row.expected_params()
        assert {name: fields.get(name) for name in expected} == expected


def test_image_experiments_differ_in_name_and_network_only():
    first, *others = [load_config(path) for path in IMAGES]
    assert len(others) == 3
    for other in others:
        assert replace(other, name=first.name, model=first.model) == first


SCENES = sorted((EXPERIMENTS / "ade20k").glob("*.yaml"))


@pytest.mark.parametrize("row", PUBLISHED.segmentations, ids=lambda row: row.model)
def test_a_run_of_a_segmentation_experiment_stands_next_to_its_published_number(row):
    stem = row.model.lower().replace("resnet-", "resnet").replace("-", "_")
    path = EXPERIMENTS / "ade20k" / f"{stem}_{row.decoder}.yaml"
    assert f"Published: mIoU {row.miou} on the whole image at one scale" in header_of(path)
    fields = flat_fields(load_config(path))
    expected = row.expected_params()
    assert {name: fields.get(name) for name in expected} == expected


@pytest.mark.parametrize("decoder", ["semantic_fpn", "upernet"])
def test_segmentation_experiments_of_one_decoder_differ_in_name_and_network_only(decoder):
    configs = {size: load_config(EXPERIMENTS / "ade20k" / f"morphmlp_{size}_{decoder}.yaml") for size in "tsb"}
    for size, config in configs.items():
        assert replace(config, name=configs["t"].name, model=configs["t"].model) == configs["t"]
        changes = {"num_classes": 150, "chunk_crop_size": 224, "drop_path_rate": config.model.drop_path_rate}
        assert config.model == replace(preset(f"morphmlp_{size}_image").model, **changes)
        assert config.name == f"ade20k-morphmlp-{size}-{decoder.replace('_', '-')}"


def test_segmentation_experiments_are_of_one_pipeline_and_data():
    assert len(SCENES) == 7
    configs = [load_config(path) for path in SCENES]
    assert {config.dataset for config in configs} == {"ade20k"}
    assert len({repr((config.clip, config.data, config.test)) for config in configs}) == 1
    pipelines = {repr(replace(config.segmentation, **HEADS)) for config in configs}
    assert len(pipelines) == 1
    assert all("python pipelines/train_ade20k.py " in header_of(path) for path in SCENES)


HEADS = {"backbone": "morphmlp", "decoder": "semantic_fpn", "decoder_channels": 128, "auxiliary_weight": 0.0}


def test_the_mirrored_stand_in_differs_from_the_plain_one_in_the_flip_only():
    plain, mirrored = (
        load_config(EXPERIMENTS / "demo" / f"{name}.yaml") for name in ("standin_ssv1", "standin_ssv1_mirrored")
    )
    assert (plain.augment.flip, mirrored.augment.flip) == (0, 0.5)
    assert replace(mirrored, name=plain.name, augment=replace(mirrored.augment, flip=0.0)) == plain


SWEEPS = sorted((EXPERIMENTS / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_has_points_and_says_how_it_is_run(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = load_sweep(path)
    if sweep.search.kind == "optuna":  # of whose points a plan shows one only
        sweep = replace(sweep, search=RandomSearch(kind="random", num_points=5))
    space = expand(sweep, read_yaml(sweep.experiment))
    assert len(space.points) >= 2
    assert f"python pipelines/sweep.py --config experiments/sweeps/{path.name}\n" in header_of(path)


def test_chunk_lengths_are_compared_at_the_same_arithmetic(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("chunk_length", "ablation_chunk_lengths"):
        sweep = load_sweep(EXPERIMENTS / "sweeps" / f"{name}.yaml")
        points = expand(sweep, read_yaml(sweep.experiment)).points
        assert {point.cost for point in points} == {points[0].cost}
        assert list(points[0].config.model.chunk_lengths) == [14, 28, 28, 49]


TABLES = {
    7: ("ablation_image_chunk_lengths", {"[56 28 14 7]"}),
    8: ("ablation_image_group_width", set()),
    9: ("ablation_image_branches", set()),
    11: ("ablation_order", {"block_skip published, block_order parallel"}),
}
"""Sweeps of the paper's tables, and which of their points can't be built."""


@pytest.mark.parametrize("number", TABLES)
def test_a_sweep_of_a_table_has_its_rows_and_finds_the_numbers_of_those_that_can_be_built(number, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, refused = TABLES[number]
    sweep = load_sweep(EXPERIMENTS / "sweeps" / f"{name}.yaml")
    space = expand(sweep, read_yaml(sweep.experiment))
    [table] = [table for table in PUBLISHED.ablations if table.table == number]
    rows = {title_of(row.fields): row.top1 for row in table.rows if row.fields}
    first = space.points[0].config
    assert {point.title for point in space.impossible} == refused
    assert (first.dataset, first.train.epochs) == (table.dataset, table.epochs or first.train.epochs)
    found = [printed_numbers(PUBLISHED.ablations, point.config, point.values) for point in space.points]
    built = sorted(top1 for title, top1 in rows.items() if title not in refused)
    assert sorted(float(text.partition(" ")[0]) for text in found if text) == built


def test_budgets_hold_the_base_experiment(monkeypatch):
    monkeypatch.chdir(ROOT)
    budgeted = {path.stem: sweep for path in SWEEPS if (sweep := load_sweep(path)).budget.gmacs}
    assert budgeted.keys() == {"depth", "width", "depth_chunk_width"}
    for sweep in budgeted.values():
        base = load_config(sweep.experiment)
        cost = model_cost(base.model, num_frames=base.clip.num_frames, crop_size=base.clip.crop_size)
        low, high = sweep.budget.gmacs
        assert low < cost.gmacs < high


def test_the_published_numbers_of_the_frames_stand_in_their_ablation():
    header = header_of(EXPERIMENTS / "sweeps" / "ablation_frames.yaml")
    rows = [row for row in PUBLISHED.videos if row.preset in ("morphmlp_s_16x4", "morphmlp_s_32x4")]
    assert [f"{row.top1}" in header and row.views in header for row in rows] == [True, True]


@pytest.mark.parametrize("ablation", ["chunk_lengths", "temporal", "branches", "init", "frames", "order"])
def test_every_ablation_is_there_for_a_cluster_and_for_the_demo(ablation):
    names = {path.stem for path in SWEEPS}
    assert {f"ablation_{ablation}", f"demo_ablation_{ablation}"} <= names


def fields_that_experiments_set():
    """Every dotted field that stands in a file below experiments/, in a sweep's overrides and space too."""
    for path in sorted(EXPERIMENTS.glob("*/*.yaml")):
        content = read_yaml(path)
        yield from content.get("overrides") or {}
        yield from content.get("space") or {}
        yield from (f"{name}.{field}" for name, inner in content.items() if isinstance(inner, dict) for field in inner)


def test_a_field_that_no_experiment_sets_says_when_one_would_set_it():
    rows = [row for _, rows in help_sections(load_config(EVERY[0])) for row in rows]
    meanings = {option.split()[0][2:].replace("-", "_"): meaning for option, meaning in rows}
    unset = meanings.keys() - set(fields_that_experiments_set()) - {"name", "dataset"}
    says_when = re.compile(r"\b(Set|Raise|Lower|Change|Choose)\b")
    assert sorted(field for field in unset if not says_when.search(meanings[field])) == []


def test_the_page_has_the_published_tables_as_they_are_now():
    text = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    assert with_published_tables(text, PUBLISHED) == text, "python pipelines/tables.py --update experiments/README.md"


@pytest.mark.parametrize("text", ["", MARKS[0], MARKS[1], "".join(reversed(MARKS)), "".join(MARKS * 2)])
def test_a_page_without_a_place_for_the_tables_is_refused(text):
    with pytest.raises(ConfigError, match="each must be there once"):
        with_published_tables(text, PUBLISHED)
