"""Results as lines, each written at once and whole, or one clear error: a full disk loses no line in silence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphmlp.errors import ConfigError
from morphmlp.targets import json_file


class LineOutput:
    """Where lines go: an open file, a pipe or a terminal. Nothing waits in a buffer."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor, self._name = descriptor, name

    def line(self, text: str) -> None:
        """Write a line.

        Raises:
            ConfigError: It can't be written.
            BrokenPipeError: The reader has gone.
        """
        left = f"{text}\n".encode(errors="backslashreplace")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ConfigError([f"{self._name}: can't be written: {error.strerror}"]) from None


@contextmanager
def file_of_lines(path: Path, option: str) -> Iterator[LineOutput]:
    """A file that an option names; what was in it is replaced.

    Raises:
        ConfigError: It can't be written.
    """
    path = json_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        raise ConfigError([f"{option}: {path}: can't be written: {error.strerror}"]) from None
    try:
        yield LineOutput(descriptor, f"{option}: {path}")
    finally:
        os.close(descriptor)
