"""Frees disk space while a sweep runs: checkpoints that nobody will continue from are removed.

What may still be needed stays: those of trials that haven't ended, that failed (`--retry-failed` continues them) or ran
out of time, and of the winners. Of a population, whose members continue from each other's, all stay until it is done.
"""

import dataclasses
import json
from collections.abc import Sequence

from morphmlp.config.sweep import SweepConfig
from morphmlp.errors import CheckpointError, RunInUseError
from morphmlp.line_file import LineFile, read_json_lines, remove_truncated_line
from morphmlp.progress import Progress
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.record.run_folder import run_lock
from morphmlp.training.replay.skipped_steps import STATE_FILE
from morphmlp.tuning.report.ranking import ranked
from morphmlp.tuning.report.report import winning
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.trial_queue import Entry
from morphmlp.tuning.run.trials import SweepResult

_GIVEN_UP = ("stopped", "diverged")
"""Ends of trials that never run again, nor win."""


class KeptCheckpoints:
    """Removes the checkpoints of a sweep's trials, as far as the sweep says so.

    Each step can be repeated: after a kill the resumed sweep removes what is left.
    """

    def __init__(self, sweep: SweepConfig, folder: SweepFolder, progress: Progress) -> None:
        self._removes = sweep.keep_checkpoints == "winners"
        self._at_once = sweep.search.kind != "population"
        self._file, self._progress = folder.freed, progress
        remove_truncated_line(folder.freed)
        self._lines = LineFile(folder.freed)

    def after(self, entry: Entry) -> None:
        """Remove those of a trial that has ended, where it's already known that nobody needs them."""
        end = entry.view.end
        if self._removes and self._at_once and end is not None and end.state in _GIVEN_UP:
            self._clear(entry)

    def when_done(self, result: SweepResult, entries: Sequence[Entry]) -> SweepResult:
        """Remove those of all trials that ended and didn't win; the result with what was kept and what was freed."""
        if not self._removes:
            return result
        winners = {trial.number for point in winning(ranked(result)) for trial in point.trials}
        for entry in entries:
            end = entry.view.end
            if end is not None and end.state in ("finished", *_GIVEN_UP) and entry.job.number not in winners:
                self._clear(entry)
        freed = sum(line["bytes"] for line in read_json_lines(self._file))
        kept = tuple(entry.job.run_name for entry in entries if self._has_any(entry))
        return dataclasses.replace(result, with_checkpoints=kept, freed_bytes=freed)

    def _clear(self, entry: Entry) -> None:
        folder = entry.job.folder
        if not folder.root.exists():
            return
        try:
            with run_lock(folder):  # a process whose driver was killed may still write
                store = run_store(entry.job.config.checkpoint, folder)
                freed = store.clear(self._progress.line)
                # States that skipped steps met are each as large as a checkpoint; what the steps were stays.
                for state in folder.skipped_steps.glob(f"step-*/{STATE_FILE}"):
                    freed += state.stat().st_size
                    state.unlink()
        except (CheckpointError, RunInUseError, OSError) as error:
            self._progress.line(f"{entry.view.name}: its checkpoints stay: {error}")
            return
        if freed:
            self._lines.append(json.dumps({"trial": entry.job.number, "bytes": freed}))

    def _has_any(self, entry: Entry) -> bool:
        try:
            return bool(run_store(entry.job.config.checkpoint, entry.job.folder).stored())
        except CheckpointError:
            return True  # nothing was removed from storage that can't be read
