"""A record that never holds up its caller: points and tags wait on disk until the store has them."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from morphmlp.errors import StoreAwayError, TrackingError
from morphmlp.line_file import WaitingLines
from morphmlp.record import MetricPoint, Status
from morphmlp.tracking.store import short_http_timeouts
from morphmlp.tracking.writer import LIMIT_S, LONGEST_PAUSE_S, RunWriter

_FIRST_PAUSE_S = 0.5
_POLL_S = 0.2
_ATTEMPT_S = 30
_EARLY_END_S = 2.0


class BufferedWriter:
    """Takes points and tags at once and writes them from a thread of its own, in order, for as long as it takes.

    Everything is in `path` before it is sent and is cut from it when the store has it, so that a killed process loses
    nothing: the next BufferedWriter or `write_waiting` of the same file continues with what is left. A store that fails
    in whatever way is asked again, after pauses that grow to 15 s. A file's line is one JSON object, `{"points": [[key,
    value, step, timestamp_ms], ...]}` or `{"tags": {...}}`, with Python's `NaN` and `Infinity`.
    """

    def __init__(
        self, writer: RunWriter, path: Path, *, log: Callable[[str], None], longest_pause_s: float = LONGEST_PAUSE_S
    ) -> None:
        """Start writing what an earlier process left.

        Nobody else may write the same metrics until `close`. `log` takes a line when the store stops taking the
        record, and one when it takes it again, from the writing thread.
        """
        self._writer, self._path, self._log, self._longest_pause_s = writer, path, log, longest_pause_s
        self._lines = WaitingLines(path)
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="record", daemon=True)
        self._thread.start()

    def metrics(self, points: Sequence[MetricPoint]) -> None:
        """Take points; as in `RunWriter`, the first one of a (metric, step) counts, or the last one of one call."""
        if points:
            self._add({"points": [(p.key, float(p.value), int(p.step), int(p.timestamp_ms)) for p in points]})

    def tags(self, tags: Mapping[str, str]) -> None:
        """Take tags; the last value counts."""
        if tags:
            self._add({"tags": dict(tags)})

    def flush(self, timeout_s: float) -> bool:
        """Wait until the store has everything; whether it has."""
        with self._changed:
            return self._changed.wait_for(self._lines.empty, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Wait until the store has everything and stop; what it hasn't got by then stays in the file, with a note."""
        complete = self.flush(timeout_s)
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if not complete:
            self._log(f"the tracking store hasn't got the complete record; the rest waits in {self._path}")
        return complete

    def _add(self, entry: Mapping[str, object]) -> None:
        self._lines.append(json.dumps(entry))
        with self._changed:
            self._changed.notify_all()

    def _write(self) -> None:
        """Send batch after batch; the thread's life."""
        away_since: float | None = None
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set():
            if not (batch := self._lines.oldest()):
                with self._changed:
                    self._changed.notify_all()  # another process may have sent them
                    self._changed.wait(_POLL_S)
                continue
            try:
                with short_http_timeouts(timeout_s=_ATTEMPT_S, retries=0):
                    _send(self._writer, batch, self._path)
            except Exception as error:  # noqa: BLE001 (whatever a store answers, the training continues and nothing is lost)
                if away_since is None:
                    away_since = time.monotonic()
                    self._log(f"{error}; training continues, the record waits in {self._path} and is sent again")
                self._closing.wait(min(pause_s, self._longest_pause_s))
                pause_s *= 2
                continue
            self._lines.drop(batch)
            with self._changed:
                self._changed.notify_all()
            if away_since is not None:
                self._log(f"the tracking store takes the record again after {time.monotonic() - away_since:.0f} s")
            away_since, pause_s = None, _FIRST_PAUSE_S
        self._lines.close()


def write_waiting(path: Path, writer: RunWriter, *, limit_s: float = LIMIT_S) -> None:
    """Write what a BufferedWriter left, and wait for one that is still writing.

    Another process that owns the file is waited for as long as `limit_s`; the file needn't exist. What one that was
    killed had sent already isn't written twice.

    Raises:
        TrackingError: The store can't be reached or used, or another process doesn't come to an end. Nothing is lost.
    """
    deadline = time.monotonic() + limit_s
    writer.read_anew()
    lines = WaitingLines(path)
    try:
        while path.exists() and path.stat().st_size:
            if batch := lines.oldest():
                _send(writer, batch, path)
                lines.drop(batch)
            elif time.monotonic() > deadline:
                raise TrackingError(
                    f"{path}: another process still writes this record; end it and repeat the same command"
                )
            else:
                time.sleep(_POLL_S)
    finally:
        lines.close()


def end_early(
    writer: RunWriter, status: Status, waiting: Path, *, tags: Mapping[str, str] | None = None
) -> TrackingError | None:
    """Write what waits and end a run that failed or was stopped, without waiting for a store that doesn't answer.

    `tags` are written with its end. The writer's retry policy isn't used. Returns why the record isn't complete, if it
    isn't; a later run of the same name completes it.
    """
    hurried = RunWriter(writer.uri, writer.run_id)
    fault: TrackingError | None = None
    with short_http_timeouts():
        try:
            write_waiting(waiting, hurried, limit_s=_EARLY_END_S)
        except TrackingError as error:
            fault = error
        if not isinstance(fault, StoreAwayError):
            try:
                hurried.tags(tags or {})
                hurried.finish(status)
            except TrackingError as error:
                fault = error
    return fault


def _send(writer: RunWriter, lines: Sequence[str], path: Path) -> None:
    """Write lines in two calls, to the same effect as one by one."""
    points: dict[tuple[str, int], MetricPoint] = {}
    tags: dict[str, str] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise TrackingError(f"{path}: {line.strip()[:80]!r} isn't a line of a record; remove it") from error
        of_line = [MetricPoint(*fields) for fields in entry.get("points", ())]
        for place, point in {(point.key, point.step): point for point in of_line}.items():
            points.setdefault(place, point)
        tags |= entry.get("tags", {})
    if points:
        writer.metrics(list(points.values()))
    if tags:
        writer.tags(tags)
