"""Which tests run in one process, what they draw, what those of a background run inherit; clusters have a token."""

import gc
import os
import secrets
import signal
import sys
from collections.abc import Generator

import pytest
from xdist.scheduler import LoadFileScheduling

# Before Ray and torch are imported; nodes and commands that tests start have it too. Threads that turn while they wait
# for one that has no core, as on a busy machine, take ten times the work's own time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


class FilesTogether(LoadFileScheduling):
    """A file's tests stay in one process, and so do all that share one local Ray."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/ray" if file.startswith("tests/ray/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesTogether:
    return FilesTogether(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests and all that they import stay to the end: no search for garbage need look through them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest part comes first, so that no process waits for it at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/ray/"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test and its fixtures draw doesn't depend on tests before it in this process; torch takes one thread."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Take signals that tests send, also where a shell's `&` or `nohup` has them ignored; interpret Triton's kernels.

    But for tests on a GPU. Triton reads it when it is imported, which may be for another test's sake.
    """
    if config.option.markexpr != "gpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")
    for signum, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, usual)


def pytest_unconfigure() -> None:
    """Leave the end of the process as it would be."""
    gc.unfreeze()
