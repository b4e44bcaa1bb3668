"""The one writer of a run: metrics without doubled points, parameters, tags, artifacts."""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import JsonValue

from morphmlp.errors import StoreAwayError, TrackingError
from morphmlp.record import MetricPoint, RecordedDataset, Status, Tags
from morphmlp.tracking.store import client_of, faults, short_http_timeouts

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

    from morphmlp.tracking.models import ModelToLog

_METRICS_PER_CALL = 1000
_ENTRIES_PER_CALL = 100
_LONGEST_PARAM = 6000
_LONGEST_TAG = 8000
_THUMBNAIL_DPI = 80
_RETRIED_ATTEMPT_S = 60
"""Time for one answer; a server may take as long to pass an artifact on."""
_NOTE_MARK = "[//]: # (morphmlp)"
"""A line that Markdown doesn't show: what stands below it in a description is ours."""
LIMIT_S = 600.0
"""How long a command waits for its store before it gives up."""
LONGEST_PAUSE_S = 15.0
"""Between two attempts."""
T = TypeVar("T")


class RunWriter:
    """Writes one run. Picklable: only the store's address and the run's id travel; the client is made on first use.

    One writer at a time per run. A point whose (metric, step) is already in the store is dropped, so that a run resumed
    from an earlier checkpoint doesn't double the steps that it repeats: the store's history of a metric is read
    before the writer's first point of it, and anew after a failure, since a request that failed may have been carried
    out. Every method may be repeated. Without `retry` requests keep MLflow's own, and every method raises
    TrackingError where the store can't be reached or used; with it a store that gives no answer is waited for.
    """

    def __init__(self, uri: str, run_id: str, *, retry: "RetryPolicy | None" = None) -> None:
        self.uri, self.run_id, self._retry = uri, run_id, retry
        self._client: MlflowClient | None = None
        self._stored: set[str] | None = None
        self._steps: dict[str, set[int]] = {}

    def __reduce__(self) -> tuple[type["RunWriter"], tuple[str, str]]:
        return RunWriter, (self.uri, self.run_id)

    def metrics(self, rows: Sequence[MetricPoint]) -> None:
        """Append points; those already stored at the same step are dropped, NaN and infinity are kept.

        MLflow stores an infinity as the largest finite number. Within one call the last point of a step counts.
        """
        unique = {(row.key, row.step): row for row in rows}.values()

        def append(client: "MlflowClient") -> None:
            from mlflow.entities import Metric  # noqa: PLC0415 (as `client_of`)

            fresh = [row for row in unique if row.step not in self._known(client, row.key)]
            for start in range(0, len(fresh), _METRICS_PER_CALL):
                chunk = fresh[start : start + _METRICS_PER_CALL]
                client.log_batch(
                    self.run_id,
                    metrics=[Metric(row.key, float(row.value), row.timestamp_ms, row.step) for row in chunk],
                )
                for row in chunk:
                    self._steps[row.key].add(row.step)

        self._do(append)

    def read_anew(self) -> None:
        """Ask the store again before the next point: another process has written to this run since the last one."""
        self._stored, self._steps = None, {}

    def history(self, keys: Sequence[str]) -> list[MetricPoint]:
        """All stored points of these metrics, each by step; a metric without points has none."""
        found = self._do(lambda client: [m for key in keys for m in client.get_metric_history(self.run_id, key)])
        points = [MetricPoint(metric.key, metric.value, metric.step, metric.timestamp) for metric in found]
        return sorted(points, key=lambda point: (keys.index(point.key), point.step))

    def stored(self) -> tuple[dict[str, str], dict[str, float]]:
        """The run's tags, and the latest value of each of its metrics."""
        data = self._do(lambda client: client.get_run(self.run_id).data)
        return dict(data.tags), dict(data.metrics)

    def params(self, params: Mapping[str, JsonValue]) -> None:
        """Log parameters as `open_run` does; MLflow refuses to change one."""
        texts = {name: param_text(value) for name, value in params.items()}

        def log(client: "MlflowClient") -> None:
            from mlflow.entities import Param  # noqa: PLC0415 (as `client_of`)

            entries = [Param(name, cut(text, name)) for name, text in texts.items()]
            for start in range(0, len(entries), _ENTRIES_PER_CALL):
                client.log_batch(self.run_id, params=entries[start : start + _ENTRIES_PER_CALL])
            for name, text in texts.items():
                if len(text) > _LONGEST_PARAM:
                    client.log_text(self.run_id, text, _complete_file(name))

        self._do(log)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, over the values that are there."""

        def log(client: "MlflowClient") -> None:
            from mlflow.entities import RunTag  # noqa: PLC0415 (as `client_of`)

            entries = [RunTag(name, text[:_LONGEST_TAG]) for name, text in tags.items()]
            for start in range(0, len(entries), _ENTRIES_PER_CALL):
                client.log_batch(self.run_id, tags=entries[start : start + _ENTRIES_PER_CALL])

        self._do(log)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's content, into the run's artifacts."""

        def log(client: "MlflowClient") -> None:
            copy = client.log_artifacts if Path(path).is_dir() else client.log_artifact
            copy(self.run_id, str(path), folder)

        self._do(log)

    def text(self, text: str, file: str) -> None:
        """Write a text as an artifact."""
        self._do(lambda client: client.log_text(self.run_id, text, file))

    def figure(self, figure: "Figure", file: str) -> None:
        """Draw a figure as an artifact; the file's ending chooses the format."""
        self._do(lambda client: client.log_figure(self.run_id, figure, file))

    def thumbnail(self, figure: "Figure", name: str) -> None:
        """Show a figure among the run's charts, in MLflow's grid of images."""
        from PIL import Image  # noqa: PLC0415 (who draws has it)

        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=_THUMBNAIL_DPI)
        image = Image.open(drawn).convert("RGB")
        self._do(lambda client: client.log_image(self.run_id, image, key=name, step=0, synchronous=True))

    def datasets(self, datasets: Sequence[RecordedDataset]) -> None:
        """Log what the run reads; one that is logged already stays as it is."""
        self._do(lambda client: client.log_inputs(self.run_id, [_dataset_input(dataset) for dataset in datasets]))

    def model(self, model: "ModelToLog") -> str:
        """Log a model as the run's output, and register it where that is asked for; its id in the store."""
        from morphmlp.tracking.models import log_model  # noqa: PLC0415 (seconds that a run without one needn't wait)

        return self._do(lambda client: log_model(client, self.run_id, model))

    def describe(self, text: str) -> None:
        """Write the run's description, Markdown, over an earlier one of ours; what somebody wrote above it stays."""

        def write(client: "MlflowClient") -> None:
            above = client.get_run(self.run_id).data.tags.get(Tags.NOTE, "").partition(_NOTE_MARK)[0].rstrip()
            client.set_tag(self.run_id, Tags.NOTE, f"{above}\n\n{_NOTE_MARK}\n\n{text}".lstrip()[:_LONGEST_TAG])

        self._do(write)

    def finish(self, status: Status) -> None:
        """End the run; `open_run` can take it up again."""
        self._do(lambda client: client.set_terminated(self.run_id, status))

    def _do(self, action: "Callable[[MlflowClient], T]") -> T:
        """Carry out what may be repeated, until it succeeds or `retry` gives up."""
        while True:
            try:
                with faults(self.uri), self._limits():
                    if self._client is None:
                        self._client = client_of(self.uri)
                    result = action(self._client)
            except TrackingError as error:
                self.read_anew()
                if self._retry is None:
                    raise
                if not isinstance(error, StoreAwayError):
                    raise self._retry.given_up(error) from error
                self._retry.wait(error)
            else:
                if self._retry is not None:
                    self._retry.answered()
                return result

    def _limits(self) -> AbstractContextManager[None]:
        return nullcontext() if self._retry is None else short_http_timeouts(timeout_s=_RETRIED_ATTEMPT_S, retries=0)

    def _known(self, client: "MlflowClient", key: str) -> set[int]:
        """Steps at which the store has this metric."""
        if self._stored is None:
            self._stored = set(client.get_run(self.run_id).data.metrics)
        if key not in self._steps:
            history = client.get_metric_history(self.run_id, key) if key in self._stored else ()
            self._steps[key] = {metric.step for metric in history}
        return self._steps[key]


