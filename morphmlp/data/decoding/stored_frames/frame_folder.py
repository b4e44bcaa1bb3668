"""Videos that are folders of frames, JPEG or PNG files that are numbered from 0 or 1 (see `frame_names`).

A single such file is an image, which is a video of one frame.
"""

import os
from pathlib import Path

from morphmlp.data.decoding.protocol import VideoReader
from morphmlp.data.decoding.stored_frames.frame_names import ordered_names, split_template
from morphmlp.data.decoding.stored_frames.stills import StillsReader
from morphmlp.errors import DecodeError


def open_frame_folder(path: str, *, num_frames: int | None = None) -> VideoReader:
    """Open a folder of frames; it's listed once.

    Args:
        path: The folder, and a template of the frames' names where there is one (`DIR/img_%05d.jpg`).
        num_frames: Frames that the list promises, and then uses: there must be at least as many. None: all.

    Raises:
        DecodeError: The folder can't be read, or its frames don't make a video.
    """
    folder, _ = split_template(path)
    names = frame_names(path, num_frames=num_frames)
    return StillsReader(names, lambda name: load_frame(folder, name), where=folder)


def open_image(path: str) -> VideoReader:
    """Open a single JPEG or PNG file as a video of one frame.

    Raises:
        DecodeError: The file can't be read, or isn't what its name says.
    """
    folder, _, name = path.rpartition("/")
    return StillsReader((name,), lambda name: load_frame(folder or ".", name), where=folder or ".")


def frame_names(path: str, *, num_frames: int | None = None) -> tuple[str, ...]:
    """Names of a folder's frames, first to last.

    Raises:
        DecodeError: As for `open_frame_folder`.
    """
    folder, template = split_template(path)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        raise DecodeError(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    return ordered_names(names, where=folder, num_frames=num_frames, template=template)


def load_frame(folder: str, name: str) -> bytes:
    """The bytes of a frame.

    Raises:
        DecodeError: The file can't be read.
    """
    try:
        return Path(folder, name).read_bytes()
    except OSError as error:
        raise DecodeError(f"can't be read: {(error.strerror or str(error)).lower()}") from None
