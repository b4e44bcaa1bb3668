"""The wish to stop a run, as a file that its workers look for; every machine of a run sees the run's folder."""

import threading
from pathlib import Path

LOOK_EVERY_S = 0.5


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
