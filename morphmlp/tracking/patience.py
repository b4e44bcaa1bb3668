"""How a command waits for a tracking store that doesn't answer."""

import time
from collections.abc import Callable
from pathlib import Path

from morphmlp.errors import StoreAwayError, TrackingError

LIMIT_S = 600.0
"""How long a command waits for its store before it gives up."""
LONGEST_PAUSE_S = 15.0
"""Between two attempts."""


class Patience:
    """Waits for a store, says so once, and gives up after a while: from then on at once.

    Every wait starts anew after an answer. The run's files are safe meanwhile, so a later command can complete the
    record.
    """

    def __init__(
        self,
        *,
        tell: Callable[[str], None],
        kept_in: Path,
        limit_s: float = LIMIT_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._tell = tell
        self._kept_in = kept_in
        self._limit_s = limit_s
        self._longest_pause_s = longest_pause_s
        self._since: float | None = None
        self._pause_s = 1.0
        self._over = False

    def wait(self, error: StoreAwayError) -> None:
        """Pause before the next attempt.

        Raises:
            TrackingError: The time is over.
        """
        now = time.monotonic()
        if self._since is None and not self._over:
            self._since, self._pause_s = now, 1.0
            self._tell(
                f"{error}; waiting up to {_in_words(self._limit_s)} for it; the run's files are safe in {self._kept_in}"
            )
        left_s = 0.0 if self._since is None else self._since + self._limit_s - now
        if self._over or left_s <= 0:
            self._over = True
            raise self.given_up(error)
        time.sleep(min(self._pause_s, self._longest_pause_s, left_s))
        self._pause_s *= 2

    def answered(self) -> None:
        """Note that the store answers."""
        if self._since is not None:
            self._tell(f"the tracking store answers again after {_in_words(time.monotonic() - self._since)}")
            self._since = None

    def given_up(self, error: TrackingError) -> TrackingError:
        """The error that ends the command: what is wrong, and how the record is completed."""
        return TrackingError(
            f"{error}; everything is on disk in {self._kept_in}: when the store takes it, "
            "the same command completes the record"
        )


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
