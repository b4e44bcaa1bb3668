from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from morphmlp.config.loading import flat_fields, load_config
from morphmlp.config.schema import EarlyStoppingConfig
from morphmlp.models.presets import preset
from morphmlp.record import Metrics, Tags
from morphmlp.reporting.tables import cells as table_cells
from morphmlp.reporting.tables.cells import others_table
from morphmlp.reporting.tables.measured import measured_runs
from morphmlp.reporting.tables.published import load_published
from morphmlp.tasks import scores
from morphmlp.tasks.scores import TOP1, TOP5, ScoreName
from morphmlp.tracking.writer import param_text

ROOT = Path(__file__).parents[4]
PUBLISHED = load_published(ROOT / "experiments" / "published.yaml")
K400_S16 = [row for row in PUBLISHED.videos if row.preset == "morphmlp_s_16x4"]
NO_RUNS = pd.DataFrame()


@pytest.fixture(scope="module")
def k400():
    return load_config(ROOT / "experiments" / "k400" / "morphmlp_s_16x4.yaml")


def published_table(rows, frame):
    return table_cells.published_table(rows, measured_runs(frame)).cells


def measured_table(frame, dataset):
    return table_cells.measured_table(measured_runs(frame), dataset).cells


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


@pytest.mark.parametrize(
    ("evaluates", "weights", "trained", "stands"),
    [
        ("e1", "w", {}, True),
        ("", "w", {}, True),  # a file, of whose training nothing is known
        ("e1", "part-trained", {}, False),  # another checkpoint than the one that the run tested at its end
        ("e1", "w", {"train__epochs": 5}, False),  # a run of another length, evaluated under the published experiment
        ("e1", "w", {"test__checkpoint": "best"}, False),  # chosen by validation, whatever the evaluation was told
        ("e1", None, {}, False),
    ],
)
def test_an_evaluation_stands_next_to_a_number_where_its_weights_are_those_of_such_a_training(
    k400, evaluates, weights, trained, stands
):
    known = {} if weights is None else {Tags.WEIGHTS: "w"}
    training = run_row(k400, run_id="e1", test__num_clips=1, tags=known, **trained)
    evaluation = run_row(
        k400, run_id="f2", metrics={TOP1.test_metric: 70.0, Metrics.TEST_NUM_VIDEOS: 19000.0},
        tags={Tags.EVALUATES: evaluates, Tags.WEIGHTS: weights},
    )  # fmt: skip
    assert measured(training, evaluation)["measured top-1"] == ("70.0" if stands else "")
    assert ("weights of a file" in measured(training, evaluation)["run"]) == (evaluates == "")


def test_without_runs_the_measured_cells_are_empty():
    [cells] = published_table(K400_S16, NO_RUNS).to_dict("records")
    assert list(cells.values()) == [
        *("MorphMLP-S", "16", "4 clips x 1 crop", "47.0", "66.4", "265.4", "268", "78.7", "93.8"),
        *[""] * 12,
    ]


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


def test_a_test_on_larger_crops_does_not_stand_next_to_published_numbers_and_costs_more(k400):
    assert measured(run_row(k400, test__crop_size=288))["measured top-1"] == ""
    frame = pd.DataFrame([run_row(replace(k400, dataset="demo"), test__crop_size=288)])
    [cells] = measured_table(frame, "demo").to_dict("records")
    assert cells["views"] == "4 clips x 1 crop of 288 px"
    assert float(cells["GMAC/view"]) > 66.4 * (288 / 224) ** 2


@pytest.mark.parametrize("later", ["test.single_crop", "test.checkpoint", "model.branches", "test.crop_size"])
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
        *("mixed", "mixed", "47.0", "66.4", "4 clips x 1 crop", "265.4", "97.5", "94.3 to 98.9"),
        *("100.0", "98.1 to 100.0", "200", "", "", "0.123"),
        *("0123456789ab", "fffffff", "2026-01-01", "2.5", "demo-mixed (abcdef01)"),
    ]


def test_a_run_of_a_task_that_comes_later_is_shown_with_its_own_scores(k400, monkeypatch):
    toy = (ScoreName(key="toy", title="toy score"), ScoreName(key="mean", title="mean"))
    monkeypatch.setitem(scores.SCORES, "toy", toy)
    metrics = {"test/toy": 41.26, Metrics.TEST_NUM_VIDEOS: 200.0}
    own = replace(k400, dataset="mine", name="own")
    table = measured_table(pd.DataFrame([run_row(own, metrics=metrics, task="toy")]), "mine")
    [cells] = table.to_dict("records")
    assert (cells["toy score"], cells["mean"], cells["n videos"]) == ("41.3", "", "200")
    assert "top-1" not in table.columns


