"""Finished runs as a table.

MLflow's search makes an object of each parameter, tag and metric, and importing MLflow takes longer than that: together
some seconds for 500 runs. So a database is read straight from the five tables that MLflow has had since its second
version, by five queries. Where that isn't possible, as of a server, MLflow is asked; both give the same.
"""

import math
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import pandas as pd
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from morphmlp.record import Metrics, Tags
from morphmlp.tracking.address import sqlite_file

_FIXED = ["run_id", "run_name", "dataset", "start_time"]
_RUNS = """
    FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id
    WHERE runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active'
"""
_ON_DATASET = " AND experiments.name = :dataset"
_OF_EXPERIMENT = """
    AND EXISTS (SELECT 1 FROM tags AS named
                WHERE named.run_uuid = runs.run_uuid AND named.key = :tag AND named.value = :experiment)
"""
_PARTS = {"tags": "tags", "params": "params", "metrics": "latest_metrics"}
"""Prefixes of the frame's columns, and the tables that have their values."""


def read_runs(uri: str, *, experiment: str | None = None, dataset: str | None = None) -> pd.DataFrame:
    """Finished runs, newest first, one row each; an embedded store that doesn't exist yet has none.

    Columns: `run_id`, `run_name`, `dataset`, `start_time` (UTC), and as in `mlflow.search_runs` `tags.<name>`,
    `params.<name>` and `metrics.<name>` (the latest value); what the runs' machines did (`system/`) is left out.

    With `experiment` only runs of the configuration of this name (tag `morphmlp.experiment`), with `dataset` only runs
    on this data set (MLflow's experiment).

    Raises:
        TrackingError: The store can't be reached or used.
    """
    rows = database_rows(uri, experiment=experiment, dataset=dataset)
    if rows is None:
        searched = import_module("morphmlp.tracking.runs").search_finished  # imports MLflow, which takes seconds
        rows = searched(uri, experiment=experiment, dataset=dataset)
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*_FIXED, *sorted(set(frame.columns) - set(_FIXED))])


def database_rows(uri: str, *, experiment: str | None, dataset: str | None) -> list[dict[str, object]] | None:
    """The rows of `read_runs`, straight from the tables; None where the store isn't a database that can be read so."""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return []
    others = os.environ.get("MLFLOW_ENABLE_WORKSPACES", "false").lower() not in ("false", "0", "")
    if others or (file is None and not uri.startswith(("postgresql", "mysql"))):
        return None
    condition = (
        _RUNS + (_ON_DATASET if dataset is not None else "") + (_OF_EXPERIMENT if experiment is not None else "")
    )
    values = {"dataset": dataset, "tag": Tags.EXPERIMENT, "experiment": experiment}
    used = {name: value for name, value in values.items() if f":{name}" in condition}
    try:
        engine = create_engine(uri)
        try:
            with engine.connect() as connection:
                return list(_rows(connection, condition, used).values())
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError):  # another schema, no driver, no answer: MLflow reads it, or says why not
        return None


def _rows(connection: Connection, condition: str, values: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    found = connection.execute(
        text(
            f"SELECT runs.run_uuid, runs.name, experiments.name, runs.start_time {condition} "
            "ORDER BY runs.start_time DESC, runs.run_uuid"
        ),
        values,
    )
    rows: dict[str, dict[str, object]] = {
        run: {"run_id": run, "run_name": name, "dataset": dataset, "start_time": pd.Timestamp(ms, unit="ms", tz="UTC")}
        for run, name, dataset, ms in found
    }
    for prefix, table in _PARTS.items():
        for run, key, value in _values(connection, table, condition, values):
            if run in rows:
                rows[run][f"{prefix}.{key}"] = value
    return rows


def _values(
    connection: Connection, table: str, condition: str, values: Mapping[str, Any]
) -> Iterator[tuple[str, str, object]]:
    numbers = table == "latest_metrics"
    is_nan = f", {table}.is_nan" if numbers else ""
    chosen = f"SELECT {table}.run_uuid, {table}.key, {table}.value{is_nan} FROM {table}"
    chosen += f" WHERE {table}.run_uuid IN (SELECT runs.run_uuid {condition})"
    if numbers:
        chosen += f" AND substr({table}.key, 1, {len(Metrics.SYSTEM)}) <> '{Metrics.SYSTEM}'"
    for run, key, value, *nan in connection.execute(text(chosen), values):
        yield run, key, math.nan if nan and nan[0] else value
