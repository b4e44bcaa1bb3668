"""A training worker's part of the time that a user waits for the first step."""

import time
from pathlib import Path

from morphmlp.start_marks import Part, StartMarks, start_in_words
from morphmlp.training.loop.loop import StepSummary


class WorkerStart:
    """Marks when a worker was there, ready, had its first clips, and had taken its first step."""

    def __init__(self, path: Path | None) -> None:
        """The worker is there; the first one's marks go to the run's file, the others' to none."""
        self._path, self._marks = path, StartMarks(path)
        self._begun = False
        self._marks.mark(Part.WORKER)

    def ready(self) -> None:
        """Its network is built, and the state that it continues from restored."""
        self._marks.mark(Part.MODEL)

    def step_taken(self, summary: StepSummary) -> list[str]:
        """Add a step; of the first one a line for the user comes back, where a command waits for it."""
        if self._begun:
            return []
        self._begun = True
        summary.totals.loss_sum.item()  # waits for the device
        now, times = time.time(), summary.times
        self._marks.mark(Part.CLIPS, at=now - (times.step_s - times.asked_s))
        self._marks.mark(Part.STEP, at=now)
        said = None if self._path is None else start_in_words(self._path)
        return [] if said is None else [said]
