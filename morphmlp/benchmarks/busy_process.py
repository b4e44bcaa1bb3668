"""A process that works when it is asked to, and answers with what that took: `shared_cores`, `busy_cores`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Self

from pydantic import JsonValue

from morphmlp.errors import MorphMLPError


class BusyProcess:
    """One process, with one thread for arithmetic, of a module that reads its order and each round from its input."""

    def __init__(self, module: str, order: Mapping[str, JsonValue]) -> None:
        """Start it; it imports meanwhile."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask(json.dumps(order))

    def __enter__(self) -> Self:
        """Usable as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()  # closes its pipes

    def begin(self, amount: float) -> None:
        """Ask for a round of so many steps, or seconds."""
        self._ask(str(amount))

    def end(self) -> tuple[float, float]:
        """Wait for the round's answer.

        Raises:
            MorphMLPError: The process ended instead; what it said stands in the terminal.
        """
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise MorphMLPError("a process of the measurement ended before its time")
        first, second = json.loads(line)
        return first, second

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
