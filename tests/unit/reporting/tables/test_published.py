"""What is published agrees with itself, with the networks here, and is found by a sweep's points."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from morphmlp.config.loading import load_config
from morphmlp.errors import ConfigError
from morphmlp.models.planned_cost import planned_cost
from morphmlp.models.presets import PRESETS, preset
from morphmlp.reporting.tables.published import load_published, printed_numbers

ROOT = Path(__file__).parents[4]
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


def test_segmentation_rows_agree_with_their_networks():
    assert [(row.model, row.miou) for row in PUBLISHED.segmentations] == [
        *(("ResNet-50", 36.7), ("MorphMLP-T", 43.0), ("MorphMLP-S", 44.7), ("MorphMLP-B", 45.9)),
    ]
    for row in PUBLISHED.segmentations:
        assert (row.network.num_classes, row.network.temporal, row.crop_size) == (150, "none", 512)
        cost = planned_cost(row.network, num_frames=1, crop_size=row.crop_size, segmentation=row.segmentation)
        assert cost.params / 1e6 == pytest.approx(row.params_m, rel=0.08)


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


def cost_of(name, digits=2, **changes):
    """Million parameters and GMAC in words, by the arithmetic that tests of the model hold to the counted network."""
    chosen = preset(name)
    cost = planned_cost(replace(chosen.model, **changes), num_frames=chosen.num_frames, crop_size=chosen.crop_size)
    return f"{cost.params / 1e6:.{digits}f}", f"{cost.gmacs:.{digits}f}"


def rows_of(page, title):
    """The tables below a title of a page in docs, each with its cells by row."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = text.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    tables = re.split(r"\n{2,}", "\n".join(line if line.startswith("|") else "" for line in lines).strip())
    split = [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in tables]
    return [rows[2:] for rows in split]


def test_the_page_on_models_has_the_counts_next_to_what_is_printed():
    images, widths = rows_of("models.md", "Images")
    assert images == [
        [
            row.model,
            *(", ".join(map(str, numbers)) for numbers in (model.depths, model.embed_dims)),
            *(str(model.drop_path_rate), f"{row.params_m:g}", params, f"{row.gflops:g}", gmacs),
        ]
        for row in PUBLISHED.images
        for model, (params, gmacs) in [(preset(row.preset).model, cost_of(row.preset))]
    ]
    [table] = [table for table in PUBLISHED.ablations if table.table == 8]
    expected = []
    for row in table.rows:
        width = row.fields["model.group_width"]
        params, gmacs = cost_of("morphmlp_t_image", group_width=width)
        expected.append([row.variant, f"{row.params_m:g}", params, f"{row.gflops:g}", gmacs])
        assert cost_of("morphmlp_t_image", 1, group_width=width) == (f"{row.params_m:.1f}", f"{row.gflops:.1f}")
    assert widths == expected
    [videos] = rows_of("models.md", "Videos")
    for model, frames, *counted, printed in videos:
        assert counted == [*cost_of(f"morphmlp_{model[-1].lower()}_{frames}x4")]
        rows = [row for row in PUBLISHED.videos if (row.model, row.frames) == (model, int(frames))]
        views = {f"{row.gflops_total / row.num_views[0] / row.num_views[1]:g}" for row in rows}
        assert printed == ", ".join(sorted(views))
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    plain = [cost_of(f"morphmlp_{size}_image", branch_sum="plain")[0] for size in "tsbl"]
    assert f"S has {plain[1]} M" in text
    assert f"{plain[0]}, {plain[2]} and {plain[3]} M" in text


def test_the_page_on_models_has_the_counts_of_networks_that_segment():
    fpn = load_config(ROOT / "tests" / "unit" / "small_segmentation.yaml").segmentation
    decoders = {
        "Semantic FPN": replace(fpn, decoder="semantic_fpn", decoder_channels=128, auxiliary_weight=0.0),
        "UPerNet": replace(fpn, decoder="upernet", decoder_channels=512, auxiliary_weight=0.4),
    }
    printed = {row.model: row.params_m for row in PUBLISHED.segmentations}
    [table] = rows_of("models.md", "Segmentation")
    assert len(table) == 8
    for model, decoder, shown, params, plain, gmacs in table:
        resnet = model == "ResNet-50"
        size = "t" if resnet else model[-1].lower()
        network = replace(preset(f"morphmlp_{size}_image").model, num_classes=150, chunk_crop_size=224)
        segmentation = replace(decoders[decoder], backbone="resnet50" if resnet else "morphmlp")
        found = [
            planned_cost(replace(network, branch_sum=how), num_frames=1, crop_size=512, segmentation=segmentation)
            for how in ("weighted", "plain")
        ]
        assert shown == (f"{printed[model]:g}" if decoder == "Semantic FPN" else "")
        assert (params, gmacs) == (f"{found[0].params / 1e6:.2f}", f"{found[0].gmacs:.2f}")
        assert plain == ("" if resnet else f"{found[1].params / 1e6:.2f}")


def test_the_page_on_ablations_has_what_is_printed():
    names = ("top1", "miou", "params_m", "gflops", "images_per_s")
    expected = []
    for table in PUBLISHED.ablations:
        columns = [name for name in names if any(getattr(row, name) is not None for row in table.rows)]
        expected.append([[row.variant, *(float(getattr(row, name)) for name in columns)] for row in table.rows])
    shown = rows_of("ablations.md", "What the paper found")
    for table, own, rows in zip(PUBLISHED.ablations, expected, shown, strict=True):
        numbers = [[float(cell) for cell in row if re.fullmatch(r"[\d.]+", cell)] for row in rows]
        assert [[row[0], *found] for row, found in zip(rows, numbers, strict=True)] == own
        for row, cells in zip(table.rows, rows, strict=True):
            if row.fields is not None:
                fields = yaml.safe_load(f"{{{cells[1].replace('`', '')}}}")
                assert {f"model.{name}": value for name, value in fields.items()} == row.fields
