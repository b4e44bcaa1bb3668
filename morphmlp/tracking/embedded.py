"""An embedded store, read straight from its database: what a command asks of the record before it starts.

Importing MLflow takes longer than a command's other checks together. So a database that is in the state in which the
installed MLflow would leave it is asked itself; any other is MLflow's to set up, or to refuse.
"""

import importlib.util
import math
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote

from morphmlp.record import MetricPoint, RunSummary
from morphmlp.tracking.address import sqlite_file

_REVISION = re.compile(r"^(?P<down>down_)?revision\s*=\s*(?P<value>.*)$", re.MULTILINE)
_NAME = re.compile(r"""["']([^"']+)["']""")
_TIMEOUT_S = 10.0
_RUNS = """
    SELECT runs.run_uuid, runs.name, experiments.name, runs.status, runs.start_time, runs.end_time
    FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id
    WHERE runs.name = ? AND runs.lifecycle_stage = 'active'
"""
_OF_ACTIVE = " AND experiments.lifecycle_stage = 'active'"
_OF_EXPERIMENT = " AND experiments.name = ?"
_NEWEST = " ORDER BY runs.start_time DESC, runs.run_uuid LIMIT 1"


@contextmanager
def embedded_store(uri: str) -> Iterator[sqlite3.Connection | None]:
    """The database of an embedded store that can be read and written as it is; None: MLflow must look at it.

    Raises:
        sqlite3.Error: The database can't be read after all.
    """
    file = sqlite_file(uri)
    workspaces = os.environ.get("MLFLOW_ENABLE_WORKSPACES", "false").lower() not in ("false", "0", "")
    if file is None or workspaces or not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        yield None
        return
    address = f"file:{quote(str(file.absolute()))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=_TIMEOUT_S)) as connection:
        yield connection if _is_current(connection) else None


def experiments_named(uri: str, name: str) -> list[tuple[str, str]] | None:
    """Id and stage of MLflow's experiment of a name, or none; None where MLflow must look at the store."""
    try:
        with embedded_store(uri) as store:
            if store is None:
                return None
            rows = store.execute("SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?", (name,))
            return [(str(number), str(stage)) for number, stage in rows]
    except sqlite3.Error:
        return None


def newest_run(uri: str, *, run_name: str, experiment: str | None) -> list[RunSummary] | None:
    """The newest run of this name, or none; None where MLflow must look at the store."""
    query = _RUNS + (_OF_ACTIVE if experiment is None else _OF_EXPERIMENT) + _NEWEST
    try:
        with embedded_store(uri) as store:
            if store is None:
                return None
            values = (run_name,) if experiment is None else (run_name, experiment)
            return [_summary(store, row) for row in store.execute(query, values)]
    except sqlite3.Error:
        return None


def _summary(store: sqlite3.Connection, row: tuple[str, str, str, str, int, int | None]) -> RunSummary:
    run_id, run_name, experiment, status, start_ms, end_ms = row
    numbers = "SELECT key, value, step, timestamp, is_nan FROM latest_metrics WHERE run_uuid = ?"
    latest = {
        key: MetricPoint(key, math.nan if is_nan else value, step, timestamp)
        for key, value, step, timestamp, is_nan in store.execute(numbers, (run_id,))
    }
    return RunSummary(
        run_id=run_id,
        run_name=run_name,
        experiment=experiment,
        status=status,
        start_ms=start_ms,
        end_ms=end_ms,
        tags=_texts(store, "tags", run_id),
        params=_texts(store, "params", run_id),
        metrics={key: point.value for key, point in latest.items()},
        latest=latest,
    )


def _texts(store: sqlite3.Connection, table: str, run_id: str) -> Mapping[str, str]:
    return dict(store.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", (run_id,)).fetchall())


def _is_current(store: sqlite3.Connection) -> bool:
    """Whether the tables are those of the installed MLflow, by the last of its migrations that was carried out."""
    head = _newest_revision()
    tables = store.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    if head is None or not tables[0]:
        return False
    return store.execute("SELECT version_num FROM alembic_version").fetchall() == [(head,)]


@cache
def _newest_revision() -> str | None:
    """The last migration of the installed MLflow's tables, read from its files; None where they don't tell one."""
    package = importlib.util.find_spec("mlflow")
    if package is None or package.origin is None:
        return None
    revisions, followed = set[str](), set[str]()
    for file in (Path(package.origin).parent / "store" / "db_migrations" / "versions").glob("*.py"):
        for line in _REVISION.finditer(file.read_text(encoding="utf-8")):
            (followed if line["down"] else revisions).update(_NAME.findall(line["value"]))
    heads = revisions - followed
    return heads.pop() if len(heads) == 1 else None
