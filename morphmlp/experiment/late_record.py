"""The record of a test, opened next to its scoring."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from morphmlp.errors import MorphMLPError
from morphmlp.tracking import RunWriter

LATEST_S = 30.0
"""Time for the first scores; then the run is opened without them."""


class LateRecord:
    """The run of the test, opened next to its scoring: MLflow takes seconds to import, for which no first score waits.

    It is opened when it is asked for, in a thread of its own, or after a while.
    """

    def __init__(self, open_run: Callable[[], RunWriter]) -> None:
        self._open_run, self._wanted, self._given_up = open_run, threading.Event(), False
        thread = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._opened: Future[RunWriter | None] = thread.submit(self._open)
        thread.shutdown(wait=False)

    def _open(self) -> RunWriter | None:
        self._wanted.wait(LATEST_S)
        return None if self._given_up else self._open_run()

    def ask(self) -> None:
        """Let it be opened now.

        Raises:
            TrackingError: It can't be opened, as far as is known by now.
        """
        self._wanted.set()
        if self._opened.done():
            self._opened.result()

    def writer(self) -> RunWriter:
        """The open run.

        Raises:
            TrackingError: It can't be opened.
        """
        self._wanted.set()
        writer = self._opened.result()
        assert writer is not None
        return writer

    def at_end(self, error: BaseException) -> RunWriter | None:
        """The run whose test ended by an error; None where it can't be opened, or needn't: nothing was scored."""
        self._given_up = isinstance(error, KeyboardInterrupt)
        self._wanted.set()
        try:
            return self._opened.result()
        except MorphMLPError:
            return None
