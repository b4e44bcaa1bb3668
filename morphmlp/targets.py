"""Names and places that a command writes to, checked before anything starts: what can't be used is a ConfigError.

Nothing is created, or nothing stays behind.
"""

import hashlib
import os
import re
import tempfile
import unicodedata
from pathlib import Path

from morphmlp.config import ExperimentConfig
from morphmlp.config.values import name_faults
from morphmlp.errors import ConfigError

_LONGEST_NAME = 150
"""Bytes of a run's name; a file's name may have 255, and a sweep adds a trial's number, values and seed."""
CLIP_CACHE = "ingest.clip_cache"
"""The field of a folder that every machine which decodes writes to, each for itself or all to the same."""


def plain_name(name: str, option: str = "--run-name") -> str:
    """A name that folders, the record and a terminal's line can carry."""
    faults = name_faults(name, option)
    if not faults and (size := len(name.encode())) > _LONGEST_NAME:
        faults = [f"{option}: '{name[:40]}...' has {size} bytes; use at most {_LONGEST_NAME}"]
    if faults:
        raise ConfigError(faults)
    return name


def ascii_name(name: str) -> str:
    """The name as Ray takes it; different names stay different."""
    if name.isascii():
        return name
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', letters)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def json_file(path: Path) -> Path:
    """Where `--json` writes to."""
    if path.is_dir():
        raise ConfigError([f"--json: {path} is a folder; name a file, such as {path / 'result.json'}"])
    fault = folder_fault(path.parent)
    if path.exists():
        fault = None if os.access(path, os.W_OK) else "can't be written"
    if fault is not None:
        raise ConfigError([f"--json: {path}: {fault}; name another file"])
    return path


def writable_folder(path: Path, option: str) -> Path:
    """A folder that a command fills, as an option names it."""
    if fault := folder_fault(path):
        raise ConfigError([f"{option}: {path}: {fault}; name another folder"])
    return path


def require_storage(config: ExperimentConfig, run_name: str) -> None:
    """Make sure that a run's folders can be made and written to; the error names the field."""
    storage = config.cluster.storage
    if "://" in storage:
        raise ConfigError(
            [f"cluster.storage: {storage}: name a folder; checkpoints may go to an address by checkpoint.storage"]
        )
    places = {"cluster.storage": storage}
    if config.checkpoint.storage is not None and "://" not in config.checkpoint.storage:
        places["checkpoint.storage"] = config.checkpoint.storage
    found = {field: folder_fault(Path(place) / run_name) for field, place in places.items()}
    if config.ingest.clip_cache is not None and "RAY_ADDRESS" not in os.environ:  # else the nodes are asked
        places[CLIP_CACHE] = config.ingest.clip_cache
        found[CLIP_CACHE] = folder_fault(Path(config.ingest.clip_cache))
    if faults := [
        f"{field}: {places[field]}: {fault}; name a folder that can be written to"
        for field, fault in found.items()
        if fault is not None
    ]:
        raise ConfigError(faults)


def folder_fault(folder: Path) -> str | None:
    """Why a file can't be written into a folder, which may have to be made first."""
    there = folder.absolute()
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            return f"{there} is a file"
        with tempfile.TemporaryFile(dir=there):  # permissions alone don't show a read-only or full disk
            return None
    except OSError as error:
        return f"{there} can't be written to: {error.strerror}"
