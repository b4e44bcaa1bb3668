"""Writes checkpoints while training continues: slow, full or dead storage stops no step and repeats none."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from morphmlp.errors import StorageError
from morphmlp.tasks.scores import ScoreName
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore, StoredCheckpoint

LONGEST_PAUSE_S = 30.0
"""Between two tries to write to storage that refuses, seconds."""
_STEPS_NAMED = 3
"""Checkpoints that a line about those passed over names."""
_LEAST_TRIES = 2
"""Of a required checkpoint, however little time there is."""
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class _Snapshot:
    content: Mapping[str, object]
    facts: CheckpointFacts
    required: bool


class BackgroundSaver:
    """One thread that saves snapshots in the order in which they come.

    While one is being written one more waits; a newer one takes its place, unless it's required. So there are
    never more than two in memory, not counting the required ones. A required one that the storage refuses is kept in
    memory and tried again, until a newer one is there to be written in its place.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        keep_last: int,
        best_by: ScoreName | None,
        restored: StoredCheckpoint | None = None,
        retry_after_s: float = 3.0,
    ) -> None:
        """Start the thread.

        After a save the `keep_last` newest checkpoints stay, and the best one by `best_by`, if given. The second try of
        a required one comes after `retry_after_s`, doubled before each further one.
        """
        self.last_saved = restored
        """The last good checkpoint: the one that was saved last, or that the run continues from."""
        self.seconds_of_last: float | None = None
        """How long the last successful save took."""
        self._store, self._keep_last, self._best_by = store, keep_last, best_by
        self._retry_after_s = retry_after_s
        self._changed = threading.Condition()
        self._snapshots: list[_Snapshot] = []  # the first is being written
        self._passed_over: list[int] = []
        self._report_passed_over_from = 1
        self._notes: list[str] = []
        self._refusal: str | None = None  # why the first snapshot, a required one, isn't written yet
        self._tries = 0  # of the first snapshot
        self._defect: Exception | None = None
        self._closed = False
        threading.Thread(target=self._work, name="checkpoint saver", daemon=True).start()

    def submit(self, content: Mapping[str, object], facts: CheckpointFacts, *, required: bool = False) -> None:
        """Hand over a snapshot and return at once.

        The content's tensors must not change afterwards. A required one must not be passed over: the run ends with it,
        or a stop was asked for.
        """
        with self._changed:
            self._raise_defect()
            if self._closed:
                raise RuntimeError("no snapshots are taken after finish()")
            waiting = self._snapshots[1:]
            self._passed_over += [snapshot.facts.step for snapshot in waiting if not snapshot.required]
            self._snapshots[1:] = [snapshot for snapshot in waiting if snapshot.required]
            self._snapshots.append(_Snapshot(content, facts, required))
            self._changed.notify_all()

    def notes(self) -> list[str]:
        """Lines for the user since the last call: what couldn't be written or removed, and what was passed over."""
        with self._changed:
            return self._taken_notes()

    def _taken_notes(self) -> list[str]:
        notes, self._notes = self._notes, []
        if len(self._passed_over) >= self._report_passed_over_from:
            self._report_passed_over_from = 2 * len(self._passed_over)  # a slow disk stays slow: ever more rarely
            took = "" if self.seconds_of_last is None else f" (the last one took {self.seconds_of_last:.0f} s)"
            notes.append(
                f"checkpoints at steps {_few(self._passed_over)} were passed over: writing one takes longer "
                f"than the distance to the next{took}; write fewer of them (checkpoint.every_*) or to faster storage"
            )
        return notes

    def finish(
        self, timeout_s: float, *, hurry: Callable[[], bool] = lambda: False, log: Callable[[str], None] | None = None
    ) -> None:
        """Wait until all is written; no snapshot is taken afterwards.

        `hurry` says whether storage that has refused twice isn't waited for; `log` takes the lines for the user while
        this waits, otherwise they are in `notes`.

        Raises:
            StorageError: A required checkpoint can't be written, or isn't in time.
        """
        begun = time.monotonic()
        announced = False
        with self._changed:
            while self._snapshots and (left := begun + timeout_s - time.monotonic()) > 0:
                refused = self._refusal is not None and self._tries >= _LEAST_TRIES
                if refused and hurry():
                    break
                if refused and not announced:
                    announced = True
                    self._notes.append(
                        f"waiting up to {timeout_s:.0f} s (checkpoint.wait_for_storage_s) for {self._store.location} "
                        "to take the last checkpoint, which is kept in memory; make room there"
                    )
                if log is not None:
                    for note in self._taken_notes():
                        log(note)
                self._changed.wait(min(LOOK_EVERY_S, left))
            self._closed = True
            self._changed.notify_all()
            self._raise_defect()
            late = [snapshot.facts.step for snapshot in self._snapshots]
            if any(snapshot.required for snapshot in self._snapshots):
                self._snapshots.clear()
                raise StorageError(self._loss(late[-1], time.monotonic() - begun))
            self._notes += [f"the checkpoint at step {step} isn't written after {timeout_s:g} s" for step in late]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._snapshots or self._closed)
                if not self._snapshots or (self._closed and self._refusal is not None):
                    return
                snapshot = self._snapshots[0]
            try:
                done = self._write(snapshot)
            except Exception as error:  # noqa: BLE001 (a defect, which the training thread raises)
                self._defect, done = error, True
            self._advance(snapshot, done=done)
            del snapshot

    def _write(self, snapshot: _Snapshot) -> bool:
        """Whether nothing more is to be done about a snapshot: it's written, or it needn't be."""
        step, begun = snapshot.facts.step, time.monotonic()
        try:
            saved = self._store.save(snapshot.content, snapshot.facts)
        except StorageError as error:
            if self._refusal is None:
                then = "it is kept in memory and tried again" if snapshot.required else "training continues"
                last = self.last_saved
                good = "there is no earlier one" if last is None else f"the last good one is step {last.facts.step}"
                self._note(f"checkpoint at step {step} could not be written: {error}; {then}, {good}")
            self._refusal = str(error) if snapshot.required else None
            return not snapshot.required
        if self._refusal is not None:
            self._note(f"the checkpoint at step {step} is written now")
        self.last_saved, self.seconds_of_last, self._refusal = saved, time.monotonic() - begun, None
        self._store.prune(saved, keep_last=self._keep_last, best_by=self._best_by, log=self._note)
        return True

    def _advance(self, snapshot: _Snapshot, *, done: bool) -> None:
        """Turn to the next snapshot, or pause before the next try of this one."""
        with self._changed:
            self._tries = 0 if done else self._tries + 1
            self._changed.notify_all()
            if not done:
                pause = min(self._retry_after_s * 2 ** (self._tries - 1), LONGEST_PAUSE_S)
                self._changed.wait_for(lambda: self._closed or len(self._snapshots) > 1, pause)
                if len(self._snapshots) > 1 and self._tries >= _LEAST_TRIES:
                    self._notes.append(f"the checkpoint at step {snapshot.facts.step} is given up for a newer one")
                    self._refusal, self._tries, done = None, 0, True
            if done and self._snapshots:
                del self._snapshots[0]
            self._changed.notify_all()

    def _loss(self, step: int, waited_s: float) -> str:
        """Why the last checkpoint isn't there, and what the user can do."""
        if self._refusal is None:
            fault = f"{self._store.location}: the checkpoint at step {step} isn't written after {waited_s:.2g} s"
        else:
            fault = f"the checkpoint at step {step}, tried for {waited_s:.0f} s: {self._refusal}"
        then = "begins anew" if self.last_saved is None else f"continues from step {self.last_saved.facts.step}"
        return f"{fault}; when the storage is fixed the same command {then}"

    def _note(self, note: str) -> None:
        with self._changed:
            self._notes.append(note)

    def _raise_defect(self) -> None:
        if self._defect is not None:
            raise self._defect


def _few(steps: Sequence[int]) -> str:
    """The last steps of a list, and how many there are before."""
    shown = ", ".join(map(str, steps[-_STEPS_NAMED:]))
    return shown if len(steps) <= _STEPS_NAMED else f"{shown} and {len(steps) - _STEPS_NAMED} before them"
