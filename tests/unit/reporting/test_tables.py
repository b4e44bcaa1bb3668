import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from morphmlp.config.loading import flat_fields, load_config
from morphmlp.config.schema import EarlyStoppingConfig
from morphmlp.errors import ConfigError
from morphmlp.models.presets import PRESETS, preset
from morphmlp.record import Metrics, Tags
from morphmlp.reporting.tables import (
    load_published,
    measured_table,
    other_table,
    published_table,
    render,
)
from morphmlp.tasks import scores
from morphmlp.tasks.scores import TOP1, TOP5, ScoreName
from morphmlp.tracking.writer import param_text

ROOT = Path(__file__).parents[3]
PUBLISHED = load_published(ROOT / "experiments" / "published.yaml")
K400_S16 = [row for row in PUBLISHED.videos if row.preset == "morphmlp_s_16x4"]
NO_RUNS = pd.DataFrame()


@pytest.fixture(scope="module")
def k400():
    return load_config(ROOT / "experiments" / "k400" / "morphmlp_s_16x4.yaml")


def run_row(config, *, minute=0, run_id="abcdef0123", metrics=None, tags=None, **params):
    """A row as `read_runs` gives it."""
    fields = flat_fields(config) | {name.replace("__", "."): value for name, value in params.items()}
    metrics = {TOP1.test_metric: 78.25, Metrics.TEST_NUM_VIDEOS: 19000.0} if metrics is None else metrics
    all_tags = {Tags.FINGERPRINT: "0123456789ab", Tags.GIT_COMMIT: "f" * 40, Tags.GIT_DIRTY: "false"} | (tags or {})
    return {
        "run_id": run_id,
        "run_name": config.name,
        "dataset": config.dataset,
        "start_time": pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(minutes=minute),
        **{f"params.{name}": param_text(value) for name, value in fields.items()},
        **{f"tags.{name}": value for name, value in all_tags.items() if value is not None},
        **{f"metrics.{name}": value for name, value in metrics.items()},
    }


def measured(*rows):
    [cells] = published_table(K400_S16, pd.DataFrame(rows)).to_dict("records")
    return cells


def test_twelve_video_models_are_published_with_source_and_without_top5():
    assert len(PUBLISHED.videos) == 12
    assert all("commit 62ebe80" in row.source and row.top5 is None for row in PUBLISHED.videos)


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


def test_without_runs_the_measured_cells_are_empty():
    [cells] = published_table(K400_S16, NO_RUNS).to_dict("records")
    assert list(cells.values()) == ["MorphMLP-S", "16", "4 clips x 1 crop", "47.0", "66.4", "78.7", *[""] * 6]


def test_a_run_of_the_same_network_clip_and_views_fills_its_row(k400):
    cells = measured(run_row(k400, tags={Tags.GIT_DIRTY: "true"}))
    assert cells["measured top-1"] == "78.2"
    assert cells["delta"] == "-0.5"
    assert cells["n videos"] == "19000"
    assert cells["fingerprint"] == "0123456789ab"
    assert cells["commit"] == "fffffff+"
    assert cells["run"] == "k400-morphmlp-s-16x4 (abcdef01)"


def test_the_latest_run_counts(k400):
    newer = {TOP1.test_metric: 70.0, Metrics.TEST_NUM_VIDEOS: 1.0}
    assert measured(run_row(k400), run_row(k400, minute=1, metrics=newer), run_row(k400))["measured top-1"] == "70.0"


def test_a_run_that_may_have_ended_early_leaves_the_row_empty(k400):
    early = replace(k400, train=replace(k400.train, early_stopping=EarlyStoppingConfig(epochs=3)))
    assert measured(run_row(early))["measured top-1"] == ""


def test_a_run_of_a_task_that_is_not_known_here_is_passed_over(k400):
    cells = measured(run_row(k400, minute=1, task="toy"), run_row(k400))
    assert cells["measured top-1"] == "78.2"


@pytest.mark.parametrize(
    "change",
    [
        {"train__max_steps": 100},
        {"model__depths": [4, 6, 15, 4]},
        {"model__temporal": "averaged"},
        {"clip__num_frames": 32},
        {"clip__frame_stride": 8},
        {"clip__crop_size": 112},
        {"test__num_clips": 10},
        {"test__num_crops": 3},
    ],
)
def test_a_run_that_differs_or_was_cut_short_leaves_the_row_empty(k400, change):
    assert measured(run_row(k400, **change))["measured top-1"] == ""


def one_crop_row(config, **params):
    """What a run fills of V1's one-crop row and of its three-crop row."""
    rows = [row for row in PUBLISHED.videos if row.preset == "morphmlp_s_16_ssv1"]
    table = published_table(rows, pd.DataFrame([run_row(config, **params)]))
    return dict(zip(table["views"], table["measured top-1"], strict=True))


def test_the_one_crop_row_of_something_something_needs_the_left_crop():
    config = load_config(ROOT / "experiments" / "ssv1" / "morphmlp_s_16.yaml")
    one, three = "1 clip x 1 crop", "1 clip x 3 crops"
    assert one_crop_row(config) == {one: "", three: "78.2"}
    assert one_crop_row(config, test__num_crops=1) == {one: "", three: ""}
    assert one_crop_row(config, test__num_crops=1, test__single_crop="left") == {one: "78.2", three: ""}


def test_a_kinetics_row_needs_the_centre_crop(k400):
    assert measured(run_row(k400, test__single_crop="left"))["measured top-1"] == ""


def test_a_checkpoint_that_validation_chose_does_not_stand_next_to_published_numbers(k400):
    assert measured(run_row(k400, test__checkpoint="best"))["measured top-1"] == ""
    frame = pd.DataFrame([run_row(replace(k400, dataset="demo"), test__checkpoint="best")])
    [cells] = measured_table(frame, "demo").to_dict("records")
    assert cells["views"] == "4 clips x 1 crop, best checkpoint"


