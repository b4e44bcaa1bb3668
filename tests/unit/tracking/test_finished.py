"""Runs straight from the database are those that MLflow's own search gives."""

import math
import sqlite3
import subprocess
import sys

import pandas as pd
import pytest
from empty_store import empty_store
from mlflow import MlflowClient
from record_servers import DATABASES, record_store

from morphmlp.record import MetricPoint, Tags
from morphmlp.tracking import RunWriter, open_run, read_runs
from morphmlp.tracking.finished import database_rows
from morphmlp.tracking.runs import search_finished


@pytest.fixture(scope="module", params=DATABASES)
def uri(request):
    """Runs of two data sets and experiments: finished, running, failed, deleted, and with odd values."""
    with record_store(request.param) as uri:
        write_runs(uri)
        yield uri


def write_runs(uri):
    empty_store(uri)
    for name, dataset, status in (
        *(("one", "demo", "FINISHED"), ("two", "demo", "FINISHED"), ("three", "k400", "FINISHED")),
        *(("failed", "demo", "FAILED"), ("running", "demo", None), ("deleted", "demo", "FINISHED")),
        ("of a deleted experiment", "gone", "FINISHED"),
    ):
        tags = {Tags.EXPERIMENT: name[:3], "odd": '"quoted" ünï'}
        params = {"a": None, "b": [1, 2], "c": "text", f"only.{dataset}": 1.5}
        run = open_run(uri, experiment=dataset, run_name=name, tags=tags, params=params)
        points = [MetricPoint("test/top1", value, step, step) for step, value in enumerate((50.0, 70.0, 60.0))]
        odd = [MetricPoint("nan", math.nan, 0, 1), MetricPoint("inf", math.inf, 0, 1)]
        odd += [MetricPoint(key, 1.0, 0, 1) for key in ("system/gpu-1/cpu", "System/is-kept", "systems/are-kept")]
        writer = RunWriter(uri, run)
        writer.metrics([*points, *odd])
        if status is not None:
            writer.finish(status)
        if name == "deleted":
            MlflowClient(uri).delete_run(run)
    client = MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)


@pytest.mark.parametrize("dataset", [None, "demo", "k400", "gone", "none"])
@pytest.mark.parametrize("experiment", [None, "one", "it's"])
def test_both_ways_give_the_same_rows_in_the_same_order(uri, dataset, experiment):
    straight = database_rows(uri, experiment=experiment, dataset=dataset)
    searched = search_finished(uri, experiment=experiment, dataset=dataset)
    assert [row["run_name"] for row in straight] == [row["run_name"] for row in searched]
    frames = [pd.DataFrame(rows) for rows in (straight, searched)]
    assert (dataset, experiment) != (None, None) or len(frames[0]) == 3
    pd.testing.assert_frame_equal(*(frame[sorted(frame.columns)] for frame in frames))


def test_the_latest_value_counts_and_nan_stays(uri):
    frame = read_runs(uri, dataset="k400")
    [row] = frame.to_dict("records")
    assert (row["run_name"], row["dataset"], row["metrics.test/top1"]) == ("three", "k400", 60.0)
    assert math.isnan(row["metrics.nan"])
    assert [key for key in row if "system" in key.lower()] == ["metrics.System/is-kept", "metrics.systems/are-kept"]
    assert list(frame.columns[:4]) == ["run_id", "run_name", "dataset", "start_time"]


def test_a_database_with_other_tables_is_left_to_mlflow(uri, tmp_path):
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    connection.close()
    assert database_rows(f"sqlite:///{file}", experiment=None, dataset=None) is None
    assert database_rows("http://127.0.0.1:9", experiment=None, dataset=None) is None
    assert database_rows(f"sqlite:///{tmp_path}/none.db", experiment=None, dataset=None) == []


def test_workspaces_are_left_to_mlflow(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert database_rows(uri, experiment=None, dataset=None) is None


def test_tables_wait_neither_for_mlflow_nor_for_torch(uri):
    code = (
        "import sys; from morphmlp.tracking import read_runs; from morphmlp.reporting.tables import document, page; "
        f"print(len(read_runs({uri!r})), *({{'torch', 'mlflow', 'ray', 'scipy.stats'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "3\n"
