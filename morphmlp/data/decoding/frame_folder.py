"""Videos that are folders of JPEG frames: `00001.jpg`, `000001.jpg` or `img_00001.jpg`, numbered from 1."""

import os
from pathlib import Path

from morphmlp.data.decoding.protocol import VideoReader
from morphmlp.data.decoding.stills import StillsReader, ordered_names
from morphmlp.errors import DecodeError


def open_frame_folder(path: str, *, num_frames: int | None = None) -> VideoReader:
    """Open a folder of frames; it's listed once.

    Args:
        path: The folder.
        num_frames: Frames that the list promises, and then uses: there must be at least as many. None: all.

    Raises:
        DecodeError: The folder can't be read, or its frames don't make a video (see `stills`).
    """
    names = frame_names(path, num_frames=num_frames)
    return StillsReader(names, lambda name: load_frame(path, name), where=path)


def frame_names(path: str, *, num_frames: int | None = None) -> tuple[str, ...]:
    """Names of a folder's frames, first to last.

    Raises:
        DecodeError: As for `open_frame_folder`.
    """
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        raise DecodeError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return ordered_names(names, where=path, num_frames=num_frames)


def load_frame(path: str, name: str) -> bytes:
    """The bytes of a frame.

    Raises:
        DecodeError: The file can't be read.
    """
    try:
        return Path(path, name).read_bytes()
    except OSError as error:
        raise DecodeError(f"can't be read: {(error.strerror or str(error)).lower()}") from None
