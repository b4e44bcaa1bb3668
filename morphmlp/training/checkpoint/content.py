"""The bytes of a checkpoint: written as they are hashed, and read back without running pickled code."""

import errno
import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch

from morphmlp.errors import CheckpointError

FORMAT = "morphmlp-checkpoint-3"
"""Value of the content's key `format`."""
_TRUNCATED = "is truncated, or not what torch.save writes"
_UNFLUSHED_BYTES = 64 * 2**20


class PickledCodeError(CheckpointError):
    """Bytes that only running pickled code could read; it isn't run."""


def write_content(stream: BinaryIO, content: Mapping[str, object]) -> tuple[int, str]:
    """Write a checkpoint to a stream that needn't seek; no second copy of it is made. Bytes written, and their SHA-256.

    Raises:
        OSError: The stream failed.
    """
    hashing = _HashingStream(stream)
    try:
        torch.save(dict(content), hashing)  # type: ignore[arg-type]  # (it needs no more of a file than this has)
    except RuntimeError:
        # torch's writer hides why it couldn't write.
        if hashing.failure is not None:
            raise OSError(*hashing.failure) from None
        raise
    return hashing.size, hashing.sha256.hexdigest()


def read_content(file: BinaryIO, *, size: int, sha256: str) -> dict[str, Any]:
    """Read a checkpoint from a seekable file.

    Raises:
        CheckpointError: The bytes are others, or they aren't a checkpoint; the message doesn't say which file.
        OSError: The file failed.
    """
    found = file.seek(0, os.SEEK_END)
    if found != size:
        raise CheckpointError(f"truncated: it has {found} bytes of {size}")
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:  # type: ignore[arg-type]  # (typeshed wants readinto)
        raise CheckpointError("damaged: its bytes aren't those that were written")
    file.seek(0)
    try:
        content = load_values(file)
    except CheckpointError as error:
        raise CheckpointError(f"not ours: it {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"not ours: its content isn't of format {FORMAT!r}")
    return content


def load_values(file: BinaryIO) -> object:
    """What `torch.save` wrote, by torch's own unpickler that knows tensors and plain values and calls nothing.

    Of an open file: of a path, torch takes the ending to say what is in it.

    Raises:
        PickledCodeError, CheckpointError: It can't be read so. The message follows a file's name, and has none
            of torch's words: those advise to let the file run its code.
        OSError: The file failed.
    """
    try:
        content: object = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Where a file's end is missing, torch looks for it before the beginning.
        raise CheckpointError(_TRUNCATED) from None
    except Exception as error:  # noqa: BLE001 (the unpickler stumbles over truncated and other bytes in every way)
        named = re.search(r"GLOBAL (\S+\w)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named is None:
            raise CheckpointError(_TRUNCATED) from None
        raise PickledCodeError(
            f"holds more than tensors and plain values ({named[1]}), and only running its code could read that"
        ) from None
    return content


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _HashingStream:
    """What torch.save needs of a file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._unflushed = 0
        # Not the exception: torch's writer never lets go of a stream that failed, and a traceback holds the content.
        self.failure: tuple[object, ...] | None = None

    def write(self, data: memoryview) -> int:
        try:
            self._stream.write(data)
            self._unflushed += len(data)
            if self._unflushed >= _UNFLUSHED_BYTES:
                # An S3 stream keeps copies of all that isn't sent yet, without limit.
                self.flush()
        except OSError as error:
            self.failure = error.args
            raise
        self.sha256.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()
        self._unflushed = 0
