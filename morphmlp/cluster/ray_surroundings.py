"""What surrounds a Ray session: silence on the terminal, and a folder and settings that go with it. Knows no Ray."""

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphmlp.errors import ClusterError
from morphmlp.stop_signals import undisturbed

LONGEST_TEMP_FOLDER = 42
"""Ray adds up to 65 characters of session and socket name; a socket's whole path may have 107."""


def quiet_ray() -> None:
    """Keep Ray's own progress, hints and start-up lines out of the user's terminal."""
    # Errors of Ray's C++ layer reach Python as exceptions; on the terminal they are noise.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="ray")


@contextmanager
def hushed_start() -> Iterator[None]:
    """Drop what Ray's C++ layer writes to standard error while it starts; failures come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def without_preemption_watcher() -> Iterator[None]:
    """On one machine no cloud gives notice of a node; a cluster joined later needs the watcher."""
    name = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    set_by_user = name in os.environ
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if not set_by_user:
            del os.environ[name]


@contextmanager
def own_temp_folder() -> Iterator[Path]:
    """A folder for one session's sockets and logs, known to all its processes; removed at the end."""
    outer = tempfile.mkdtemp(prefix="mmlp-")
    folder = Path(outer) / "ray"  # the name that Ray itself adds to RAY_TMPDIR
    folder.mkdir()
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = outer
    try:
        if len(str(folder)) > LONGEST_TEMP_FOLDER:
            raise ClusterError(
                f"TMPDIR: {tempfile.gettempdir()} is too long for Ray's socket names; name a folder of at most "
                f"{LONGEST_TEMP_FOLDER - len('/mmlp-12345678/ray')} characters"
            )
        yield folder
    finally:
        if before is None:
            del os.environ["RAY_TMPDIR"]
        else:
            os.environ["RAY_TMPDIR"] = before
        with undisturbed():
            shutil.rmtree(outer, ignore_errors=True)
