"""The store: where it is, that it answers, and its failures as one clear line."""

import fcntl
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from morphmlp.errors import StoreAwayError, TrackingError
from morphmlp.tracking.address import sqlite_file, text_without_login, without_login

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_CONNECT_S = 4.0
_DELETED = re.compile(r"(?P<kind>run|experiment) (?P<id>\S+) must be in the 'active' state", re.IGNORECASE)
_NOISY = ("mlflow.store.db.utils", "alembic")
_importing = threading.Lock()  # by two threads at a time MLflow's modules wait for each other


def client_of(uri: str) -> "MlflowClient":
    """MLflow's client of a store: the one place that imports it, which takes seconds."""
    with _importing:
        from mlflow import MlflowClient  # noqa: PLC0415

    for name in _NOISY:  # MLflow sets its loggers when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri)


def prepare_store(uri: str) -> None:
    """Make sure that the store answers, and set up an embedded database once, before any writer starts.

    Safe to repeat, and when several commands start at once. A server that doesn't answer is given up within seconds.

    Raises:
        TrackingError: The store can't be reached or used.
    """
    if (file := sqlite_file(uri)) is None:
        require_answer(uri)
        with faults(uri), short_http_timeouts():
            client_of(uri).search_experiments(max_results=1)
        return
    with faults(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
        with (file.parent / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client_of(uri).search_experiments(max_results=1)


def require_answer(uri: str) -> bool:
    """Whether there is a store to read: an embedded one's file, or a database that lets us in; servers aren't asked.

    A database is tried once here, since MLflow would try ten times, for minutes.

    Raises:
        StoreAwayError: The database doesn't answer, or refuses.
    """
    if (file := sqlite_file(uri)) is not None:
        return file.exists()
    parts = urlsplit(uri)
    port = next((port for name, port in _DATABASE_PORTS.items() if parts.scheme.startswith(name)), None)
    if port is None or parts.hostname is None:
        return True
    with faults(uri):
        from sqlalchemy import create_engine  # noqa: PLC0415 (for databases alone)

        socket.create_connection((parts.hostname, parts.port or port), timeout=_CONNECT_S).close()
        engine = create_engine(uri)
        engine.connect().close()
        engine.dispose()
    return True


@contextmanager
def faults(uri: str) -> Iterator[None]:
    """Turn what MLflow and the libraries below it raise into one line that hides the address's password.

    Raises:
        StoreAwayError: The store gives no answer, or says itself that it can't work now.
        TrackingError: The store refuses, and would refuse again.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, _store_faults()):
            raise
        shown, reason = without_login(uri), " ".join(text_without_login(str(error), uri).split())
        if "Max retries exceeded" in reason:
            reason = f"no answer ({reason.rpartition('Caused by ')[2].strip('() ')})"
        if (deleted := _DELETED.search(reason)) is not None:
            raise TrackingError(deleted_there(uri, deleted["kind"].lower(), deleted["id"])) from error
        kind = TrackingError if _is_refusal(error) else StoreAwayError
        raise kind(f"tracking store {shown}: {reason[:400]}") from error


def deleted_there(uri: str, kind: str, identity: str) -> str:
    """What to do about a run or an experiment that somebody deleted in MLflow."""
    anew = (
        "or repeat the same command without it, which records the run anew"
        if kind == "run"
        else "or name another store by MLFLOW_TRACKING_URI"
    )
    shown = without_login(uri)
    return (
        f"tracking store {shown}: the {kind} {identity} was deleted there; bring it back by "
        f"`MLFLOW_TRACKING_URI={shown} mlflow {kind}s restore --{kind}-id {identity}`, {anew}"
    )


@cache
def _store_faults() -> tuple[type[Exception], ...]:
    """What MLflow and the libraries below it raise of a store; asked for when something was raised."""
    from alembic.util import CommandError  # noqa: PLC0415 (who raises any of these has imported them)
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    return MlflowException, SQLAlchemyError, CommandError, ImportError, OSError


def _is_refusal(error: Exception) -> bool:
    """Whether the same request would fail again, however long one waits."""
    from alembic.util import CommandError  # noqa: PLC0415 (as above)
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from sqlalchemy.exc import OperationalError, SQLAlchemyError  # noqa: PLC0415

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]  # (mlflow gives no hint here)
        return 400 <= status < 500 and status not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    if isinstance(error, SQLAlchemyError):
        return not isinstance(error, OperationalError)
    return isinstance(error, CommandError | ImportError | FileNotFoundError | PermissionError)


@contextmanager
def short_http_timeouts(*, timeout_s: int = 4, retries: int = 1) -> Iterator[None]:
    """Give a dead server up soon, by default within seconds, unless the user's environment says otherwise."""
    limits = {"MLFLOW_HTTP_REQUEST_TIMEOUT": timeout_s, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": retries}
    ours = {name: str(value) for name, value in limits.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