def test_a_run_recorded_under_another_schema_keeps_its_result_without_cost(k400):
    demo = replace(k400, dataset="demo")
    [cells] = measured_table(pd.DataFrame([run_row(demo, model__invented=1)]), "demo").to_dict("records")
    assert (cells["top-1"], cells["params (M)"], cells["GMAC/view"]) == ("78.2", "", "")


def test_numbers_of_other_networks_stand_with_their_source_and_without_empty_columns():
    table = others_table(PUBLISHED.others, "ssv1").cells
    assert list(table.columns) == ["model", "kind", "pretrained on", "params (M)", "GFLOPs", "top-1", "top-5", "source"]
    assert table.to_dict("records")[-1] == {
        **{"model": "UniFormer-B 32 frames", "kind": "mixed", "pretrained on": "Kinetics-400", "params (M)": "50"},
        **{"GFLOPs": "777", "top-1": "60.9", "top-5": "", "source": "README.md of Sense-X/UniFormer"},
    }
    segmentation = others_table(PUBLISHED.others, "ade20k").cells
    assert list(segmentation.columns) == ["model", "kind", "mIoU", "source"]
    assert segmentation["mIoU"].tolist()[-3:] == ["45.1", "46.6", "48.0"]


@pytest.fixture(scope="module")
def imagenet(k400):
    """An experiment like the published image training, as far as a table looks at it."""
    chosen = preset("morphmlp_s_image")
    return replace(
        k400,
        name="in1k-s",
        dataset="imagenet",
        model=chosen.model,
        clip=replace(k400.clip, sampling="segments", num_frames=1, frame_stride=None),
        train=replace(k400.train, epochs=300),
        test=replace(k400.test, num_clips=1, weights="raw"),
    )


def image_row(*rows):
    images = [row for row in PUBLISHED.images if row.preset == "morphmlp_s_image"]
    [cells] = published_table(images, pd.DataFrame(rows)).to_dict("records")
    return cells


def test_an_image_row_has_what_is_printed_of_its_size_and_says_nothing_of_frames_and_views():
    assert image_row() == {
        **{"model": "MorphMLP-S", "resolution": "224", "params (M)": "40.5", "printed (M)": "38"},
        **{"GMAC": "7.0", "printed GFLOPs": "7.0", "published top-1": "82.6", "published top-5": ""},
        **dict.fromkeys(("measured top-1", "top-1 95 %", "delta", "measured top-5", "top-5 95 %", "n images"), ""),
        **dict.fromkeys(("quarantined", "test ids", "fingerprint", "commit", "date", "run"), ""),
    }


def test_a_run_of_the_published_image_training_fills_its_row(imagenet):
    metrics = {TOP1.test_metric: 82.0, TOP5.test_metric: 96.04, Metrics.TEST_NUM_VIDEOS: 50000.0}
    cells = image_row(run_row(imagenet, metrics=metrics))
    assert (cells["measured top-1"], cells["delta"], cells["measured top-5"]) == ("82.0", "-0.6", "96.0")
    assert (cells["n images"], cells["run"]) == ("50000", "in1k-s (abcdef01)")


@pytest.mark.parametrize(
    "change",
    [
        {"train__epochs": 100},
        {"clip__crop_size": 256},
        {"test__num_crops": 3},
        {"test__single_crop": "left"},
        {"test__weights": "averaged"},
        {"test__crop_size": 288},
        {"start_from__weights": "other.pth"},
        {"model__chunk_lengths": [28, 28, 28, 49]},
        {"dataset": "k400"},
    ],
)
def test_another_image_training_leaves_the_row_empty(imagenet, change):
    dataset = change.pop("dataset", "imagenet")
    assert image_row(run_row(replace(imagenet, dataset=dataset), **change))["measured top-1"] == ""


def test_another_data_set_of_images_has_a_table_of_its_own_without_views(imagenet):
    metrics = {TOP1.test_metric: 91.25, Metrics.TEST_NUM_VIDEOS: 10000.0}
    own = run_row(replace(imagenet, dataset="fashion_mnist", name="fashion"), metrics=metrics, test__crop_size=448)
    [cells] = measured_table(pd.DataFrame([own]), "fashion_mnist").to_dict("records")
    assert cells == {
        **{"experiment": "fashion", "params (M)": "40.5", "GMAC": "27.9"},  # 4 x 6.97
        **{"resolution": "448", "top-1": "91.2", "top-1 95 %": "90.7 to 91.8", "top-5": "", "top-5 95 %": ""},
        **{"n images": "10000", "quarantined": "", "test ids": "", "train loss": "", "fingerprint": "0123456789ab"},
        **{"commit": "fffffff", "date": "2026-01-01", "wall time (min)": "", "run": "fashion (abcdef01)"},
    }


