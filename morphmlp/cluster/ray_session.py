"""Around a Ray session: its faults in one line, a quiet terminal, a folder for its sockets."""

import io
import logging
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from ray.exceptions import RayError, RayTaskError

from morphmlp.cluster.failure_reasons import failure_reason, root_failure, users_fault
from morphmlp.errors import ClusterError
from morphmlp.stop_signals import undisturbed

_LONGEST_TEMP_FOLDER = 42
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


RAY_MESSAGES = "ray_listen_error_messages"
"""Ray's thread that prints what happened to processes and nodes, with pages of their logs."""


class _WithoutRayMessages(io.TextIOBase):
    """Standard output for all threads but that one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Pass it on, or drop it."""
        return len(text) if threading.current_thread().name == RAY_MESSAGES else self._stream.write(text)

    def flush(self) -> None:
        """Pass on what waits."""
        self._stream.flush()

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Whether it's a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Always."""
        return True


@contextmanager
def without_ray_messages() -> Iterator[None]:
    """Keep out of standard output what Ray prints of lost processes and nodes; the run says what matters in a line."""
    with redirect_stdout(_WithoutRayMessages(sys.stdout)):
        yield


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
        if len(str(folder)) > _LONGEST_TEMP_FOLDER:
            raise ClusterError(
                f"TMPDIR: {tempfile.gettempdir()} is too long for Ray's socket names; name a folder of at most "
                f"{_LONGEST_TEMP_FOLDER - len('/mmlp-12345678/ray')} characters"
            )
        yield folder
    finally:
        if before is None:
            del os.environ["RAY_TMPDIR"]
        else:
            os.environ["RAY_TMPDIR"] = before
        with undisturbed():
            shutil.rmtree(outer, ignore_errors=True)


@contextmanager
def ray_faults_reported() -> Iterator[None]:
    """Report in one line what Ray couldn't get over: lost processes and nodes, memory or disks that ran out.

    Raises:
        ClusterError: That.
        MorphMLPError: The project's own error, out of a task of Ray's.
    """
    try:
        yield
    except RayError as error:
        root = root_failure(error)
        if (fault := users_fault(root)) is not None:
            raise fault from error
        if not isinstance(root, RayError) or isinstance(root, RayTaskError):
            raise  # a defect in a task, with its traceback
        raise ClusterError(f"Ray gave up: {failure_reason(root)}; the same command continues") from error
    except Exception as error:
        if type(error).__name__ != "ExecutionTimeoutError":  # Ray Data's, which takes seconds to import
            raise
        first = str(error).splitlines()[0]
        raise ClusterError(f"ingest.wait_for_clips_s: {first}; the same command continues") from error
