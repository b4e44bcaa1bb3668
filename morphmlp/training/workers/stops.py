"""Why a run's workers stop before the end of the plan, and the file that asks them to.

A reason is an enum member that travels in JSON, from the file or the worker that has it to whoever decides what
follows; sentences are made where they are printed.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from morphmlp.errors import StorageError
from morphmlp.files import atomic_write

LOOK_EVERY_S = 0.5


class StopReason(StrEnum):
    """Why workers stop. The values stand in files."""

    REQUESTED = "requested"
    """Somebody asked for it: by a signal to the command, or by making the file themselves."""
    MORE_WORKERS = "more_workers"
    """More workers can start; the run continues with them at once."""
    NODE_LEAVES = "node_leaves"
    """The cluster announced that a worker's node goes; the run continues with what is left."""
    TOO_MANY_BROKEN = "too_many_broken"
    """More videos of a split are broken than the configuration allows."""
    DIVERGED = "diverged"
    """Too many steps in a row had no finite loss or gradient (`execution.max_skipped_steps`)."""
    NO_IMPROVEMENT = "no_improvement"
    """Validation no longer improves (`train.early_stopping`): the run is finished, and tested like any other."""
    PRUNED = "pruned"
    """A trial of a sweep is behind others."""
    OUT_OF_TIME = "out_of_time"
    """A trial took longer than its sweep allows."""
    EXPLOITS = "exploits"
    """A member of a population continues from another member's checkpoint."""
    SWEEP_STOPS = "sweep_stops"
    """The sweep's command was asked to stop."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A stop: its reason, and what else is known."""

    reason: StopReason
    detail: str = ""
    """For people: the signal's name, what was measured, who is better. Nothing is decided by it."""
    split: str = ""
    """Of too many broken videos: the split."""
    step: int | None = None
    """Of a divergence: the last step that was skipped, counted from 1."""

    def to_plain(self) -> dict[str, str | int]:
        """Values for JSON; what isn't known is left out."""
        return {name: value for name, value in vars(self).items() if value not in ("", None)}

    @classmethod
    def from_plain(cls, fields: Mapping[str, str | int]) -> Self:
        """Back from JSON.

        Raises:
            TypeError, ValueError, KeyError: It isn't what `to_plain` gives.
        """
        return cls(**{**fields, "reason": StopReason(fields["reason"])})  # type: ignore[arg-type]  # JSON's values; checked here


class StopWatch:
    """Looks for a stop request in the background, so that it costs a training step nothing."""

    def __init__(self, path: Path) -> None:
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


def write_stop_request(path: Path, stop: Stop) -> None:
    """Make a stop request.

    Raises:
        OSError: The file can't be written.
    """
    atomic_write(path, json.dumps(stop.to_plain()) + "\n")


def ask_to_stop(path: Path, stop: Stop) -> None:
    """Make a stop request; on a full disk without its reason.

    Raises:
        StorageError: Not even an empty file can be made.
    """
    try:
        write_stop_request(path, stop)
    except OSError:
        try:
            path.touch()
        except OSError as error:
            raise StorageError(f"{path}: the workers can't be asked to stop: {error.strerror}") from None


def requested_stop(path: Path) -> Stop | None:
    """The stop that a request asks for; None where there is no request.

    What isn't ours is a person's: an empty file, or one with a note in it, asks for a plain stop.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError:
        text = ""
    try:
        return Stop.from_plain(json.loads(text))
    except (TypeError, ValueError, KeyError):
        return Stop(reason=StopReason.REQUESTED, detail=text)
