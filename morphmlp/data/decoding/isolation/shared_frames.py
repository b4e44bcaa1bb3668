"""Memory that a process and its decoder child both see, for decoded frames.

The child writes frames into it and the process looks at them where they are. It must not know which of the two it's in;
that they take turns is the caller's affair.
"""

import mmap
import os
import tempfile
import weakref
from math import prod

import numpy as np

from morphmlp.data.decoding.protocol import Frames


class SharedFrames:
    """A piece of memory without a name that grows to the largest stack of frames put into it."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Take over the descriptor that the other process passed, or make new memory."""
        self.descriptor = _anonymous_file() if descriptor is None else descriptor
        """Of the file behind it."""
        self._map: mmap.mmap | None = None
        self._seen: weakref.ref[Frames] | None = None
        self._close = weakref.finalize(self, os.close, self.descriptor)

    @property
    def size(self) -> int:
        """Bytes that it holds, as far as this process has looked."""
        return 0 if self._map is None else len(self._map)

    @property
    def in_use(self) -> bool:
        """Whether the array that `frames` gave last, or a view of it, is still held by someone."""
        return self._seen is not None and self._seen() is not None

    def frames(self, shape: tuple[int, ...]) -> Frames:
        """The memory's beginning as `[t h w c]`, not a copy. It outlives this object."""
        size = prod(shape)
        if self._map is None or len(self._map) < size:
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            # An earlier map is left to the arrays that still look at it.
            self._map = mmap.mmap(self.descriptor, size)
        frames: Frames = np.ndarray(shape, dtype=np.uint8, buffer=self._map)
        self._seen = weakref.ref(frames)
        return frames

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last array that looks at it."""
        self._close()


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoded frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