def _dataset_input(dataset: RecordedDataset) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415 (as `client_of`)

    columns = [{"name": name, "type": kind, "required": True} for name, kind in dataset.columns.items()]
    entity = Dataset(
        name=dataset.name,
        digest=dataset.digest,
        source_type="local",
        source=json.dumps({"uri": dataset.source}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(dict(dataset.profile)),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", dataset.context)])


def param_text(value: JsonValue) -> str:
    """A parameter's value as MLflow keeps it: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _complete_file(name: str) -> str:
    return f"params/{name}.json"


def cut(text: str, name: str) -> str:
    """The text as it fits into the parameter `name`."""
    note = f"... (complete: artifact {_complete_file(name)})"
    return text if len(text) <= _LONGEST_PARAM else text[: _LONGEST_PARAM - len(note)] + note


class RetryPolicy:
    """Waits for a store that gives no answer, says so once, and gives up after a while: from then on at once.

    Every wait starts anew after an answer. The run's files are safe until then, so a later command can complete the
    record.
    """

    def __init__(
        self,
        *,
        log: Callable[[str], None],
        kept_in: Path,
        limit_s: float = LIMIT_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._log, self._kept_in, self._limit_s = log, kept_in, limit_s
        self._longest_pause_s = longest_pause_s
        self._since: float | None = None
        self._pause_s = 1.0
        self._over = False

    def wait(self, error: StoreAwayError) -> None:
        """Pause before the next attempt.

        Raises:
            TrackingError: The time is over.
        """
        now = time.monotonic()
        if self._since is None and not self._over:
            self._since, self._pause_s = now, 1.0
            self._log(
                f"{error}; waiting up to {_in_words(self._limit_s)} for it; the run's files are safe in {self._kept_in}"
            )
        left_s = 0.0 if self._since is None else self._since + self._limit_s - now
        if self._over or left_s <= 0:
            self._over = True
            raise self.given_up(error)
        time.sleep(min(self._pause_s, self._longest_pause_s, left_s))
        self._pause_s *= 2

    def answered(self) -> None:
        """Note that the store answers."""
        if self._since is not None:
            self._log(f"the tracking store answers again after {_in_words(time.monotonic() - self._since)}")
            self._since = None

    def given_up(self, error: TrackingError) -> TrackingError:
        """The error that ends the command: what is wrong, and how the record is completed."""
        return TrackingError(
            f"{error}; everything is on disk in {self._kept_in}: when the store takes it, "
            "the same command completes the record"
        )


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
