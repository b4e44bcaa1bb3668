"""From the lines that Ray Train's controller appends to what the user sees."""

from collections.abc import Callable
from typing import Any

from morphmlp.progress import Progress
from morphmlp.tasks.scores import TOP1


class Screen:
    """Turns the controller's lines into progress."""

    def __init__(self, progress: Progress, on_epoch: Callable[[int, float], None] | None = None) -> None:
        """Show to `progress`; validated epochs and their top-1, percent, also go to `on_epoch`."""
        self._progress = progress
        self._on_epoch = on_epoch
        self._training = False

    def show(self, line: dict[str, Any]) -> None:
        """Show what a line has: notes, validation, the step."""
        for note in line.get("notes", []):
            self._progress.line(note)
        for key, value, epoch, _ in line.get("points", []):
            if key == TOP1.val_metric:
                self._progress.line(f"epoch {epoch}: validation top-1 {value:.1f}")
                if self._on_epoch is not None:
                    self._on_epoch(epoch, value)
        if numbers := line.get("progress"):
            if not self._training:
                self._progress.phase("training", total=int(numbers["total_steps"]), unit="steps")
                self._training = True
            note = (
                f"epoch {numbers['epoch']}, loss {numbers['loss']:.3f}, {numbers['clips_per_s']:.1f} clips/s, "
                f"{numbers['data_wait']:.0%} of it waiting for data"
            )
            self._progress.update(int(numbers["step"]), note)