def test_runs_of_images_and_of_videos_on_one_data_set_share_the_table_of_videos(imagenet, k400):
    rows = [run_row(replace(imagenet, dataset="mine")), run_row(replace(k400, dataset="mine"))]
    table = measured_table(pd.DataFrame(rows), "mine")
    assert table["temporal"].tolist() == ["none", "mixed"]
    assert "n videos" in table.columns


def test_a_trial_of_a_few_epochs_does_not_stand_next_to_a_published_number(k400):
    assert measured(run_row(k400))["measured top-1"] == "78.2"
    assert measured(run_row(k400, train__epochs=1))["measured top-1"] == ""


def test_a_trial_of_a_sweep_does_not_stand_next_to_a_published_number(k400):
    assert measured(run_row(k400, tags={Tags.PARENT: "f00"}))["measured top-1"] == ""


SEGMENTED = {
    **{"test/miou": 44.26, "test/miou_low": 43.11, "test/miou_high": 45.4},
    **{"test/macc": 55.5, "test/aacc": 81.0, Metrics.TEST_NUM_VIDEOS: 2000.0},
}


@pytest.fixture(scope="module")
def ade20k():
    return load_config(ROOT / "experiments" / "ade20k" / "morphmlp_s_semantic_fpn.yaml")


def segmented_rows(*rows):
    table = published_table(PUBLISHED.models("ade20k"), pd.DataFrame(rows))
    return {cells.pop("model"): cells for cells in table.to_dict("records")}


def test_a_run_of_the_published_segmentation_fills_its_row_alone(ade20k):
    rows = segmented_rows(run_row(ade20k, metrics=SEGMENTED))
    assert rows["MorphMLP-S"] == {
        **{"crops": "512", "params (M)": "44.2", "printed (M)": "41.0", "GMAC": "60.1", "published mIoU": "44.7"},
        **{"measured mIoU": "44.3", "mIoU 95 %": "43.1 to 45.4", "delta": "-0.4", "n images": "2000"},
        **{"quarantined": "", "test ids": "", "fingerprint": "0123456789ab", "commit": "fffffff"},
        **{"date": "2026-01-01", "run": "ade20k-morphmlp-s-semantic-fpn (abcdef01)"},
    }
    assert {name: row["measured mIoU"] for name, row in rows.items() if name != "MorphMLP-S"} == {
        **{"ResNet-50": "", "MorphMLP-T": "", "MorphMLP-B": ""}
    }


@pytest.mark.parametrize(
    "change",
    [
        {"train__steps": 40000},
        {"train__global_batch_size": 32},
        {"train__max_steps": 100},
        {"clip__crop_size": 224},
        {"clip__short_edge": 448},
        {"segmentation__decoder": "upernet"},
        {"segmentation__loss_over": "valid_pixels"},
        {"segmentation__test__scales": [0.5, 1.0]},
        {"segmentation__test__flip": True},
        {"segmentation__test__mode": "slide"},
        {"test__checkpoint": "best"},
        {"model__chunk_shape": "padded_line"},
        {"dataset": "mine"},
    ],
)
def test_another_segmentation_leaves_the_row_empty(ade20k, change):
    config = replace(ade20k, dataset=change.pop("dataset", "ade20k"))
    rows = segmented_rows(run_row(config, metrics=SEGMENTED, **change))
    assert {row["measured mIoU"] for row in rows.values()} == {""}


def test_drop_path_is_not_printed_so_that_any_goes(ade20k):
    rows = segmented_rows(run_row(ade20k, metrics=SEGMENTED, model__drop_path_rate=0.3))
    assert rows["MorphMLP-S"]["measured mIoU"] == "44.3"


def test_another_data_set_of_label_maps_has_its_scores_and_how_images_were_seen(ade20k):
    own = replace(ade20k, dataset="mine", name="own")
    scales = {"segmentation__test__scales": [0.5, 1.0], "segmentation__test__flip": True}
    [cells] = measured_table(pd.DataFrame([run_row(own, metrics=SEGMENTED, **scales)]), "mine").to_dict("records")
    assert cells == {
        **{"experiment": "own", "params (M)": "44.2", "GMAC": "60.1", "resolution": "512"},
        **{"test": "whole image, 2 scales, mirrored too", "mIoU": "44.3", "mIoU 95 %": "43.1 to 45.4"},
        **{"mAcc": "55.5", "mAcc 95 %": "", "aAcc": "81.0", "aAcc 95 %": "", "n images": "2000", "quarantined": ""},
        **{"test ids": "", "train loss": "", "fingerprint": "0123456789ab", "commit": "fffffff"},
        **{"date": "2026-01-01", "wall time (min)": "", "run": "own (abcdef01)"},
    }


