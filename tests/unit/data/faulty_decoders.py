"""Decoders that do what codecs have been seen to do, named to a child process as `faulty_decoders:crashing`.

The name of the file to open says what happens: `right.video` gives frames, anything else the decoder's own fault.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from morphmlp.data.decoding.protocol import DecodedFrames, VideoInfo, beat, cut
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.errors import DecodeError

SHAPE = (6, 8, 3)
COUNT = 300


def frames(indices):
    """What a right video shows at these indices."""
    return np.stack([np.full(SHAPE, index % 251, dtype=np.uint8) for index in indices])


class Reader:
    """Frames that are known in advance."""

    info = VideoInfo(
        num_frames=COUNT, fps=30.0, pts_s=tuple(n / 30 for n in range(COUNT)), width=8, height=6, codec="none"
    )

    def __init__(self, fault):
        self.fault = fault

    def read(self, indices, box=None):
        if self.fault:
            self.fault()
        return DecodedFrames(frames=cut(frames(indices), box), concealed=3)

    def scan(self):
        if self.fault:
            self.fault()
        return 7


class Faulty:
    """Opens `right*` files rightly, `late*` files with a fault at the first read, others with a fault at once."""

    name, version = "faulty", "1"

    def __init__(self, fault):
        self.fault = fault

    def open(self, path):
        stem = Path(path).stem
        if not stem.startswith(("right", "late")):
            self.fault()
        return Reader(self.fault if stem.startswith("late") else None)


def _spin():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass


def _spin_with_signals():
    while True:
        pass


def _allocate():
    kept = []
    while True:
        kept.append(np.ones(2**20, dtype=np.uint8))


_leaked = []


def _leak_and_refuse():
    _leaked.append(np.ones(64 * 2**20, dtype=np.uint8))
    raise DecodeError(f"{len(_leaked)} leaked")


def _chatter():
    for _ in range(2_000):
        os.write(1, b"noise on the standard output\n" * 10)
        os.write(2, b"noise on the standard error\n") if _room() else None
    print("printed", flush=True)
    raise DecodeError("chattered")


def _room():
    import select

    return bool(select.select([], [2], [], 0)[1])


def _complain_and_abort():
    os.write(2, b"first line\nterminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


class Own(Exception):  # noqa: N818 (a type that only the child knows)
    """An exception that can't be sent."""

    def __init__(self, lock):
        super().__init__(f"two\nlines, {bool(lock)}")
        self.lock = lock


def _raise_own():
    import threading

    raise Own(threading.Lock())


def _raise_index_error():
    raise IndexError("frames 9..9 of a video with 3")


WORK_CPU_S = 0.05
"""What `working` takes of a processor before it refuses a file."""


def _work_and_refuse():
    end = time.process_time() + WORK_CPU_S
    while time.process_time() < end:
        pass
    raise DecodeError("no picture in it")


def _plod(beats):
    for _ in range(beats):
        time.sleep(0.25)
        beat()


def plodding():
    """Shows progress for one and a half seconds."""
    return Faulty(lambda: _plod(6))


def stalling():
    """Shows progress for a second, then none."""
    return Faulty(lambda: [_plod(4), time.sleep(60)])


def crashing():
    return Faulty(lambda: os.kill(os.getpid(), signal.SIGSEGV))


def aborting():
    return Faulty(_complain_and_abort)


def spinning():
    return Faulty(_spin)


def spinning_with_signals():
    return Faulty(_spin_with_signals)


def allocating():
    return Faulty(_allocate)


def leaking():
    return Faulty(_leak_and_refuse)


def chattering():
    return Faulty(_chatter)


def sleeping():
    return Faulty(lambda: time.sleep(0.55))


def exiting():
    return Faulty(lambda: sys.exit(3))


def raising_its_own():
    return Faulty(_raise_own)


def asked_wrongly():
    return Faulty(_raise_index_error)


class Killed:
    """Dies at the first try of each file as the system kills, and at each try of files named `always*`."""

    name, version = "killed", "1"

    def open(self, path):
        tried = Path(f"{path}.tried")
        first = not tried.exists()
        tried.touch()
        if first or Path(path).stem.startswith("always"):
            os.kill(os.getpid(), signal.SIGKILL)
        return Reader(None)


def killed():
    return Killed()


def working():
    return Faulty(_work_and_refuse)


class PyAVOrWorse:
    """Opens videos as PyAV does, but dies, hangs or runs out of memory at files named `crash`, `hang` and `large`."""

    name, version = "pyav or worse", "1"
    faults: ClassVar = {
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "hang": lambda: time.sleep(3600),
        "large": lambda: np.ones(2**45, dtype=np.uint8),
    }

    def open(self, path):
        if fault := self.faults.get(Path(path).stem):
            fault()
        return PyAVDecoder().open(path)


def pyav_or_worse():
    return PyAVOrWorse()


def not_starting():
    raise OSError("libcodec.so.7: cannot open shared object file")


def images_or_worse():
    """Decodes JPEGs as ever, but dies, hangs or runs out of memory at those that hold the words for it."""
    import simplejpeg

    real, faults = (
        simplejpeg.decode_jpeg,
        {f"please {name}".encode(): fault for name, fault in PyAVOrWorse.faults.items()},
    )

    def decode_jpeg(data, **options):
        for words, fault in faults.items():
            if words in data:
                fault()
        return real(data, **options)

    simplejpeg.decode_jpeg = decode_jpeg
    return PyAVOrWorse()
