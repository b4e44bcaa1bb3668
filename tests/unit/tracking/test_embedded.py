"""What a command asks an embedded store before it starts: the same answers as MLflow's, without MLflow."""

import math
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from empty_store import empty_store
from mlflow import MlflowClient

from morphmlp.record import MetricPoint, Tags
from morphmlp.tracking import RunWriter, find_run, open_run, ready_store
from morphmlp.tracking.embedded import experiments_named, newest_run
from morphmlp.tracking.runs import _search

CODE = """
import sys
from morphmlp.tracking import find_run, ready_store
print(ready_store("demo"), find_run({uri!r}, run_name="one", experiment="demo").status, "mlflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Two runs of a name, runs in other states, and a deleted experiment."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('embedded')}/mlflow.db"
    empty_store(uri)
    client = MlflowClient(uri)
    for name, dataset, end in (
        *(("one", "demo", "FINISHED"), ("one", "demo", None), ("one", "k400", "KILLED")),
        *(("deleted", "demo", "FINISHED"), ("of a deleted experiment", "gone", "FINISHED")),
    ):
        run = open_run(uri, experiment=dataset, run_name=name, tags={Tags.EXPERIMENT: "é"}, params={"a": [1], "b": "x"})
        writer = RunWriter(uri, run)
        writer.metrics([MetricPoint("test/top1", value, step, 10 + step) for step, value in enumerate((50.0, 60.0))])
        writer.metrics([MetricPoint("nan", math.nan, 3, 1), MetricPoint("inf", math.inf, 0, 1)])
        if end is not None:
            writer.finish(end)
        if name == "deleted":
            client.delete_run(run)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    return uri


@pytest.mark.parametrize("experiment", [None, "demo", "k400", "none"])
@pytest.mark.parametrize("name", ["one", "ONE", "it's", "deleted", "of a deleted experiment", "none"])
def test_the_newest_run_of_a_name_is_the_one_that_mlflow_finds(uri, name, experiment):
    found = newest_run(uri, run_name=name, experiment=experiment)
    searched = _search(uri, experiment, f'attributes.run_name = "{name}"')[:1]
    assert [comparable(run) for run in found] == [comparable(run) for run in searched]
    assert bool(found) == (name == "one" and experiment != "none")


def comparable(run):
    """With texts for numbers, since no NaN equals another."""
    metrics = {key: repr(value) for key, value in sorted(run.metrics.items())}
    latest = {key: repr(point) for key, point in sorted(run.latest.items())}
    return replace(run, metrics=metrics, latest=latest)


def test_a_deleted_experiment_is_known(uri):
    [(number, stage)] = experiments_named(uri, "gone")
    assert (number, stage) == (MlflowClient(uri).get_experiment_by_name("gone").experiment_id, "deleted")
    assert [stage for _, stage in experiments_named(uri, "demo")] == ["active"]
    assert experiments_named(uri, "none") == []


def test_mlflow_is_not_imported_for_it(uri):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(uri=uri)],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stdout == f"{uri} RUNNING False\n"


def older(file):
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()


def damaged(file):
    file.write_bytes(file.read_bytes()[:5000] + os.urandom(5000))


def emptied(file):
    file.write_bytes(b"")


def set_up_by_another(file):
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    connection.close()


@pytest.mark.parametrize("spoil", [older, damaged, emptied, set_up_by_another])
def test_a_store_in_another_state_is_left_to_mlflow(tmp_path, spoil):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    empty_store(uri)  # made by MLflow's own migrations
    assert experiments_named(uri, "Default") == [("0", "active")]
    assert newest_run(uri, run_name="one", experiment=None) == []
    spoil(tmp_path / "mlflow.db")
    assert experiments_named(uri, "demo") is newest_run(uri, run_name="one", experiment=None) is None


def test_other_stores_and_workspaces_are_left_to_mlflow(uri, tmp_path, monkeypatch):
    for other in ("http://127.0.0.1:9", "postgresql://127.0.0.1:9/x", f"sqlite:///{tmp_path}/none.db"):
        assert experiments_named(other, "demo") is newest_run(other, run_name="one", experiment=None) is None
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert experiments_named(uri, "demo") is newest_run(uri, run_name="one", experiment=None) is None


def test_a_run_is_found_while_another_process_writes(uri):
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        assert find_run(uri, run_name="one", experiment="demo") is not None
    finally:
        connection.close()


def test_a_store_that_can_not_be_written_is_left_to_mlflow(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    empty_store(uri)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    assert experiments_named(uri, "demo") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ready_store("demo") == uri
