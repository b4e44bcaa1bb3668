"""The project's own errors: what a user can cause and act on.

Every message carries what is wrong, the value, what would be right, and where. Pipelines turn these
errors into one line and exit code 2; anything else is a defect and keeps its traceback.
"""

import errno
import functools
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class MorphMLPError(Exception):
    """Base of every error that a user can cause."""


class ConfigError(MorphMLPError):
    """A configuration that can't be run: unknown keys, bad values, shapes that don't fit."""

    def __init__(self, faults: Sequence[str]) -> None:
        """Keep every fault, each led by its dotted path (`model.chunk_lengths: ...`)."""
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[str, ...]]]:
        """Survive pickling between processes with the list of faults."""
        return type(self), (self.faults,)


class ManifestError(MorphMLPError):
    """Annotations or a manifest that don't hold together; the message names lines and paths."""


class DecodeError(MorphMLPError):
    """A video that can't be decoded; it becomes a quarantine row, not the end of a run."""


class DecodeTimeoutError(DecodeError):
    """A video on which the decoder didn't come to an end."""


class DecoderCrashError(DecodeError):
    """A video at which the decoder's process died."""


class DecoderKilledError(DecoderCrashError):
    """Its process was killed from outside, as the system does where memory runs out; the video needn't be the cause."""


class CopyError(DecodeError):
    """A prepared copy that doesn't show what its source does, or that can't be made of it."""


class DecoderStartError(MorphMLPError):
    """A decoder's process that can't be started; no video is at fault."""


class QuarantineLimitError(MorphMLPError):
    """More videos are broken than the configuration allows."""


class DivergenceError(MorphMLPError):
    """A training whose loss is no longer a number."""


class RunStoppedError(MorphMLPError):
    """A run that saved and stopped because it was asked to; the same command continues it."""

    def __init__(self, message: str, *, signum: int) -> None:
        """Keep the signal that asked for it, for the exit code."""
        super().__init__(message)
        self.signum = signum

    def __reduce__(self) -> tuple[Callable[..., "RunStoppedError"], tuple[str]]:
        """Survive pickling between processes with the signal."""
        return functools.partial(type(self), signum=self.signum), (str(self),)


class RunInUseError(MorphMLPError):
    """A run that another command works on."""


class CheckpointError(MorphMLPError):
    """A checkpoint that is truncated, not ours, or belongs to another experiment."""


class StorageError(CheckpointError):
    """Storage that is full, read-only, or gives no answer: no checkpoint is at fault, and no step is taken again."""


class ClusterError(MorphMLPError):
    """A cluster or machine that can't hold the run."""


class EvaluationError(MorphMLPError):
    """An evaluation that didn't score every video exactly once."""


class ScoreStoreError(EvaluationError):
    """A score store that isn't there, is damaged, or holds scores of something else."""


class ExportError(MorphMLPError):
    """An exported model that isn't the network."""


class TrackingError(MorphMLPError):
    """A tracking store that can't be reached, or a run that isn't in it."""


class StoreAwayError(TrackingError):
    """A tracking store that gives no answer now and may give one later."""


class SweepError(MorphMLPError):
    """Trials of a sweep that failed; the others are done and recorded."""


_STORAGE_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
        # Disks behind a network: a stale handle, a mount whose server is gone.
        *(errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO),
    }
)


def storage_fault(error: BaseException) -> StorageError | None:
    """What the operating system says of a disk, as a fault that the user can fix; None for other errors."""
    if not isinstance(error, OSError) or error.errno not in _STORAGE_ERRNOS:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return StorageError(f"{where}{os.strerror(error.errno)}; the same command continues once that is fixed")


@contextmanager
def disk_faults_located() -> Iterator[None]:
    """Name this host where the operating system names no file: what it says of a disk is read on another host.

    Raises:
        OSError: As it came, or with the host in the place of the file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or storage_fault(error) is None:
            raise
        raise OSError(error.errno, error.strerror, f"a disk of {socket.gethostname()}") from error


@contextmanager
def storage_faults_reported() -> Iterator[None]:
    """Turn what the operating system says of a disk into the project's error.

    Raises:
        StorageError: Such a fault.
    """
    try:
        yield
    except OSError as error:
        if (fault := storage_fault(error)) is None:
            raise
        raise fault from error
