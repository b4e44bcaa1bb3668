"""Where the store is, by the environment; nothing of it is asked, and MLflow isn't imported."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from morphmlp.errors import TrackingError

_NAMED_STORES = ("databricks", "databricks-uc", "uc")
"""MLflow's addresses that are no URLs."""


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the embedded SQLite store of the working directory, as an absolute path.

    Raises:
        TrackingError: It names a plain folder, which MLflow takes no more.
    """
    if not (uri := os.environ.get("MLFLOW_TRACKING_URI")):
        return f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}"
    is_folder = uri.startswith("file:") or ("://" not in uri and uri.partition(":")[0] not in _NAMED_STORES)
    if is_folder and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
        folder = Path(uri.removeprefix("file://").removeprefix("file:")).absolute()
        raise TrackingError(
            f"MLFLOW_TRACKING_URI {uri}: MLflow keeps no new records in a plain folder; use "
            f"sqlite:///{folder / 'mlflow.db'}, or unset it for mlruns/mlflow.db of the working directory"
        )
    return uri


def without_login(uri: str) -> str:
    """An address without its user and password."""
    return text_without_login(uri, uri)


def text_without_login(text: str, uri: str) -> str:
    """A text that may hold the address, without its user and password."""
    login = urlsplit(uri).netloc.rpartition("@")[0]
    return text.replace(f"{login}@", "") if login else text


def sqlite_file(uri: str) -> Path | None:
    """The database's file, for an embedded store."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None
