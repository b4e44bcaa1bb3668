import pandas as pd

from morphmlp.record import MetricPoint, Tags
from morphmlp.reporting.tables.steps_to_score import COLUMNS, steps_table

CURVES = {"a": (40.0, 96.9, 97.0, 90.0), "b": (97.5,), "c": (9.0,), "d": ()}
"""Validation top-1 by epoch, of runs by their ids."""


def run(name, *, seed=0, start=float("nan"), batch=16, videos=2001):
    return {
        "run_id": name,
        "run_name": f"run {name}",
        "params.task": "classification",
        "params.train.seed": str(seed),
        "params.train.epochs": "4",
        "params.train.global_batch_size": str(batch),
        f"tags.{Tags.EXPERIMENT}": "demo-s",
        f"tags.{Tags.DATA_TRAIN}": f"{videos}:0123",
        f"tags.{Tags.START_FROM}": start,
    }


def history(run_id, keys):
    assert list(keys) == ["val/top1"]
    return [MetricPoint(*keys, value, epoch, 1) for epoch, value in enumerate(CURVES[run_id], 1)]


def table(*runs, at_least=97.0):
    found = steps_table(pd.DataFrame(runs), history, at_least=at_least)
    assert tuple(found.columns) == COLUMNS
    return [tuple(row) for row in found.to_numpy()]


def test_steps_count_to_the_end_of_the_first_epoch_that_was_so_good():
    [row] = table(run("a"))
    assert row == ("demo-s", "fresh", "0", "375", "3", "4", "run a")  # 125 whole steps of 16 in an epoch


def test_a_run_that_never_was_so_good_or_never_validated_has_no_number():
    assert [row[3:5] for row in table(run("c"), run("d", seed=1))] == [("", ""), ("", "")]


def test_rows_come_by_experiment_start_and_seed():
    rows = table(
        run("b", seed=1, start="stills/step-7-1a2b sha256:12 inflate=centre"), run("a", seed=1), run("c"), at_least=50
    )
    assert [row[1:3] for row in rows] == [("fresh", "0"), ("fresh", "1"), ("stills", "1")]


def test_a_step_takes_all_videos_where_they_are_fewer_than_the_batch():
    [row] = table(run("b", videos=10))
    assert row[3] == "1"


def test_a_run_whose_length_is_in_steps_counts_them_as_they_are():
    [row] = table({**run("a"), "params.train.steps": "9", "params.train.epochs": "None"})
    assert row[3:6] == ("3", "", "9 steps")
    [row] = table({**run("a"), "params.train.steps": "None"})
    assert row[3:6] == ("375", "3", "4")
