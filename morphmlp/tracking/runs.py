"""Runs of a store: opened or resumed by name, found, and read as a table.

Every function raises TrackingError where the store can't be reached or used, or has no such run.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from morphmlp.errors import TrackingError
from morphmlp.record import MetricPoint, Metrics, RunSummary, Tags
from morphmlp.tracking.address import sqlite_file, tracking_uri
from morphmlp.tracking.embedded import experiments_named, newest_run
from morphmlp.tracking.store import (
    client_of,
    deleted_there,
    faults,
    prepare_store,
    require_answer,
    short_http_timeouts,
)
from morphmlp.tracking.writer import RunWriter, cut, param_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

PAGE = 100
"""Runs of one request: a busy server answers it within the seconds that a dead one is given."""
_DELETED = "deleted"
"""MLflow's word for an experiment'"'"'s stage."""
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow show its pages for trained models instead of those for language applications."""


def open_run(
    uri: str,
    *,
    experiment: str,
    run_name: str,
    tags: Mapping[str, str],
    params: Mapping[str, JsonValue],
    parent_run_id: str | None = None,
) -> str:
    """The id of a running run: the unfinished one of the same name, fingerprint and parent, or a new one.

    A resumed run takes the new tags and keeps its first parameters (MLflow can't change them); values that differ now
    are noted in tags `morphmlp.resumed_with.<parameter>`. Without a fingerprint among the tags nothing is resumed.

    The store must be prepared; its experiment is the data set's name. Parameters are `flat_fields` of the
    configuration: strings are kept, everything else becomes JSON. Values too long for MLflow are cut, with the full
    text in the artifact `params/<name>.json`.
    """
    texts = {name: param_text(value) for name, value in params.items()}
    with faults(uri), short_http_timeouts():
        client = client_of(uri)
        experiment_id = _experiment_id(client, uri, experiment)
        run = _unfinished(client, experiment_id, run_name, tags.get(Tags.FINGERPRINT), parent_run_id)
        if run is None:
            # MLflow takes the run's user from the tags of its creation.
            first = {Tags.PARENT: parent_run_id, Tags.USER: tags.get(Tags.USER)}
            run = client.create_run(
                experiment_id, run_name=run_name, tags={tag: text for tag, text in first.items() if text is not None}
            )
        else:
            client.update_run(run.info.run_id, status="RUNNING")
    run_id: str = run.info.run_id
    known = run.data.params
    writer = RunWriter(uri, run_id)
    writer.params({name: text for name, text in texts.items() if name not in known})
    changed = {name: text for name, text in texts.items() if name in known and known[name] != cut(text, name)}
    writer.tags({**tags, **{Tags.RESUMED_WITH + name: text for name, text in changed.items()}})
    return run_id


def ready_store(experiment: str) -> str:
    """The store's address, once it answers and can take runs on a data set; nothing is recorded yet.

    Raises:
        TrackingError: The store can't be reached or used, or MLflow's experiment of this name was deleted there.
    """
    uri = tracking_uri()
    if (known := experiments_named(uri, experiment)) is not None:
        for number, stage in known:
            _require_active(uri, experiment, number, stage)
        return uri
    prepare_store(uri)
    with faults(uri), short_http_timeouts():
        _known_experiment(client_of(uri), uri, experiment)
    return uri


def find_run(uri: str, *, run_name: str, experiment: str | None = None) -> RunSummary | None:
    """The newest run of this name, in one MLflow experiment or in all."""
    query = f"attributes.run_name = {quoted(run_name)}"
    if (runs := newest_run(uri, run_name=run_name, experiment=experiment)) is None:
        with faults(uri), short_http_timeouts():
            runs = _search(uri, experiment, query)
    return runs[0] if runs else None


def recent_runs(uri: str, *, ended: int | None = 0) -> list[RunSummary]:
    """Runs that are running by their record, and the newest `ended` of the others (None: all), newest first.

    An embedded store that doesn't exist yet has none, and stays so.
    """
    if not require_answer(uri):
        return []
    with faults(uri), short_http_timeouts():
        if ended is None:
            return _search(uri, None, "")
        runs = _search(uri, None, "attributes.status = 'RUNNING'")
        if ended:
            runs += _search(uri, None, "attributes.status != 'RUNNING'", limit=ended)
    return sorted(runs, key=lambda run: run.start_ms, reverse=True)


def search_finished(uri: str, *, experiment: str | None, dataset: str | None) -> list[dict[str, object]]:
    """The rows of `finished.read_runs`, by MLflow's search."""
    if not require_answer(uri):
        return []
    prepare_store(uri)
    query = "attributes.status = 'FINISHED'"
    if experiment is not None:
        query += f" and tags.`{Tags.EXPERIMENT}` = {quoted(experiment)}"
    with faults(uri), short_http_timeouts():
        return [_as_row(run) for run in _search(uri, dataset, query)]


def read_run(uri: str, run_id: str) -> RunSummary:
    """One run, whatever its status."""
    with faults(uri), short_http_timeouts():
        client = client_of(uri)
        run = client.get_run(run_id)
        return _summary(run, client.get_experiment(run.info.experiment_id).name)


def read_history(uri: str, run_id: str, keys: Sequence[str]) -> list[MetricPoint]:
    """All points of some metrics of a run, each by step."""
    return RunWriter(uri, run_id).history(keys)


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (the client has imported it)

    if (known := _known_experiment(client, uri, name)) is None:
        file = sqlite_file(uri)
        artifacts = None if file is None else (file.absolute().parent / "artifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=_EXPERIMENT_TAGS))
        except MlflowException:
            # Another command may have been faster.
            if (known := _known_experiment(client, uri, name)) is None:
                raise
    return str(known.experiment_id)


def _known_experiment(client: "MlflowClient", uri: str, name: str) -> "Experiment | None":
    known = client.get_experiment_by_name(name)
    if known is not None:
        _require_active(uri, name, known.experiment_id, known.lifecycle_stage)
    return known


def _require_active(uri: str, name: str, experiment_id: str, stage: str) -> None:
    if stage == _DELETED:
        raise TrackingError(deleted_there(uri, "experiment", experiment_id) + f" (it is named {name!r})")


def _unfinished(
    client: "MlflowClient", experiment_id: str, run_name: str, fingerprint: str | None, parent_run_id: str | None
) -> "Run | None":
    if fingerprint is None:
        return None
    query = (
        f"attributes.status != 'FINISHED' and attributes.run_name = {quoted(run_name)} "
        f"and tags.`{Tags.FINGERPRINT}` = {quoted(fingerprint)}"
    )
    runs = client.search_runs([experiment_id], query, max_results=PAGE, order_by=["attributes.start_time DESC"])
    return next((run for run in runs if run.data.tags.get(Tags.PARENT) == parent_run_id), None)


def _search(uri: str, experiment: str | None, query: str, *, limit: int | None = None) -> list[RunSummary]:
    """The newest `limit` runs, or all, that the query finds, newest first."""
    client = client_of(uri)
    if experiment is None:
        experiments = list(client.search_experiments())
    else:
        experiments = [found for found in [client.get_experiment_by_name(experiment)] if found is not None]
    names = {found.experiment_id: found.name for found in experiments}
    runs: list[RunSummary] = []
    token: str | None = None
    while names:
        size = PAGE if limit is None else min(PAGE, limit - len(runs))
        page = client.search_runs(
            list(names), query, max_results=size, order_by=["attributes.start_time DESC"], page_token=token
        )
        runs += [_summary(run, names[run.info.experiment_id]) for run in page]
        if not (token := page.token) or len(runs) == limit:
            break
    return runs


def _summary(run: "Run", experiment: str) -> RunSummary:
    return RunSummary(
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        experiment=experiment,
        status=run.info.status,
        start_ms=run.info.start_time,
        end_ms=run.info.end_time,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        latest={m.key: MetricPoint(m.key, m.value, m.step, m.timestamp) for m in run.data.to_proto().metrics},
    )


def _as_row(run: RunSummary) -> dict[str, object]:
    import pandas as pd  # noqa: PLC0415 (for tables alone)

    return {
        "run_id": run.run_id,
        "run_name": run.run_name,
        "dataset": run.experiment,
        "start_time": pd.Timestamp(run.start_ms, unit="ms", tz="UTC"),
        **{f"tags.{name}": value for name, value in run.tags.items()},
        **{f"params.{name}": value for name, value in run.params.items()},
        **{f"metrics.{name}": value for name, value in run.metrics.items() if not name.startswith(Metrics.SYSTEM)},
    }


def quoted(text: str) -> str:
    """A string of MLflow's query language."""
    if "'" in text and '"' in text:
        raise TrackingError(f"name {text!r}: holds both kinds of quotes; use one at most")
    return f'"{text}"' if "'" in text else f"'{text}'"
