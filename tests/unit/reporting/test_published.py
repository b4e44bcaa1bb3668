"""What is published agrees with itself, with the networks here, and is found by a sweep's points."""

from dataclasses import replace
from pathlib import Path

import pytest

from morphmlp.config.loading import load_config
from morphmlp.errors import ConfigError
from morphmlp.models.presets import PRESETS, preset
from morphmlp.reporting.published import load_published, printed_numbers

ROOT = Path(__file__).parents[3]
FILE = ROOT / "experiments" / "published.yaml"
PUBLISHED = load_published(FILE)


def test_top5_is_there_where_a_row_names_the_paper_as_its_source():
    assert len(PUBLISHED.videos) == 12
    for row in PUBLISHED.videos:
        assert "commit 62ebe80" in row.source
        assert (row.top5 is not None) == ("arXiv 2111.12527v1, Tables 3-5" in row.source)
        assert row.top5 is None or row.top1 < row.top5


def test_the_differences_that_the_abstract_names_are_those_of_the_rows():
    """MorphMLP-B is 2.4 better than MViT-B on Something-Something V2, at 43 % of its arithmetic."""
    [mvit] = [row for group in PUBLISHED.others for row in group.rows if row.model == "MViT-B 32x3"]
    ours = max(PUBLISHED.models("ssv2"), key=lambda row: row.top1)
    assert round(ours.top1 - mvit.score, 1) == 2.4
    assert round(ours.gflops_total / mvit.gflops_total, 2) == 0.43


def test_published_rows_agree_with_their_presets():
    classes = {"k400": 400, "ssv1": 174, "ssv2": 174}
    for row in PUBLISHED.videos:
        assert row.preset in PRESETS
        assert preset(row.preset).num_frames == row.frames
        assert preset(row.preset).model.num_classes == classes[row.dataset]
        assert (row.frame_stride is None) == (row.dataset != "k400")


def test_printed_arithmetic_is_that_of_our_networks_times_the_views():
    # GMAC a view as tests of models.cost pin them; the head's classes change the fifth digit only.
    ours = {("MorphMLP-S", 16): 66.36, ("MorphMLP-S", 32): 133.34, ("MorphMLP-B", 16): 97.83, ("MorphMLP-B", 32): 196.7}
    for row in PUBLISHED.videos:
        clips, crops = row.num_views
        assert ours[row.model, row.frames] * clips * crops == pytest.approx(row.gflops_total, rel=0.015)


def test_image_rows_agree_with_their_presets():
    assert [row.model for row in PUBLISHED.images] == ["MorphMLP-T", "MorphMLP-S", "MorphMLP-B", "MorphMLP-L"]
    for row in PUBLISHED.images:
        chosen = preset(row.preset)
        assert (chosen.crop_size, chosen.model.num_classes, chosen.model.temporal) == (row.resolution, 1000, "none")


def test_the_published_network_is_the_best_row_of_every_ablation():
    assert [table.table for table in PUBLISHED.ablations] == [7, 8, 9, 10, 11]
    best = [max(row.top1 for row in table.rows) for table in PUBLISHED.ablations]
    assert best == [79.6, 79.6, 79.6, 79.6, 50.6]
    [one_crop] = [row.top1 for row in PUBLISHED.videos if row.views == "1 clip x 1 crop"]
    assert best[-1] == one_crop


def test_faults_of_the_published_file_are_named_together(tmp_path):
    file = tmp_path / "published.yaml"
    file.write_text(FILE.read_text().replace("top1: 78.7", "top1: 787").replace("1 clip x 1 crop", "one view"))
    with pytest.raises(ConfigError) as caught:
        load_published(file)
    assert [fault.split(": ")[1] for fault in caught.value.faults] == ["videos.0.top1", "videos.4.views"]


def test_rows_of_an_ablation_name_the_same_fields(tmp_path):
    file = tmp_path / "published.yaml"
    file.write_text(FILE.read_text().replace("{model.chunk_lengths: [3, 3, 3, 3]}", "{model.depths: [3, 3, 3, 3]}"))
    with pytest.raises(ConfigError, match="rows of table 7 have different fields"):
        load_published(file)


@pytest.fixture(scope="module")
def k400():
    return load_config(ROOT / "experiments" / "k400" / "morphmlp_s_16x4.yaml")


@pytest.mark.parametrize(
    ("changes", "swept", "printed"),
    [
        ({"chunk_lengths": (28, 28, 28, 49)}, ["model.chunk_lengths"], "79.4 (MorphMLP-T, ImageNet-1K, Table 7)"),
        ({}, ["model.chunk_lengths"], "79.6 (MorphMLP-T, ImageNet-1K, Table 7)"),
        ({"chunk_lengths": (14, 14, 14, 7)}, ["model.chunk_lengths"], None),
        ({"chunk_lengths": (28, 28, 28, 49)}, ["model.chunk_lengths", "model.depths"], None),
        ({"chunk_lengths": (28, 28, 28, 49)}, ["optim.lr"], None),
    ],
)
def test_a_point_finds_what_is_printed_for_its_fields(k400, changes, swept, printed):
    config = replace(k400, model=replace(k400.model, **changes))
    assert printed_numbers(PUBLISHED.ablations, config, dict.fromkeys(swept)) == printed
