"""A real SQLite store whose answers a test can spoil."""

import threading

import mlflow
import pytest
from empty_store import empty_store
from mlflow.exceptions import MlflowException

from morphmlp.record import MetricPoint
from morphmlp.tracking import RunWriter, open_run


class SpoiledStore:
    """Writes of this process to MLflow, carried out by the real store unless a test says otherwise."""

    def __init__(self, real):
        self.real = real
        self.sent = []
        """(metric, step) of all points that arrived, in order, and the names of tags."""
        self.refusals = 0
        """How many of the next writes fail before they are carried out."""
        self.lost_answers = 0
        """How many of the next writes are carried out and fail then."""
        self.open = threading.Event()
        """Writes wait for it."""
        self.open.set()
        self.waiting = threading.Event()
        """A write has come in while the store wasn't open."""

    def log_batch(self, client, run_id, metrics=(), params=(), tags=(), **more):
        if not self.open.is_set():
            self.waiting.set()
            self.open.wait(60)
        if self.refusals:
            self.refusals -= 1
            raise MlflowException("connection refused")
        self.sent += [(metric.key, metric.step) for metric in metrics] + [tag.key for tag in tags]
        result = self.real(client, run_id, metrics=metrics, params=params, tags=tags, **more)
        if self.lost_answers:
            self.lost_answers -= 1
            raise MlflowException("read timed out")
        return result


@pytest.fixture(scope="package")
def shared_store(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    empty_store(uri)
    return uri


@pytest.fixture
def writer(shared_store, request):
    """A run of its own for every test."""
    run_id = open_run(shared_store, experiment="demo", run_name=request.node.name, tags={}, params={})
    return RunWriter(shared_store, run_id)


@pytest.fixture
def spoiled(writer, monkeypatch):
    store = SpoiledStore(mlflow.MlflowClient.log_batch)

    def log_batch(client, *arguments, **more):  # a plain function, since a bound method would lose the client
        return store.log_batch(client, *arguments, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    yield store
    store.open.set()


@pytest.fixture
def points():
    """Points of one metric at these steps."""

    def make(steps, *, key="train/loss", value=1.0):
        return [MetricPoint(key, value, step, 1_700_000_000_000 + step) for step in steps]

    return make
