"""The wish to stop a run, as a file that its workers look for; every machine of a run sees the run's folder."""

import threading
from pathlib import Path

from morphmlp.errors import StorageError
from morphmlp.files import atomic_write

LOOK_EVERY_S = 0.5
ROOM = "there is room for "
"""How the reason begins where the run is to go on at once with more workers; any other one ends it."""


class StopWatch:
    """Looks for a stop request in the background, so that asking for it costs a step nothing."""

    def __init__(self, path: Path) -> None:
        """Begin to look.

        Args:
            path: The file that says "stop"; its text is the reason.
        """
        self._path = path
        self._seen = threading.Event()
        threading.Thread(target=self._look, name="stop-watch", daemon=True).start()

    def seen(self) -> bool:
        """Whether the request has been made."""
        return self._seen.is_set()

    def _look(self) -> None:
        while not self._path.exists():
            if self._seen.wait(LOOK_EVERY_S):
                return
        self._seen.set()


def reason_of(path: Path) -> str:
    """Why the run is to stop."""
    try:
        return path.read_text(encoding="utf-8").strip() or "asked to"
    except OSError:
        return "asked to"


def ask_to_stop(path: Path, reason: str) -> None:
    """Make the request, on a full disk without the reason.

    Raises:
        StorageError: Not even an empty file can be made.
    """
    try:
        atomic_write(path, reason)
    except OSError:
        try:
            path.touch()
        except OSError as error:
            raise StorageError(f"{path}: the workers can't be asked to stop: {error.strerror}") from None
