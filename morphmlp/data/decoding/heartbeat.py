"""Signs that a decoder is at work, for whoever waits for it: a long video is told from a decoder that stands still.

The code that reads packets and decodes frames beats; it needn't know whether anyone listens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Heartbeat:
    listener: Callable[[], None] | None = None


def beat() -> None:
    """A packet was read, or a frame came out."""
    if _Heartbeat.listener is not None:
        _Heartbeat.listener()


@contextmanager
def heard(listener: Callable[[], None] | None) -> Iterator[None]:
    """Let a function hear every beat of this process; None: nobody listens."""
    before, _Heartbeat.listener = _Heartbeat.listener, listener
    try:
        yield
    finally:
        _Heartbeat.listener = before
