"""The record: runs in MLflow, written in batches by one writer and read back as tables.

The only package that imports mlflow. The embedded store is SQLite under `mlruns/` of the working directory;
`MLFLOW_TRACKING_URI` names a server or another database.

Example:
    >>> uri = tracking_uri()
    >>> prepare_store(uri)
    >>> run = RunWriter(uri, open_run(uri, experiment="demo", run_name="demo-s", tags=tags, params=flat_fields(config)))
    >>> run.metrics([MetricPoint(Metrics.TRAIN_LOSS, 2.1, step=20, timestamp_ms=now_ms)])
    >>> run.finish("FINISHED")

What needs MLflow is imported when it is first used, since that takes seconds.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Before mlflow is imported: training must not send usage data to a third party, nor print hints and bars.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from morphmlp.tracking.address import tracking_uri, without_login

if TYPE_CHECKING:
    from morphmlp.tracking.buffered import BufferedWriter, end_early, write_waiting
    from morphmlp.tracking.finished import read_runs
    from morphmlp.tracking.runs import find_run, open_run, read_history, read_run, ready_store, recent_runs
    from morphmlp.tracking.store import prepare_store
    from morphmlp.tracking.writer import RetryPolicy, RunWriter

__all__ = [
    "BufferedWriter",
    "RetryPolicy",
    "RunWriter",
    "end_early",
    "find_run",
    "open_run",
    "prepare_store",
    "read_history",
    "read_run",
    "read_runs",
    "ready_store",
    "recent_runs",
    "tracking_uri",
    "without_login",
    "write_waiting",
]

_LATER = {
    "buffered": ("BufferedWriter", "end_early", "write_waiting"),
    "finished": ("read_runs",),
    "runs": ("find_run", "open_run", "read_history", "read_run", "ready_store", "recent_runs"),
    "store": ("prepare_store",),
    "writer": ("RetryPolicy", "RunWriter"),
}
"""By module what is imported when it is first used."""


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
