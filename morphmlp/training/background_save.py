"""Writes checkpoints while training goes on. Slow or dead storage never stops a step."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from morphmlp.errors import CheckpointError
from morphmlp.training.checkpoint_store import CheckpointFacts, CheckpointStore, StoredCheckpoint


@dataclass(frozen=True)
class _Snapshot:
    content: Mapping[str, object]
    facts: CheckpointFacts
    required: bool


class BackgroundSaver:
    """One thread that saves snapshots in the order in which they come.

    While one is being written one more waits; a newer one takes its place, unless it's required. So there are
    never more than two in memory beside the required ones.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        keep_last: int,
        keep_best: bool,
        restored: StoredCheckpoint | None = None,
        retry_after_s: float = 3.0,
    ) -> None:
        """Start the thread.

        Args:
            store: Where to save.
            keep_last: Newest checkpoints that stay after a save.
            keep_best: Whether the best stays too.
            restored: The checkpoint that the run continues from.
            retry_after_s: Pause before the second try of a required one, seconds.
        """
        self.last_saved = restored
        """The last good checkpoint: the one that was saved last, or that the run continues from."""
        self.seconds_of_last: float | None = None
        """How long the last successful save took."""
        self._store = store
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._retry_after_s = retry_after_s
        self._changed = threading.Condition()
        self._snapshots: list[_Snapshot] = []  # the first is being written
        self._passed_over: list[int] = []
        self._notes: list[str] = []
        self._lost: CheckpointError | None = None
        self._defect: Exception | None = None
        self._closed = False
        threading.Thread(target=self._work, name="checkpoint saver", daemon=True).start()

    def submit(self, content: Mapping[str, object], facts: CheckpointFacts, *, required: bool = False) -> None:
        """Hand over a snapshot and return at once.

        Args:
            content: As in `CheckpointStore.save`. Its tensors must not change afterwards.
            facts: The same.
            required: It must not be passed over: the run ends with it, or a stop was asked for.
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
            notes, self._notes = self._notes, []
            passed_over, self._passed_over = self._passed_over, []
        if passed_over:
            took = "" if self.seconds_of_last is None else f" (the last one took {self.seconds_of_last:.0f} s)"
            notes.append(
                f"checkpoints at steps {', '.join(map(str, passed_over))} were passed over: writing one takes longer "
                f"than the distance to the next{took}; write fewer of them (checkpoint.every_*) or to faster storage"
            )
        return notes

    def finish(self, timeout_s: float) -> None:
        """Wait until all is written; no snapshot is taken afterwards.

        Args:
            timeout_s: How long at most, seconds.

        Raises:
            CheckpointError: A required checkpoint couldn't be written, at two tries or in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._snapshots, timeout_s)
            self._closed = True
            self._changed.notify_all()
            self._raise_defect()
            late = [snapshot.facts.step for snapshot in self._snapshots]
            if any(snapshot.required for snapshot in self._snapshots):
                raise CheckpointError(
                    f"{self._store.location}: the checkpoint at step {late[-1]} isn't written after {timeout_s:g} s; "
                    f"{self._last_good()}"
                )
            self._notes += [f"the checkpoint at step {step} isn't written after {timeout_s:g} s" for step in late]
            if self._lost is not None:
                raise self._lost

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._snapshots or self._closed)
                if not self._snapshots:
                    return
            try:
                self._write(self._snapshots[0])
            except Exception as error:  # noqa: BLE001 (a defect, which the training thread raises)
                self._defect = error
            with self._changed:
                del self._snapshots[0]
                self._changed.notify_all()

    def _write(self, snapshot: _Snapshot) -> None:
        for attempts_left in (1, 0) if snapshot.required else (0,):
            begun = time.monotonic()
            try:
                saved = self._store.save(snapshot.content, snapshot.facts)
            except CheckpointError as error:
                self._tell(
                    f"checkpoint at step {snapshot.facts.step} could not be written: {error}; "
                    f"{'it is tried once more' if attempts_left else 'training goes on'}, {self._last_good()}"
                )
                if attempts_left:
                    time.sleep(self._retry_after_s)
                elif snapshot.required:
                    self._lost = CheckpointError(str(error))  # without the traceback, which holds the content
            else:
                self.last_saved, self.seconds_of_last, self._lost = saved, time.monotonic() - begun, None
                self._store.prune(saved, keep_last=self._keep_last, keep_best=self._keep_best, told=self._tell)
                return

    def _last_good(self) -> str:
        if self.last_saved is None:
            return "there is no earlier one"
        return f"the last good one is step {self.last_saved.facts.step}"

    def _tell(self, note: str) -> None:
        with self._changed:
            self._notes.append(note)

    def _raise_defect(self) -> None:
        if self._defect is not None:
            raise self._defect