@pytest.mark.parametrize("later", ["test.single_crop", "test.checkpoint"])
def test_a_run_from_before_a_field_of_the_test_counts_with_its_default(k400, later):
    row = run_row(k400)
    del row[f"params.{later}"]
    assert measured(row)["measured top-1"] == "78.2"


def test_a_result_without_video_count_or_fingerprint_leaves_the_row_empty(k400):
    assert measured(run_row(k400, metrics={TOP1.test_metric: 80.0}))["measured top-1"] == ""
    assert measured(run_row(k400, tags={Tags.FINGERPRINT: None}))["measured top-1"] == ""


def test_a_run_on_another_data_set_leaves_the_row_empty(k400):
    assert measured(run_row(replace(k400, dataset="ssv2")))["measured top-1"] == ""


def test_the_demo_lists_the_latest_run_of_each_experiment(k400):
    demo = replace(k400, dataset="demo", name="demo-mixed")
    metrics = {
        TOP1.test_metric: 97.5,
        TOP5.test_metric: 100.0,
        Metrics.TEST_NUM_VIDEOS: 200.0,
        Metrics.TRAIN_EPOCH_LOSS: 0.1234,
        Metrics.RUN_WALL_S: 150.0,
    }
    rows = [
        run_row(demo, minute=1, metrics=metrics, tags={Tags.EXPERIMENT: "mixed"}),
        run_row(demo, tags={Tags.EXPERIMENT: "mixed"}),
        run_row(demo, tags={Tags.EXPERIMENT: "averaged"}, model__temporal="averaged"),
        run_row(demo, minute=2, tags={Tags.EXPERIMENT: "mixed"}, train__max_steps=3),
        run_row(demo, minute=3, tags={Tags.EXPERIMENT: "mixed", Tags.PARENT: "sweep"}),
        run_row(k400, tags={Tags.EXPERIMENT: "kinetics"}),
    ]
    averaged, mixed = measured_table(pd.DataFrame(rows), "demo").to_dict("records")
    assert (averaged["experiment"], averaged["temporal"]) == ("averaged", "averaged")
    assert (averaged["top-5"], averaged["train loss"], averaged["wall time (min)"]) == ("", "", "")
    assert float(averaged["params (M)"]) < float(mixed["params (M)"])
    assert list(mixed.values()) == [
        *("mixed", "mixed", "47.0", "66.4", "4 clips x 1 crop", "97.5", "100.0", "200", "0.123"),
        *("0123456789ab", "fffffff", "2.5"),
    ]


def test_a_run_of_another_task_is_shown_with_its_own_scores(k400, monkeypatch):
    miou = (ScoreName(key="miou", title="mIoU"), ScoreName(key="macc", title="mean accuracy"))
    monkeypatch.setitem(scores.SCORES, "segmentation", miou)
    metrics = {"test/miou": 41.26, Metrics.TEST_NUM_VIDEOS: 200.0}
    own = replace(k400, dataset="mine", name="own")
    table = measured_table(pd.DataFrame([run_row(own, metrics=metrics, task="segmentation")]), "mine")
    [cells] = table.to_dict("records")
    assert (cells["mIoU"], cells["mean accuracy"], cells["n videos"]) == ("41.3", "", "200")
    assert "top-1" not in table.columns


def test_a_run_recorded_under_another_schema_keeps_its_result_without_cost(k400):
    demo = replace(k400, dataset="demo")
    [cells] = measured_table(pd.DataFrame([run_row(demo, model__invented=1)]), "demo").to_dict("records")
    assert (cells["top-1"], cells["params (M)"], cells["GMAC/view"]) == ("78.2", "", "")


def test_tables_render_with_digits_as_printed(k400):
    table = published_table(K400_S16, pd.DataFrame([run_row(k400)]))
    markdown = render(table, style="markdown").splitlines()
    assert len(markdown) == 3
    assert all(line.count("|") == 13 for line in markdown)
    [row] = csv.DictReader(io.StringIO(render(table, style="csv")))
    assert row == table.to_dict("records")[0]
    latex = render(table, style="latex")
    assert latex.startswith("\\begin{tabular}{lrlrrrrrrlll}\n\\toprule")
    assert "47.0" in latex


@pytest.mark.parametrize("style", ["markdown", "csv", "latex"])
def test_a_table_without_rows_renders_its_header(style):
    assert "experiment" in render(measured_table(NO_RUNS, "demo"), style=style)


def test_other_tasks_carry_their_source():
    table = other_table(PUBLISHED.others)
    assert table["published"].tolist() == ["83.4", "45.9"]
    assert table["source"].str.contains("wizwand.com").all()


def test_faults_of_the_published_file_are_named_together(tmp_path):
    text = (ROOT / "experiments" / "published.yaml").read_text()
    file = tmp_path / "published.yaml"
    file.write_text(text.replace("top1: 78.7", "top1: 787").replace("1 clip x 1 crop", "one view"))
    with pytest.raises(ConfigError) as caught:
        load_published(file)
    assert [fault.split(": ")[1] for fault in caught.value.faults] == ["videos.0.top1", "videos.4.views"]


def test_a_trial_of_a_few_epochs_does_not_stand_next_to_a_published_number(k400):
    assert measured(run_row(k400))["measured top-1"] == "78.2"
    assert measured(run_row(k400, train__epochs=1))["measured top-1"] == ""


def test_a_trial_of_a_sweep_does_not_stand_next_to_a_published_number(k400):
    assert measured(run_row(k400, tags={Tags.PARENT: "f00"}))["measured top-1"] == ""
