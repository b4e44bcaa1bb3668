"""What is wrong with an experiment is told before Ray starts."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from morphmlp.cli import ExperimentArguments
from morphmlp.config import load_config
from morphmlp.errors import ClusterError, ConfigError, QuarantineLimitError
from morphmlp.experiment import ray_pipeline
from morphmlp.experiment.result import ExperimentResult
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.scores import scores_of

SMALL = Path(__file__).parents[1] / "small_experiment.yaml"


class RayStartedError(Exception):
    """In the place of a Ray session."""


@pytest.fixture
def train(monkeypatch):
    """Trains from weights, on videos that are taken to be there, up to the start of Ray."""

    def train(weights, *, ends_in=RayStartedError):
        def no_session(*arguments, **options):
            raise ends_in

        config = load_config(SMALL, {"start_from.weights": str(weights)})
        names = [f"class {number}" for number in range(config.model.num_classes)]

        class Videos(SimpleNamespace):
            def __len__(self):
                return 100

        monkeypatch.setattr(
            ray_pipeline, "read_splits", lambda config: SimpleNamespace(train=Videos(class_names=names, items="videos"))
        )
        monkeypatch.setattr(ray_pipeline, "require_free", lambda config, data, run_name: None)
        monkeypatch.setattr(ray_pipeline, "ray_session", no_session)
        ray_pipeline.train_and_report(ExperimentArguments(config=config, run_name="run", json=None))

    return train


def test_wrong_starting_weights_are_one_line_and_no_ray_is_started(train, tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(tmp_path / "no.pth")
    assert caught.value.faults == (f"start_from.weights: {tmp_path}/no.pth: can't be read: No such file or directory",)


def test_right_starting_weights_let_ray_start(train, tmp_path):
    torch.save(task_of(load_config(SMALL)).network().state_dict(), tmp_path / "w.pth")
    with pytest.raises(RayStartedError):
        train(tmp_path / "w.pth")


def test_a_run_that_ends_for_its_broken_videos_says_how_it_goes_on_once_they_are_mended(train, tmp_path):
    torch.save(task_of(load_config(SMALL)).network().state_dict(), tmp_path / "w.pth")
    with pytest.raises(QuarantineLimitError) as caught:
        train(tmp_path / "w.pth", ends_in=QuarantineLimitError("8 of 384 train videos can't be used"))
    assert str(caught.value) == (
        "8 of 384 train videos can't be used; then continue with the same command and --run-name run (runs/run)"
    )


RESULT = ExperimentResult(
    run_id="0a1b",
    run_name="first",
    fingerprint="f",
    score=50.0,
    scores={"top1": 50.0, "top5": 75.0},
    intervals={},
    num_videos=4,
    items="videos",
    num_quarantined=1,
    quarantined={"train": 3, "val": 0, "test": 1},
    unscored=("v (v.mp4): no frames",),
    checkpoint="c",
    tested="last checkpoint, step 4",
    wall_s=61.4,
    cpu_s=1.0,
    clips_per_s=1.0,
)


@pytest.mark.parametrize(("max_steps", "points_to_tables"), [(None, True), (2, False)])
def test_a_run_ends_with_its_result_what_was_left_out_and_the_way_to_its_table(
    max_steps, points_to_tables, monkeypatch, capsys
):
    config = load_config(SMALL, {"dataset": "my own", "train.max_steps": max_steps})
    monkeypatch.setattr(ray_pipeline, "train_and_report", lambda arguments: RESULT)
    ray_pipeline.train_pipeline(ExperimentArguments(config=config, run_name="first", json=None))
    assert capsys.readouterr().out.splitlines() == [
        f"first: test top-1 50.00, top-5 75.00 of 4 videos ({config.test.in_words}; last checkpoint, step 4; "
        "quarantined: 3 of train, 1 of test), 61 s, MLflow run 0a1b",
        "not scored: v (v.mp4): no frames",
        *["next to earlier runs: python pipelines/tables.py --dataset 'my own'"] * points_to_tables,
    ]


def test_of_sound_videos_none_is_quarantined():
    sound = replace(RESULT, quarantined={"train": 0, "val": 0, "test": 0})
    assert "; quarantined: none)" in sound.in_words("1 clip x 1 crop", task_of(load_config(SMALL)).scores)


def test_a_result_on_images_is_one_of_images():
    images = replace(RESULT, items="images")
    assert " of 4 images (" in images.in_words("1 clip x 1 crop", task_of(load_config(SMALL)).scores)


def test_a_score_that_is_no_share_of_the_images_stands_with_its_interval():
    scores = {"miou": 43.0, "macc": 55.5, "aacc": 80.25}
    segmented = replace(RESULT, scores=scores, intervals={"miou": (41.5, 44.25)}, items="images")
    words = segmented.in_words("whole image", scores_of("segmentation"))
    assert ": test mIoU 43.00 (95 % interval 41.50-44.25), mAcc 55.50, aAcc 80.25 of 4 images (whole image; " in words


def test_a_cluster_that_does_not_answer_is_told_before_anything_else(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "garbage")
    config = load_config(SMALL, {"data.train": "/no/such.parquet"})
    with pytest.raises(ClusterError, match="RAY_ADDRESS 'garbage'"):
        ray_pipeline.train_and_report(ExperimentArguments(config=config, run_name="run", json=None))
