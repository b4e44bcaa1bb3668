"""Whether so many videos are broken that a run can't continue: their share of an epoch, and of a validation."""

from morphmlp.config.operation import IngestConfig
from morphmlp.data.quarantine import broken_limit, too_many_broken
from morphmlp.training.workers.stops import Stop, StopReason


class BrokenShare:
    """Holds counts over all workers against the experiment's limit, so that all workers come to the same end."""

    def __init__(self, ingest: IngestConfig, *, num_videos: int, num_val_videos: int) -> None:
        """Begin with the videos that there are for training and for validation."""
        self._limit = broken_limit(ingest)
        self._num_videos, self._num_val_videos = num_videos, num_val_videos
        self._planned, self._before = 0, 0.0
        """Training videos planned in this epoch's steps so far; broken ones of earlier epochs."""

    def add_step(self, planned: int) -> None:
        """Count the videos that a step was planned to take."""
        self._planned += planned

    def of_training(self, broken: float) -> Stop | None:
        """A stop where too many of this epoch's videos are broken; `broken` counts those of all epochs."""
        excess = too_many_broken(
            "train", int(broken - self._before), num_videos=self._num_videos, limit=self._limit, drawn=self._planned
        )
        return _stop("train", excess)

    def begin_epoch(self, broken: float) -> None:
        """Count anew after the epochs that found so many."""
        self._planned, self._before = 0, broken

    def of_validation(self, broken: int) -> Stop | None:
        """A stop where too many videos of a validation are broken."""
        return _stop("val", too_many_broken("val", broken, num_videos=self._num_val_videos, limit=self._limit))


def _stop(split: str, excess: str | None) -> Stop | None:
    return None if excess is None else Stop(reason=StopReason.TOO_MANY_BROKEN, split=split, detail=excess)
