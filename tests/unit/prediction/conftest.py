"""Small networks and files of all kinds (see `trained_networks`), and `predict.py` as a user runs it."""

import io
import resource
import runpy
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from bad_files import bad
from trained_networks import files, place

__all__ = ["bad", "files", "place"]

SCRIPT = Path(__file__).parents[3] / "pipelines" / "predict.py"


@pytest.fixture
def predict(monkeypatch, capfd):
    """Runs the command in this process; gives its exit code, lines of output, and errors, or all progress too."""

    def run(*arguments, stdin=b"", progress=False):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        captured = capfd.readouterr()
        errors = [line for line in captured.err.splitlines() if progress or line.startswith("error: ")]
        return left.value.code or 0, captured.out.splitlines(), errors

    return run


@pytest.fixture
def small_disk():
    """A block in which no file gets longer than 4 KiB."""

    @contextmanager
    def limited():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)

    return limited
