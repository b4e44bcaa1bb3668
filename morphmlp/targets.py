"""Names and places that a command writes to, checked before anything starts."""

import hashlib
import os
import re
import tempfile
import unicodedata
from pathlib import Path

from morphmlp.config import ExperimentConfig
from morphmlp.errors import ConfigError

LONGEST_NAME = 150
"""Bytes of a run's name; a file's name may have 255, and a sweep adds a trial's number, values and seed."""


def plain_name(name: str, option: str = "--run-name") -> str:
    """A name that folders, the record and a terminal's line can carry.

    Raises:
        ConfigError: It can't.
    """
    if not name or "/" in name or name.startswith("."):
        fault = "must be a plain name, without / and leading dots"
    elif not name.isprintable() or name != name.strip():
        fault = "holds line breaks or other signs that can't be seen; use letters, digits, - and _"
    elif "'" in name and '"' in name:
        fault = "holds both kinds of quotes; use one at most"
    elif (size := len(name.encode())) > LONGEST_NAME:
        raise ConfigError([f"{option}: '{name[:40]}...' has {size} bytes; use at most {LONGEST_NAME}"])
    else:
        return name
    raise ConfigError([f"{option}: {name!r} {fault}"])


def ascii_name(name: str) -> str:
    """The name as Ray takes it; different names stay different."""
    if name.isascii():
        return name
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', letters)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def json_file(text: str) -> Path:
    """Where `--json` writes to, for argparse; nothing is created.

    Raises:
        ConfigError: No file can be written there.
    """
    path = Path(text)
    if path.is_dir():
        raise ConfigError([f"--json: {path} is a folder; name a file, such as {path / 'result.json'}"])
    fault = _folder_fault(path.parent)
    if path.exists():
        fault = None if os.access(path, os.W_OK) else "can't be written"
    if fault is not None:
        raise ConfigError([f"--json: {path}: {fault}; name another file"])
    return path


def require_storage(config: ExperimentConfig, run_name: str) -> None:
    """Make sure that a run's folders can be made and written to; nothing stays behind.

    Raises:
        ConfigError: What can't, with its field.
    """
    storage = config.cluster.storage
    if "://" in storage:
        raise ConfigError(
            [f"cluster.storage: {storage}: name a folder; checkpoints may go to an address by checkpoint.storage"]
        )
    places = {"cluster.storage": storage}
    if config.checkpoint.storage is not None and "://" not in config.checkpoint.storage:
        places["checkpoint.storage"] = config.checkpoint.storage
    found = {field: _folder_fault(Path(place) / run_name) for field, place in places.items()}
    faults = [
        f"{field}: {places[field]}: {fault}; name a folder that can be written to"
        for field, fault in found.items()
        if fault is not None
    ]
    if faults:
        raise ConfigError(faults)


def _folder_fault(folder: Path) -> str | None:
    """Why a file can't be written into a folder, which may have to be made first."""
    there = folder.absolute()
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            return f"{there} is a file"
        with tempfile.TemporaryFile(dir=there):  # permissions alone don't tell of a read-only or full disk
            return None
    except OSError as error:
        return f"{there} can't be written to: {error.strerror}"