A_COPY, ANOTHER = {Tags.DATA_TEST: "19761:1f0c"}, {Tags.DATA_TEST: "19907:77b1"}


def test_a_score_stands_with_its_interval_its_items_and_its_day(k400):
    """Oracle of the interval: statsmodels' Wilson interval of 14868 of 19000, 0.7766 to 0.7883."""
    metrics = {TOP1.test_metric: 78.25, TOP5.test_metric: 93.0, Metrics.TEST_NUM_VIDEOS: 19000.0}
    cells = measured(run_row(k400, metrics=metrics | {Metrics.TEST_NUM_QUARANTINED: 7.0}, tags=A_COPY))
    assert (cells["top-1 95 %"], cells["top-5 95 %"]) == ("77.7 to 78.8", "92.6 to 93.4")
    assert (cells["n videos"], cells["quarantined"], cells["test ids"]) == ("19000", "7", "19761:1f0c")
    assert cells["date"] == "2026-01-01"


def test_a_recorded_interval_takes_the_place_of_wilsons(k400):
    metrics = {TOP1.test_metric: 78.25, f"{TOP1.test_metric}_low": 70.0, f"{TOP1.test_metric}_high": 80.0}
    assert measured(run_row(k400, metrics=metrics | {Metrics.TEST_NUM_VIDEOS: 9.0}))["top-1 95 %"] == "70.0 to 80.0"


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "marks"),
    [(A_COPY, A_COPY, {}), (A_COPY, ANOTHER, {0: "a", 1: "b"}), (A_COPY, {}, {0: "a", 1: "b"}), ({}, {}, {})],
)
def test_scores_of_different_test_items_never_share_a_column_without_marks(k400, published, first, second, marks):
    s32 = load_config(ROOT / "experiments" / "k400" / "morphmlp_s_32x4.yaml")
    runs = measured_runs(pd.DataFrame([run_row(k400, tags=first), run_row(s32, tags=second)]))
    names = ("morphmlp_s_16x4", "morphmlp_s_32x4")
    rows = [row for row in PUBLISHED.videos if row.preset in names and row.dataset == "k400"]
    table = table_cells.published_table(rows, runs) if published else table_cells.measured_table(runs, "k400")
    scores_of_runs = ("measured top-1", "measured top-5") if published else ("top-1", "top-5")
    assert (table.marks, table.marked) == (marks, scores_of_runs)
    if not marks:
        assert table.notes == ()
    else:
        other = "b 19907 items, ids 77b1" if second else "b items that weren't recorded"
        [note] = table.notes
        assert note.endswith(f"don't rank: a 19761 items, ids 1f0c; {other}.")


def test_what_only_a_test_gives_stands_where_it_was_recorded(k400):
    assert "mean class accuracy" not in measured_table(pd.DataFrame([run_row(k400)]), "k400").columns
    metrics = {"test/top1": 78.25, Metrics.TEST_NUM_VIDEOS: 19000.0, "test/mean_class_acc": 77.5, "test/nll": 0.91234}
    metrics |= {"test/mean_class_acc_low": 76.9, "test/mean_class_acc_high": 78.1}
    [cells] = measured_table(pd.DataFrame([run_row(k400, metrics=metrics)]), "k400").to_dict("records")
    assert (cells["mean class accuracy"], cells["mean class accuracy 95 %"]) == ("77.5", "76.9 to 78.1")
    assert (cells["NLL (nats)"], "ECE" in cells) == ("0.912", False)


def test_an_experiment_tested_in_two_ways_or_on_two_copies_has_a_row_for_each(k400):
    rows = [
        run_row(k400, tags=A_COPY),
        run_row(k400, minute=1, tags=A_COPY, run_id="newer"),
        run_row(k400, tags=ANOTHER),
        run_row(k400, tags=A_COPY, test__num_clips=10, test__num_crops=3),
    ]
    table = measured_table(pd.DataFrame(rows), "k400")
    shown = set(zip(table["views"], table["test ids"], table["GMAC x views"], strict=True))
    assert shown == {
        ("4 clips x 1 crop", "19761:1f0c", "265.4"),
        ("4 clips x 1 crop", "19907:77b1", "265.4"),
        ("10 clips x 3 crops", "19761:1f0c", "1990.8"),
    }
    assert "k400-morphmlp-s-16x4 (newer)" in set(table["run"])
