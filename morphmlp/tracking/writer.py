"""The one writer of a run: metrics without doubled points, parameters, tags, artifacts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from pydantic import JsonValue

from morphmlp.record import MetricPoint, Status
from morphmlp.tracking.store import faults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METRICS_PER_CALL = 1000
_ENTRIES_PER_CALL = 100
_LONGEST_PARAM = 6000
_LONGEST_TAG = 8000


class RunWriter:
    """Writes one run. Picklable: only the store's address and the run's id travel; the client is made on first use.

    One writer at a time per run. A point whose (metric, step) is already in the store is dropped, so that a run resumed
    from an earlier checkpoint doesn't double the steps that it repeats: the store's history of a metric is read
    once, before the writer's first point of it. Requests keep MLflow's own patience, so that a server may restart.
    Every method raises TrackingError where the store can't be reached or used.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri = uri
        self.run_id = run_id
        self._client: MlflowClient | None = None
        self._stored: set[str] | None = None
        self._steps: dict[str, set[int]] = {}

    def __reduce__(self) -> tuple[type["RunWriter"], tuple[str, str]]:
        """Travel as two strings."""
        return RunWriter, (self.uri, self.run_id)

    def metrics(self, rows: Sequence[MetricPoint]) -> None:
        """Append points; those already stored at the same step are dropped, NaN and infinity are kept.

        MLflow stores an infinity as the largest finite number. Within one call the last point of a step counts.
        """
        with self._store() as client:
            fresh = [
                row
                for row in {(row.key, row.step): row for row in rows}.values()
                if row.step not in self._known(row.key)
            ]
            for start in range(0, len(fresh), _METRICS_PER_CALL):
                chunk = fresh[start : start + _METRICS_PER_CALL]
                client.log_batch(
                    self.run_id,
                    metrics=[Metric(row.key, float(row.value), row.timestamp_ms, row.step) for row in chunk],
                )
                for row in chunk:
                    self._steps[row.key].add(row.step)

    def history(self, keys: Sequence[str]) -> list[MetricPoint]:
        """All stored points of these metrics, each by step; a metric without points has none."""
        with self._store() as client:
            found = [metric for key in keys for metric in client.get_metric_history(self.run_id, key)]
        points = [MetricPoint(metric.key, metric.value, metric.step, metric.timestamp) for metric in found]
        return sorted(points, key=lambda point: (keys.index(point.key), point.step))

    def params(self, params: Mapping[str, JsonValue]) -> None:
        """Log parameters as `open_run` does; MLflow refuses to change one."""
        texts = {name: param_text(value) for name, value in params.items()}
        with self._store() as client:
            entries = [Param(name, cut(text, name)) for name, text in texts.items()]
            for start in range(0, len(entries), _ENTRIES_PER_CALL):
                client.log_batch(self.run_id, params=entries[start : start + _ENTRIES_PER_CALL])
            for name, text in texts.items():
                if len(text) > _LONGEST_PARAM:
                    client.log_text(self.run_id, text, _whole_file(name))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, over the values that are there."""
        entries = [RunTag(name, text[:_LONGEST_TAG]) for name, text in tags.items()]
        with self._store() as client:
            for start in range(0, len(entries), _ENTRIES_PER_CALL):
                client.log_batch(self.run_id, tags=entries[start : start + _ENTRIES_PER_CALL])

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's content, into the run's artifacts."""
        with self._store() as client:
            log = client.log_artifacts if Path(path).is_dir() else client.log_artifact
            log(self.run_id, str(path), folder)

    def text(self, text: str, file: str) -> None:
        """Write a text as an artifact."""
        with self._store() as client:
            client.log_text(self.run_id, text, file)

    def figure(self, figure: "Figure", file: str) -> None:
        """Draw a figure as an artifact; the file's ending chooses the format."""
        with self._store() as client:
            client.log_figure(self.run_id, figure, file)

    def finish(self, status: Status) -> None:
        """End the run; `open_run` and `reopen` can take it up again."""
        with self._store() as client:
            client.set_terminated(self.run_id, status)

    @contextmanager
    def _store(self) -> Iterator[MlflowClient]:
        with faults(self.uri):
            if self._client is None:
                self._client = MlflowClient(self.uri)
            yield self._client

    def _known(self, key: str) -> set[int]:
        """Steps at which the store has this metric."""
        with self._store() as client:
            if self._stored is None:
                self._stored = set(client.get_run(self.run_id).data.metrics)
            if key not in self._steps:
                history = client.get_metric_history(self.run_id, key) if key in self._stored else ()
                self._steps[key] = {metric.step for metric in history}
        return self._steps[key]


def param_text(value: JsonValue) -> str:
    """A parameter's value as MLflow keeps it: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _whole_file(name: str) -> str:
    return f"params/{name}.json"


def cut(text: str, name: str) -> str:
    """The text as it fits into the parameter `name`."""
    note = f"... (whole: artifact {_whole_file(name)})"
    return text if len(text) <= _LONGEST_PARAM else text[: _LONGEST_PARAM - len(note)] + note
